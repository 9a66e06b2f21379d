// Descriptor ownership and complete writes. See descriptor.h.
#include "runtime/report/descriptor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <ctime>

#include "runtime/base/clock.h"
#include "xol/sys.h"

namespace ubp::report {
namespace {

constexpr int kFirstFree = 3;
constexpr int kPatienceMs = 5000;

// Blocks one signal that write(2) raises in the writing thread, and takes back what our own write raised. By system
// calls: what libubp has for libc's functions may have to look libc's up, and wait for the dynamic linker's lock.
class WriteSignalGuard {
 public:
  explicit WriteSignalGuard(int signal) : set_(std::uint64_t{1} << (signal - 1)) {
    std::uint64_t pending = 0;
    sys::call4(SYS_rt_sigpending, word(&pending), sizeof pending);
    was_pending_ = (pending & set_) != 0;
    sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, word(&set_), word(&before_), sizeof set_);
  }
  ~WriteSignalGuard() {
    constexpr long kInterrupted = -EINTR;
    if (raised_ && !was_pending_) {
      const timespec now{};
      while (sys::call4(SYS_rt_sigtimedwait, word(&set_), 0, word(&now), sizeof set_) == kInterrupted) {
      }
    }
    if ((before_ & set_) == 0) sys::call4(SYS_rt_sigprocmask, SIG_UNBLOCK, word(&set_), 0, sizeof set_);
  }
  WriteSignalGuard(const WriteSignalGuard&) = delete;
  WriteSignalGuard& operator=(const WriteSignalGuard&) = delete;

  void note_raised() { raised_ = true; }

 private:
  static long word(const void* pointer) { return reinterpret_cast<long>(pointer); }

  bool was_pending_ = false;
  bool raised_ = false;
  std::uint64_t set_;
  std::uint64_t before_ = 0;
};

constexpr std::size_t kPiece =
    512;  // what a pipe, a terminal or a socket takes at once when it says it takes any: PIPE_BUF is more
std::int64_t g_deadline_ms = 0;  // 0: none

// Returns 0 when fd takes bytes again, or an errno.
int wait_writable(int fd) {
  pollfd entry{fd, POLLOUT, 0};
  int ready = 0;
  do {
    const std::int64_t left = g_deadline_ms == 0 ? kPatienceMs : g_deadline_ms - runtime::monotonic_ms();
    ready = ::poll(&entry, 1, static_cast<int>(std::max<std::int64_t>(0, left)));
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) return errno;
  return ready == 0 ? ETIMEDOUT : 0;
}

}  // namespace

Descriptor::Descriptor(int fd) : fd_(fd) {
  if (fd < 0 || fd >= kFirstFree) return;
  fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, kFirstFree);
  const int saved = errno;
  ::close(fd);
  errno = saved;
}

Descriptor::~Descriptor() { close(); }

int Descriptor::close() {
  if (fd_ < 0) return 0;
  const int result = ::close(fd_);
  fd_ = -1;
  return result == 0 || errno == EINTR ? 0 : errno;  // Linux has closed it even when it says EINTR
}

int write_all(int fd, std::string_view text) {
  WriteSignalGuard broken_pipe(SIGPIPE);
  WriteSignalGuard file_too_large(SIGXFSZ);
  const bool is_bound = g_deadline_ms != 0;
  while (!text.empty()) {
    const int late = is_bound ? wait_writable(fd) : 0;
    if (late != 0) return late;
    const ssize_t written = ::write(fd, text.data(), is_bound ? std::min(text.size(), kPiece) : text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EAGAIN) {
      if (const int error = wait_writable(fd)) return error;
    } else if (errno != EINTR) {
      const int error = errno;
      if (error == EPIPE) broken_pipe.note_raised();
      if (error == EFBIG) file_too_large.note_raised();
      return error;
    }
  }
  return 0;
}

void bound_writes() { g_deadline_ms = runtime::monotonic_ms() + kPatienceMs; }

}  // namespace ubp::report
