// Descriptor ownership and complete writes. See descriptor.h.
#include "runtime/report/descriptor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace ubp::report {
namespace {

constexpr int kFirstFree = 3;
constexpr int kPatienceMs = 5000;

// Blocks one signal that write(2) raises in the writing thread, and takes back what our own write raised.
class WriteSignalGuard {
 public:
  explicit WriteSignalGuard(int signal) : signal_(signal) {
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, signal) == 1;
    sigemptyset(&set_);
    sigaddset(&set_, signal);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~WriteSignalGuard() {
    if (raised_ && !was_pending_) {
      const timespec now{};
      while (sigtimedwait(&set_, nullptr, &now) < 0 && errno == EINTR) {
      }
    }
    if (sigismember(&before_, signal_) == 0) pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
  }
  WriteSignalGuard(const WriteSignalGuard&) = delete;
  WriteSignalGuard& operator=(const WriteSignalGuard&) = delete;

  void note_raised() { raised_ = true; }

 private:
  int signal_;
  bool was_pending_ = false;
  bool raised_ = false;
  sigset_t set_;
  sigset_t before_;
};

// Returns 0 when fd takes bytes again, or an errno.
int wait_writable(int fd) {
  pollfd entry{fd, POLLOUT, 0};
  int ready = 0;
  do {
    ready = ::poll(&entry, 1, kPatienceMs);
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
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
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

}  // namespace ubp::report
