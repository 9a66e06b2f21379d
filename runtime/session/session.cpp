// See session.h.
#include "runtime/session/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <system_error>

#include "xol/sys.h"

namespace ubp::program {
namespace {

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + sys::kPageBytes - 1) & ~(sys::kPageBytes - 1); }

// Address space in the file, of which what is counted takes pages.
std::uint64_t room_for_counters(std::uint64_t behind) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 40;
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const std::uint64_t left = limit.rlim_cur > behind ? limit.rlim_cur - behind : 0;
  return std::min<std::uint64_t>(kMost, left) & ~(sys::kPageBytes - 1);
}

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

std::unique_ptr<Session> Session::create(const std::string& name, const std::string& program, const Inputs& inputs,
                                         std::uint64_t memory_bytes) {
  std::vector<std::string> texts{name, program};
  texts.insert(texts.end(), inputs.parameters.begin(), inputs.parameters.end());
  for (const auto& [setting, value] : inputs.settings) texts.insert(texts.end(), {setting, value});
  std::unique_ptr<Session> session(new Session);
  std::string all;
  for (const std::string& text : texts) all.append(text.c_str(), text.size() + 1);
  const std::uint64_t offset = whole_pages(sizeof(SessionHeader) + all.size());
  session->bytes_ = offset + whole_pages(memory_bytes);
  const std::uint64_t counted = room_for_counters(session->bytes_);
  session->file_ = memfd_create("ubp-session", MFD_CLOEXEC);
  if (session->file_ < 0) fail("memfd_create");
  if (ftruncate(session->file_, static_cast<off_t>(session->bytes_ + counted)) != 0) fail("ftruncate");
  void* const mapping = mmap(nullptr, session->bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, session->file_, 0);
  if (mapping == MAP_FAILED) fail("mmap");
  session->mapping_ = mapping;
  SessionHeader& header = session->header();
  header.magic = SessionHeader::kMagic;
  header.version = SessionHeader::kVersion;
  header.texts = static_cast<std::uint32_t>(texts.size());
  header.text_bytes = all.size();
  header.settings = static_cast<std::uint32_t>(inputs.settings.size());
  header.memory_offset = offset;
  header.memory_bytes = memory_bytes;
  header.counted_offset = session->bytes_;
  header.counted_bytes = counted;
  std::memcpy(&header + 1, all.data(), all.size());
  return session;
}

std::unique_ptr<Session> Session::open(const char* path) {
  const int file = ::open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  struct stat status {};
  std::unique_ptr<Session> session(new Session);
  session->path_ = path;
  SessionHeader first;
  if (fstat(file, &status) == 0 && pread(file, &first, sizeof first, 0) == sizeof first &&
      first.memory_offset >= sizeof first && first.memory_offset <= static_cast<std::uint64_t>(status.st_size) &&
      first.memory_bytes <= static_cast<std::uint64_t>(status.st_size) - first.memory_offset) {
    session->bytes_ = first.memory_offset + first.memory_bytes;
    void* const mapping = mmap(nullptr, session->bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapping != MAP_FAILED) session->mapping_ = mapping;
  }
  close(file);
  if (session->mapping_ == nullptr) return nullptr;
  const SessionHeader& header = session->header();
  const std::uint64_t texts = session->bytes_ - sizeof header;
  const bool is_good = header.magic == SessionHeader::kMagic && header.version == SessionHeader::kVersion &&
                       header.text_bytes <= texts && header.texts >= 2 && header.settings <= (header.texts - 2) / 2 &&
                       header.memory_offset <= session->bytes_ &&
                       header.memory_bytes <= session->bytes_ - header.memory_offset &&
                       session->texts().size() == header.texts;
  return is_good ? std::move(session) : nullptr;
}

Session::~Session() {
  if (mapping_ != nullptr) munmap(mapping_, bytes_);
  if (file_ >= 0) close(file_);
}

std::vector<std::string_view> Session::texts() const {
  std::string_view all(reinterpret_cast<const char*>(&header() + 1), header().text_bytes);
  std::vector<std::string_view> texts;
  while (!all.empty()) {
    const std::size_t end = std::min(all.find('\0'), all.size() - 1);
    texts.push_back(all.substr(0, end));
    all.remove_prefix(end + 1);
  }
  return texts;
}

Inputs Session::inputs() const {
  const std::vector<std::string_view> all = texts();
  const auto settings = all.end() - 2 * static_cast<std::ptrdiff_t>(header().settings);
  Inputs inputs;
  inputs.parameters.assign(all.begin() + 2, settings);
  for (auto text = settings; text != all.end(); text += 2) inputs.settings.emplace_back(text[0], text[1]);
  return inputs;
}

std::string Session::path() const { return fmt::format("/proc/{}/fd/{}", getpid(), file_); }

bool Session::claim() const {
  std::uint32_t nobody = 0;
  return __atomic_compare_exchange_n(&header().process, &nobody, static_cast<std::uint32_t>(getpid()), false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

bool Session::claim_end() const { return __atomic_exchange_n(&header().has_ended, 1, __ATOMIC_ACQ_REL) == 0; }

void Session::note(NotRun::Nearness nearness, std::uint32_t line, std::uint32_t column, std::string_view message,
                   std::string_view hint) const {
  NotRun& noted = header().not_run;
  if (nearness < noted.nearness) return;
  noted.nearness = nearness;
  noted.line = line;
  noted.column = column;
  noted.message[message.copy(noted.message, sizeof noted.message - 1)] = '\0';
  noted.hint[hint.copy(noted.hint, sizeof noted.hint - 1)] = '\0';
}

void Session::attach(std::uint32_t probes) const {
  constexpr int kMostSeconds = 2;  // the reader may have been killed
  SessionHeader& its = header();
  its.attached = probes;
  __atomic_store_n(&its.state, SessionHeader::kAttached, __ATOMIC_RELEASE);  // pairs with the reader
  syscall(SYS_futex, &its.state, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  const timespec most{kMostSeconds, 0};
  while (__atomic_load_n(&its.is_read, __ATOMIC_ACQUIRE) == 0) {
    if (syscall(SYS_futex, &its.is_read, FUTEX_WAIT, 0, &most, nullptr, 0) != 0 && errno == ETIMEDOUT) return;
  }
}

}  // namespace ubp::program
