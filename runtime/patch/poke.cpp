// The text poke's ladder. See poke.h.
#include "runtime/patch/poke.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace ubp::patch {
namespace {

constexpr std::uint64_t kPage = kPageBytes;
constexpr std::uint64_t kMaxRun = 64 * kPage;

std::uint64_t page_of(std::uint64_t address) { return address & ~(kPage - 1); }

// Calls write(address, bytes, size) for every run of neighbouring pages, with the text as it shall become.
// Returns how many bytes of the list were covered before the first failure.
template <typename Write>
std::size_t for_each_run(std::span<const Byte> bytes, const Write& write, std::uint64_t max_run) {
  std::vector<std::uint8_t> text;
  std::size_t begin = 0;
  while (begin < bytes.size()) {
    std::size_t end = begin + 1;
    while (end < bytes.size() && page_of(bytes[end].address) <= page_of(bytes[end - 1].address) + kPage &&
           bytes[end].address - page_of(bytes[begin].address) < max_run) {
      ++end;
    }
    const std::uint64_t low = bytes[begin].address;
    const std::uint64_t size = bytes[end - 1].address + 1 - low;
    text.resize(size);
    std::memcpy(text.data(), reinterpret_cast<const void*>(low), size);
    for (std::size_t at = begin; at < end; ++at) text[bytes[at].address - low] = bytes[at].value;
    if (!write(low, text.data(), size)) return begin;
    begin = end;
  }
  return bytes.size();
}

// First rung.
class ProcMem {
 public:
  ProcMem() : fd_(open("/proc/self/mem", O_RDWR | O_CLOEXEC)) {}
  ~ProcMem() {
    if (fd_ >= 0) close(fd_);
  }
  ProcMem(const ProcMem&) = delete;
  ProcMem& operator=(const ProcMem&) = delete;

  bool operator()(std::uint64_t address, const std::uint8_t* data, std::uint64_t size) const {
    while (size > 0) {
      const ssize_t wrote = pwrite(fd_, data, size, static_cast<off_t>(address));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote <= 0) return false;
      data += wrote;
      address += static_cast<std::uint64_t>(wrote);
      size -= static_cast<std::uint64_t>(wrote);
    }
    return true;
  }

 private:
  int fd_;
};

// Second rung: a private copy of one page, made read-execute before it takes the original's place. mremap replaces
// the mapping under the address-space lock: a thread that runs there waits, and finds either page.
bool replace_page(std::uint64_t address, const std::uint8_t* data, std::uint64_t size) {
  const std::uint64_t page = page_of(address);
  void* const copy = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return false;
  std::memcpy(copy, reinterpret_cast<const void*>(page), kPage);
  std::memcpy(static_cast<std::uint8_t*>(copy) + (address - page), data, size);
  if (mprotect(copy, kPage, PROT_READ | PROT_EXEC) == 0 &&
      mremap(copy, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(page)) != MAP_FAILED) {
    return true;
  }
  munmap(copy, kPage);
  return false;
}

std::size_t write_all(std::span<const Byte> bytes) {
  std::size_t done = for_each_run(bytes, ProcMem{}, kMaxRun);
  if (done < bytes.size()) done += for_each_run(bytes.subspan(done), replace_page, kPage);
  return done;
}

std::string denied(int error) {
  return std::string("cannot write program text: /proc/self/mem and mremap were both denied (") + std::strerror(error) + ")";
}

}  // namespace

std::optional<std::string> write_pages(std::span<const Page> pages) {
  const ProcMem memory;
  std::vector<std::uint8_t> run;
  for (std::size_t begin = 0, end = 0; begin < pages.size(); begin = end) {
    run.clear();
    const auto follows = [&](const Page& page) { return page.address == pages[begin].address + run.size() && run.size() < kMaxRun; };
    for (end = begin; end < pages.size() && follows(pages[end]); ++end) {
      run.insert(run.end(), pages[end].bytes, pages[end].bytes + kPage);
    }
    if (memory(pages[begin].address, run.data(), run.size())) continue;
    for (std::size_t page = begin; page < end; ++page) {
      if (!replace_page(pages[page].address, pages[page].bytes, kPage)) return denied(errno);
    }
  }
  return std::nullopt;
}

std::optional<std::string> write_text(std::span<const Byte> bytes) {
  std::vector<Byte> before(bytes.begin(), bytes.end());
  for (Byte& byte : before) byte.value = *reinterpret_cast<const std::uint8_t*>(byte.address);
  const std::size_t done = write_all(bytes);
  if (done == bytes.size()) return std::nullopt;
  const int error = errno;
  write_all(std::span(before).first(done));
  return denied(error);
}

}  // namespace ubp::patch
