// Threads that are cancelled while libubp's own code, or a consumer, runs in them: not before that has ended.
//
// libc unwinds a cancelled thread from the cancellation point it is in: through what has no unwind entries (detours,
// the trap path), and out of the middle of a change.
#pragma once

#include <cstdint>

namespace ubp::runtime {

// While one is there, no cancellation point is one in this thread. Where the thread is to be cancelled at any time, its
// end is one. Not in the trap path. Context: any. Async-signal-safe: as pthread_setcancelstate.
class Uncancelled {
 public:
  Uncancelled();
  ~Uncancelled() noexcept(false);
  Uncancelled(const Uncancelled&) = delete;
  Uncancelled& operator=(const Uncancelled&) = delete;

 private:
  int state_ = 0;
};

// Where libc keeps a thread's cancellation state: the byte, from %fs:0 on, whose lowest bit is set while it is
// disabled, and whose other bits other threads set. 0: it was not found.
std::int32_t find_cancel_state();

}  // namespace ubp::runtime
