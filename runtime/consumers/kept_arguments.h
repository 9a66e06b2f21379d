// What is kept of the calls that a task is in, for consumers of other hits in them.
//
// Inline and free of libc. Context: consumers of hits, on the task's own list. Async-signal-safe: signals are put off.
#pragma once

#include "runtime/consumers/call_lists.h"
#include "runtime/consumers/return_owner.h"

namespace ubp::runtime {

// Of the owner's call of the function at this entry whose frame is there: with this stack pointer at its entry, and
// this return address. Null: it was not seen to be entered, or how is not certain.
[[gnu::always_inline]] inline const KeptCall* kept_call(const ubp_context& hit, const ReturnOwner* owner,
                                                        std::uint64_t entry, std::uint64_t address,
                                                        std::uint64_t returns_to) {
  const trap::TaskState* const task = hit.task;
  if (owner == nullptr || task == nullptr || task->tid.load(std::memory_order_relaxed) == 0) return nullptr;
  const CallStack* const list = known_list(task, address);
  if (list == nullptr) return nullptr;
  const CallStack& stack = *list;
  const std::uint64_t place = address - stack.base;
  const std::uint64_t at = stack.find(owner, __atomic_load_n(&owner->generation, __ATOMIC_RELAXED), place);
  if (at == CallStack::kNone || stack.kept == nullptr || stack.frames[at].returns_to != returns_to ||
      stack.frames[at].function->entry != entry || is_anothers(stack, place))
    return nullptr;
  const KeptCall& kept = stack.kept[at];
  return kept.family == owner->family && (kept.flags & KeptCall::kDoubtful) == 0 ? &kept : nullptr;
}

}  // namespace ubp::runtime
