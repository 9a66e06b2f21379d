// The lists of calls (call_stack.h) of all tasks: their numbers, and which has noted a call last (noted_places.h).
//
// Inline and free of libc. Context: consumers of hits. Async-signal-safe: yes.
#pragma once

#include "runtime/consumers/call_stack.h"
#include "runtime/consumers/noted_places.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

[[gnu::always_inline]] inline std::uint32_t number_of(const trap::TaskState* task) {
  return NotedPlaces::kFirstList + task->block;
}
[[gnu::always_inline]] inline std::uint32_t number_of(const CallStack& list) {
  const std::uint64_t offset = reinterpret_cast<std::uint64_t>(&list) - trap::g_process.tasks.call_stacks;
  return NotedPlaces::kFirstList + static_cast<std::uint32_t>(offset / kCallStackBytes);
}
// One that has noted a call.
[[gnu::always_inline]] inline const CallStack& list_of(std::uint32_t number) {
  const std::uint64_t block = number - NotedPlaces::kFirstList;
  return *reinterpret_cast<const CallStack*>(trap::g_process.tasks.call_stacks + block * kCallStackBytes);
}

[[gnu::always_inline]] inline NotedPlaces noted_places() { return NotedPlaces(trap::g_process.tasks.noted_places); }

// Whether what a list has at a place is no frame of the call that is there now. What is not known is the list's own,
// but in a process whose calls have been seen to move to other tasks.
[[gnu::always_inline]] inline bool is_anothers(const CallStack& list, std::uint64_t place) {
#ifdef UBP_TEST_NO_NOTED_PLACES  // tests/preload/returns_test.cpp: whoever has a frame there passes for the one
  return false;
#endif
  const std::uint32_t last = noted_places().last(place);
  if (last == number_of(list)) [[likely]]
    return false;
  return last != NotedPlaces::kNotKnown || sys::is_set(trap::g_process.tasks.calls_move);
}

}  // namespace ubp::runtime
