// See own_memory.h.
#include "runtime/patch/own_memory.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace ubp::patch {
namespace {

ssize_t copy(std::uint64_t address, std::uint8_t* to, std::uint64_t size) {
  const iovec local{to, size}, remote{reinterpret_cast<void*>(address), size};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
}

}  // namespace

OwnMemory::~OwnMemory() {
  if (fd_ >= 0) close(fd_);
}

int OwnMemory::descriptor() const {
  if (fd_ == kNotOpened) fd_ = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  return fd_;
}

std::uint64_t OwnMemory::read(std::uint64_t address, std::uint8_t* to, std::uint64_t size) const {
  const int fd = descriptor();
  std::uint64_t done = 0;
  while (done < size) {
    const std::uint64_t at = address + done, left = size - done;
    const ssize_t got = fd >= 0 ? pread(fd, to + done, left, static_cast<off_t>(at)) : copy(at, to + done, left);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<std::uint64_t>(got);
  }
  return done;
}

bool OwnMemory::write(std::uint64_t address, const std::uint8_t* from, std::uint64_t size) const {
  const int fd = descriptor();
  while (size > 0) {
    const ssize_t wrote = pwrite(fd, from, size, static_cast<off_t>(address));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    from += wrote;
    address += static_cast<std::uint64_t>(wrote);
    size -= static_cast<std::uint64_t>(wrote);
  }
  return true;
}

}  // namespace ubp::patch
