// Descriptors and bytes inside somebody else's process: what every file that UBP writes needs.
//
// Context: load time and exit. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include <string_view>

namespace ubp::report {

// Owns a descriptor. Descriptors 0-2 belong to the application even while it has them closed, so one that
// lands there is moved up (close-on-exec) before it is kept.
class Descriptor {
 public:
  explicit Descriptor(int fd);  // fd: what open(2) returned; negative is kept as "none"
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int close();  // returns 0 or the errno of close(2), which is where NFS and quotas report a failed write

 private:
  int fd_ = -1;
};

// Writes all of text: retries short writes and EINTR, waits at most five seconds for a non-blocking
// descriptor that takes nothing. SIGPIPE and SIGXFSZ never reach the application: a failed report must not
// end its process. Returns 0 or an errno (ETIMEDOUT: nobody read).
int write_all(int fd, std::string_view text);

// From here on no more than five seconds are spent waiting for readers, all calls of write_all() together, and nothing
// is written in one piece that they might keep waiting longer. For a process that a signal is ending.
void bound_writes();

}  // namespace ubp::report
