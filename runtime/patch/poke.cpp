// The text poke's ladder. See poke.h.
#include "runtime/patch/poke.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "runtime/patch/own_memory.h"
#include "xol/assert.h"

namespace ubp::patch {
namespace {

constexpr std::uint64_t kPage = kPageBytes;
constexpr std::uint64_t kMaxRun = 64 * kPage;

std::uint64_t page_of(std::uint64_t address) { return address & ~(kPage - 1); }

// A byte to write, and what stood there.
struct Change {
  Byte byte;
  std::uint8_t before = 0;
};

// Calls write(address, bytes, size) for every run of neighbouring pages, with the text as it shall become, and notes
// what it was. Returns how many of the changes were covered before the first failure.
template <typename Write>
std::size_t for_each_run(const OwnMemory& memory, std::span<Change> changes, const Write& write,
                         std::uint64_t max_run) {
  std::vector<std::uint8_t> text;
  const auto address_of = [&](std::size_t at) { return changes[at].byte.address; };
  std::size_t begin = 0;
  while (begin < changes.size()) {
    std::size_t end = begin + 1;
    while (end < changes.size() && page_of(address_of(end)) <= page_of(address_of(end - 1)) + kPage &&
           address_of(end) - page_of(address_of(begin)) < max_run) {
      UBP_ASSERT(address_of(end) > address_of(end - 1));
      ++end;
    }
    const std::uint64_t low = address_of(begin);
    const std::uint64_t size = address_of(end - 1) + 1 - low;
    text.resize(size);
    if (memory.read(low, text.data(), size) != size) return begin;
    for (std::size_t at = begin; at < end; ++at) {
      changes[at].before = text[address_of(at) - low];
      text[address_of(at) - low] = changes[at].byte.value;
    }
    if (!write(low, text.data(), size)) return begin;
    begin = end;
  }
  return changes.size();
}

// The second rung: a private copy of one page, made read-execute before it takes the original's place. mremap replaces
// the mapping under the address-space lock: a thread that runs there waits, and finds either page.
bool replace_page(const OwnMemory& memory, std::uint64_t address, const std::uint8_t* data, std::uint64_t size) {
  const std::uint64_t page = page_of(address);
  void* const copy = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return false;
  const bool is_read = memory.read(page, static_cast<std::uint8_t*>(copy), kPage) == kPage;
  std::memcpy(static_cast<std::uint8_t*>(copy) + (address - page), data, size);
  if (is_read && mprotect(copy, kPage, PROT_READ | PROT_EXEC) == 0 &&
      mremap(copy, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(page)) != MAP_FAILED) {
    return true;
  }
  munmap(copy, kPage);
  return false;
}

std::size_t write_all(const OwnMemory& memory, std::span<Change> changes) {
  const auto write = [&](std::uint64_t address, const std::uint8_t* data, std::uint64_t size) {
    return memory.write(address, data, size);
  };
  const auto replace = [&](std::uint64_t address, const std::uint8_t* data, std::uint64_t size) {
    return replace_page(memory, address, data, size);
  };
  std::size_t done = for_each_run(memory, changes, write, kMaxRun);
  if (done < changes.size()) done += for_each_run(memory, changes.subspan(done), replace, kPage);
  return done;
}

std::string denied(int error) {
  return std::string("cannot write program text: /proc/self/mem and mremap were both denied (") + std::strerror(error) +
         ")";
}

}  // namespace

std::optional<std::string> write_pages(std::span<const Page> pages) {
  const OwnMemory memory;
  std::vector<std::uint8_t> run;
  for (std::size_t begin = 0, end = 0; begin < pages.size(); begin = end) {
    run.clear();
    UBP_ASSERT(pages[begin].address % kPage == 0);
    const auto follows = [&](const Page& page) {
      return page.address == pages[begin].address + run.size() && run.size() < kMaxRun;
    };
    for (end = begin; end < pages.size() && follows(pages[end]); ++end) {
      run.insert(run.end(), pages[end].bytes, pages[end].bytes + kPage);
    }
    if (memory.write(pages[begin].address, run.data(), run.size())) continue;
    for (std::size_t page = begin; page < end; ++page) {
      if (!replace_page(memory, pages[page].address, pages[page].bytes, kPage)) return denied(errno);
    }
  }
  return std::nullopt;
}

std::optional<std::string> write_text(std::span<const Byte> bytes, const OwnMemory& memory) {
  std::vector<Change> changes;
  changes.reserve(bytes.size());
  for (const Byte& byte : bytes) changes.push_back({byte});
  const std::size_t done = write_all(memory, changes);
  if (done == bytes.size()) return std::nullopt;
  const int error = errno;
  for (Change& change : changes) change.byte.value = change.before;
  write_all(memory, std::span(changes).first(done));
  return denied(error);
}

}  // namespace ubp::patch
