// Which file the process executes, as the kernel says.
#pragma once

#include <limits.h>
#include <unistd.h>

#include <string>

namespace ubp::runtime {

// Where /proc/self/exe leads: an absolute path, with " (deleted)" behind it where the file is gone. Empty where /proc
// does not say (a sandbox without it).
inline std::string executable_link() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : std::string();
}

}  // namespace ubp::runtime
