// Holding the process's other threads for a moment: each waits in a handler of SIGTRAP, so none of them is where
// SIGTRAP is blocked. Alone in its process, a thread has nobody to hold.
//
// Context: normal; before the runtime has taken SIGTRAP over, or with it. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ubp::runtime {

// Whether the process has no other thread now.
bool is_only_thread();

class ParkedThreads {
 public:
  ParkedThreads() = default;
  ParkedThreads(const ParkedThreads&) = delete;
  ParkedThreads& operator=(const ParkedThreads&) = delete;
  ~ParkedThreads();  // lets them go on

  // Holds every other thread. Returns why it cannot: one blocks SIGTRAP for longer than two seconds. System calls that
  // the threads wait in are restarted, but for those that signal(7) says never are. leaves_blocked: those that block
  // SIGTRAP and sleep for a quarter of a second are left alone instead.
  std::optional<std::string> park(bool leaves_blocked);
};

}  // namespace ubp::runtime
