// See family.h.
#include "runtime/preload/family.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstring>

#include "runtime/report/report.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

constexpr std::uint64_t kMagic = 0x317967616d666275;  // and the layout below
using sys::kPageBytes;
constexpr int kLowestDescriptor = 100;

struct Noted {
  std::atomic<std::uint32_t> count;
  std::atomic<std::uint32_t> length;  // of the text, when it is complete
  char text[480];
};
struct Page {  // relaxed wherever nothing is said: each is a number on its own
  std::uint64_t magic;
  std::atomic<std::uint32_t> executed;  // programs
  std::atomic<std::uint32_t> owner;     // files_owner()
  std::atomic<std::uint32_t> is_over;   // the first has told
  std::atomic<std::uint32_t> unfollowed;
  Noted noted[3];
};
static_assert(sizeof(Page) <= kPageBytes);

struct First {
  std::uint32_t pid = 0;
  report::ErrorStream::Source errors;
  int page = -1;  // descriptor; none as yet
};
First g_first;
Page* g_page = nullptr;  // null: none could be had
bool g_was_executed = false;
report::ErrorStream::Source
    g_page_file;  // which file the first's page is in: the program may have closed the descriptor

// "12:104:64769:1234:105": pid, descriptor, device, inode, descriptor.
bool parse(std::string_view text, First& first) {
  std::array<std::int64_t, 5> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), numbers[i]);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const bool is_last = i + 1 == numbers.size();
    if (is_last ? !text.empty() : !text.starts_with(':')) return false;
    if (!is_last) text.remove_prefix(1);
  }
  first.pid = static_cast<std::uint32_t>(numbers[0]);
  first.errors = {static_cast<int>(numbers[1]), static_cast<dev_t>(numbers[2]), static_cast<ino_t>(numbers[3])};
  first.page = static_cast<int>(numbers[4]);
  return first.pid != 0;
}

std::string descriptor_path(std::uint32_t pid, int descriptor) {
  return fmt::format("/proc/{}/fd/{}", pid, descriptor);
}

Page* map_page(int descriptor) {
  const int flags = descriptor < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  void* const page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  return page != MAP_FAILED ? static_cast<Page*>(page) : nullptr;
}

// The first one's page, if that is what is there; file: where it is, with what is written to the first behind it.
Page* open_page(const First& first, int& file) {
  if (first.page < 0) return nullptr;
  file = open(descriptor_path(first.pid, first.page).c_str(), O_RDWR | O_APPEND | O_CLOEXEC);
  if (file < 0) return nullptr;
  struct stat status {};
  Page* page =
      fstat(file, &status) == 0 && static_cast<std::size_t>(status.st_size) >= kPageBytes ? map_page(file) : nullptr;
  if (page != nullptr && page->magic == kMagic) return page;
  if (page != nullptr) munmap(page, kPageBytes);
  close(file);
  file = -1;
  return nullptr;
}

report::ErrorStream::Source source_of(int descriptor) {
  struct stat status {};
  if (descriptor < 0 || fstat(descriptor, &status) != 0) return {};
  return {descriptor, status.st_dev, status.st_ino};
}

// The first one's standard error; or its mailbox, which it empties at its end, where that is a regular file, in which
// whoever has the same open would write over what is appended. `mailbox` is taken.
report::ErrorStream::Source errors_of(const First& first, int mailbox) {
  constexpr int kFlags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  struct stat status {};
  const auto is_it = [&](int descriptor) {
    return fstat(descriptor, &status) == 0 && status.st_dev == first.errors.device &&
           status.st_ino == first.errors.inode;
  };
  int stream = -1;
  if (!is_it(STDERR_FILENO) && first.errors.descriptor >= 0) {
    stream = open(descriptor_path(first.pid, first.errors.descriptor).c_str(), kFlags);
    const bool is_good = stream >= 0 && is_it(stream) && !S_ISREG(status.st_mode);
    if (!is_good && stream >= 0) close(stream);
    if (!is_good) {
      const report::ErrorStream::Source box = source_of(mailbox);
      if (box.descriptor >= 0) return box;
      stream = -1;
    }
  }
  if (mailbox >= 0) close(mailbox);
  return {stream, first.errors.device, first.errors.inode};
}

}  // namespace

void join_family(const char* told) {
  First first;
  const std::uint32_t pid = sys::getpid();
  g_was_executed = told != nullptr && parse(told, first) && first.pid != pid;
  if (g_was_executed) {
    g_first = first;
    int mailbox = -1;
    g_page = open_page(first, mailbox);
    report::redirect_errors(errors_of(first, mailbox));
    if (g_page != nullptr) g_page->executed.fetch_add(1, std::memory_order_relaxed);  // a statistic
    return;
  }
  g_first = {};
  g_first.pid = pid;
  g_page = map_page(-1);
  if (g_page != nullptr) g_page->magic = kMagic;
}

std::string first_of_family() {
  if (!g_was_executed && g_first.page < 0) {
    const int file = memfd_create("ubp", MFD_CLOEXEC);
    g_page_file = source_of(file);
    g_first.page = file >= 0 ? fcntl(file, F_DUPFD_CLOEXEC, kLowestDescriptor) : -1;
    if (file >= 0) close(file);
    Page* const shared =
        g_first.page >= 0 && ftruncate(g_first.page, kPageBytes) == 0 ? map_page(g_first.page) : nullptr;
    if (shared != nullptr && g_page != nullptr) {
      std::memcpy(static_cast<void*>(shared), g_page, sizeof *g_page);  // nobody has it yet: load time
      munmap(g_page, kPageBytes);
      g_page = shared;
    }
    g_first.errors = report::error_stream().source();
  }
  const report::ErrorStream::Source& errors = g_first.errors;
  return fmt::format("{}:{}:{}:{}:{}", g_first.pid, errors.descriptor, static_cast<std::int64_t>(errors.device),
                     static_cast<std::int64_t>(errors.inode), g_first.page);
}

bool was_executed() { return g_was_executed; }
bool is_first_of_family() { return g_first.pid == sys::getpid(); }

std::uint32_t files_owner(bool claim) {
  if (g_page == nullptr) return g_first.pid;
  std::uint32_t owner = 0;
  const std::uint32_t pid = sys::getpid();
  if (claim && g_page->owner.compare_exchange_strong(owner, pid, std::memory_order_relaxed))
    return pid;  // a number, no more
  return claim ? owner : g_page->owner.load(std::memory_order_relaxed);
}

bool note_in_family(Note note, std::string_view text) {
  if (g_page == nullptr || is_first_of_family() || g_page->is_over.load(std::memory_order_relaxed) != 0) return false;
  Noted& noted = g_page->noted[static_cast<std::size_t>(note)];
  if (noted.count.fetch_add(1, std::memory_order_relaxed) != 0) return true;  // whoever is first writes its text
  const std::size_t length = std::min(text.size(), sizeof noted.text);
  std::memcpy(noted.text, text.data(), length);
  noted.length.store(static_cast<std::uint32_t>(length), std::memory_order_release);  // pairs with told_by_family()
  return true;
}

void count_unfollowed() {
  if (g_page != nullptr) g_page->unfollowed.fetch_add(1, std::memory_order_relaxed);  // a statistic
}
std::uint32_t unfollowed() { return g_page != nullptr ? g_page->unfollowed.load(std::memory_order_relaxed) : 0; }

std::string mail_of_family() {
  const report::ErrorStream::Source file = source_of(g_first.page);
  if (!is_first_of_family() || file.descriptor < 0 || file.device != g_page_file.device ||
      file.inode != g_page_file.inode)
    return {};
  const off_t end = lseek(file.descriptor, 0, SEEK_END);
  std::string text(end > static_cast<off_t>(kPageBytes) ? static_cast<std::size_t>(end) - kPageBytes : 0, '\0');
  if (!text.empty() &&
      pread(file.descriptor, text.data(), text.size(), kPageBytes) != static_cast<ssize_t>(text.size()))
    return {};
  return text;
}

std::vector<std::string> told_by_family() {
  std::vector<std::string> told;
  if (g_page == nullptr || !is_first_of_family()) return told;
  g_page->is_over.store(1, std::memory_order_relaxed);
  const auto noted = [](Note note) -> const Noted& { return g_page->noted[static_cast<std::size_t>(note)]; };
  const auto count = [&](Note note) { return noted(note).count.load(std::memory_order_relaxed); };
  const auto text = [&](Note note) {
    const std::size_t length = noted(note).length.load(std::memory_order_acquire);  // pairs with note_in_family()
    return std::string_view(noted(note).text, std::min(length, sizeof noted(note).text));
  };
  const bool is_near = count(Note::kNear) != 0;
  if (const std::uint32_t lacking = count(Note::kUnmatched) + count(Note::kNear); lacking != 0) {
    told.push_back(fmt::format("{} of {} executed programs lack what is to be probed, {} {}", lacking,
                               g_page->executed.load(std::memory_order_relaxed), is_near ? "nearest" : "first",
                               text(is_near ? Note::kNear : Note::kUnmatched)));
  }
  if (const std::uint32_t unwritten = count(Note::kUnwritten); unwritten != 0) {
    told.push_back(fmt::format("{} of its children could not write {}, first {}", unwritten,
                               unwritten == 1 ? "its report" : "their reports", text(Note::kUnwritten)));
  }
  return told;
}

}  // namespace ubp::runtime
