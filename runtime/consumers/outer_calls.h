// Whether a call was made in another one of its function: recursion.
//
// Inline and free of libc. Context: consumers of calls, on the task's own list. Async-signal-safe: signals are put off.
#pragma once

#include "runtime/consumers/call_lists.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/consumers/return_owner.h"

namespace ubp::runtime {

// hit: of a call that returns and is in the list no more. address: the stack pointer at its return. The frames of a
// function's calls have one consumer for all.
[[gnu::always_inline]] inline bool is_within_another(const ubp_context& hit, std::uint64_t address) {
  const CallStack* const list = known_list(hit.task, address);
  if (list == nullptr) return false;
  const CallStack& stack = *list;
  for (std::uint64_t at = stack.depth; at-- != 0;) {
    const CallFrame& frame = stack.frames[at];
    if (&frame.function->told != hit.consumer || frame.place <= address - stack.base) continue;
    if (is_anothers(stack, frame.place)) continue;
    if (frame.generation == __atomic_load_n(&frame.function->owner->generation, __ATOMIC_RELAXED)) return true;
  }
  return false;
}

}  // namespace ubp::runtime
