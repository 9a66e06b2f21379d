// The lists of calls (call_stack.h) of the process: whose they are, their numbers, and which has noted a call at a
// place last (noted_places.h).
//
// Each task has one. But where there is Go code, calls on a goroutine's stack are in a list of the goroutine, which any
// thread may go on with, one at a time. It is found by the goroutine's g, what Go's runtime has of it, to which a word
// of thread-local storage leads. The stack is copied elsewhere when it grows or shrinks: what stays is how far a frame
// is from the stack's end, and so are the list's places. All of the list's frames are of one stack: those below a call
// that is entered or returns are left. So are, one by one, those of an earlier goroutine, whose g is used again.
// There are as many lists as tasks (goroutines that are in a noted call at once: what finds none free is missed), and
// one that becomes empty is free for the next goroutine.
//
// Stacks of the size that Go's allocator gives, a power of two, are goroutines'. Others never move, as threads' own
// (g0): calls there are in the task's list, as are those on no stack of the running g.
//
// Inline parts are free of libc. Context: consumers of hits. Async-signal-safe: signals are put off.
// Source: Go's runtime/runtime2.go (g begins with its stack's bounds), runtime/stack.go.
#pragma once

#include <initializer_list>

#include "runtime/consumers/call_stack.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/consumers/noted_places.h"
#include "runtime/consumers/return_owner.h"
#include "runtime/trap/read_memory.h"

namespace ubp::runtime {

inline constexpr std::uint64_t kGoroutineListBytes = 262144, kGoroutineCalls = calls_in(kGoroutineListBytes);
inline constexpr std::uint64_t kGoroutineKeptBytes = kept_bytes(kGoroutineCalls);
inline constexpr std::uint64_t kOwnersTogether = 8;  // a cache line

[[gnu::always_inline]] inline std::uint32_t number_of(const trap::TaskState* task) {
  return NotedPlaces::kFirstList + task->block;
}
[[gnu::always_inline]] inline std::uint32_t index_of_goroutines(const CallStack& list) {
  const std::uint64_t offset = reinterpret_cast<std::uint64_t>(&list) - trap::g_process.goroutines.memory;
  return static_cast<std::uint32_t>(offset / kGoroutineListBytes);
}
[[gnu::always_inline]] inline std::uint32_t number_of(const CallStack& list) {
  const trap::Tasks& tasks = trap::g_process.tasks;
  if (list.base != 0) return NotedPlaces::kFirstList + tasks.blocks + index_of_goroutines(list);
  const std::uint64_t offset = reinterpret_cast<std::uint64_t>(&list) - tasks.call_stacks;
  return NotedPlaces::kFirstList + static_cast<std::uint32_t>(offset / kCallStackBytes);
}

[[gnu::always_inline]] inline NotedPlaces noted_places() { return NotedPlaces(trap::g_process.tasks.noted_places); }

// Whether what a list has at a place is no frame of the call that is there now. What is not known is the list's own,
// but for tasks' lists in a process whose calls have been seen to move to other tasks.
[[gnu::always_inline]] inline bool is_anothers(const CallStack& list, std::uint64_t place) {
#ifdef UBP_TEST_NO_NOTED_PLACES  // tests/preload/returns_test.cpp: whoever has a frame there passes for the one
  return false;
#endif
  const std::uint32_t last = noted_places().last(place + list.base);
  if (last == number_of(list)) [[likely]]
    return false;
  return last != NotedPlaces::kNotKnown || (list.base == 0 && sys::is_set(trap::g_process.tasks.calls_move));
}

// The goroutine on whose stack an address is, if it runs in this thread.
struct Goroutine {
  bool is_known;          // false: what there is could not be read
  std::uint64_t g;        // 0: it is on no goroutine's
  std::uint64_t end;      // of its stack; 0 likewise
  std::uint64_t running;  // the g of what runs, whichever stack that is on; 0: none
};
[[gnu::always_inline]] inline Goroutine goroutine_at(const trap::TaskState* task, std::uint64_t address) {
  const trap::Goroutines& goroutines = trap::g_process.goroutines;
  if (!sys::is_set(goroutines.are_found)) [[likely]]
    return {true, 0, 0, 0};
  std::uint64_t g;
  asm volatile("movq %%fs:(%1), %0" : "=r"(g) : "r"(goroutines.word));
  if (g == 0) return {true, 0, 0, 0};  // a thread that runs none
  struct Bounds {
    std::uint64_t low, high;
  } stack;
  if (g == task->goroutine) {  // as long as it runs it stays where it is
    stack = *reinterpret_cast<const Bounds*>(g);
  } else if (trap::read_memory(true, g, &stack, sizeof stack) != sizeof stack) {
    return {false, 0, 0, 0};
  }
  const std::uint64_t bytes = stack.high - stack.low;
  const bool is_goroutines = address - stack.low < bytes && (bytes & (bytes - 1)) == 0;
  return {true, is_goroutines ? g : 0, is_goroutines ? stack.high : 0, g};
}

// Where the owner of a goroutine's list may stand: calls visit(index, word) until it says true.
template <typename Visit>
[[gnu::always_inline]] inline void visit_owners(std::uint64_t g, const Visit& visit) {
  const trap::Goroutines& goroutines = trap::g_process.goroutines;
  constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15;
  const std::uint64_t mixed = g * kMix, mask = goroutines.lists / kOwnersTogether - 1;
  auto* const owners = reinterpret_cast<std::uint64_t*>(goroutines.owners);
  for (const unsigned shift : {52U, 40U}) {
    const std::uint64_t first = (mixed >> shift & mask) * kOwnersTogether;
    for (std::uint64_t at = first; at < first + kOwnersTogether; ++at) {
      if (visit(static_cast<std::uint32_t>(at), owners[at])) return;
    }
  }
}
// Null: it has none.
[[gnu::always_inline]] inline CallStack* find_list(const Goroutine& goroutine) {
  const trap::Goroutines& goroutines = trap::g_process.goroutines;
  CallStack* list = nullptr;
  visit_owners(goroutine.g, [&](std::uint32_t at, const std::uint64_t& owner) {
    // What other threads write there is never this goroutine's.
    if (__atomic_load_n(&owner, __ATOMIC_RELAXED) != goroutine.g) return false;
    const std::uint64_t number = reinterpret_cast<const std::uint32_t*>(goroutines.numbers)[at];
    list = reinterpret_cast<CallStack*>(goroutines.memory + (number - 1) * kGoroutineListBytes);
    return true;
  });
  return list;
}

// The list with the calls that were made where the stack pointer was at an address, to look at. Null: there is none, or
// what runs is not known, or its stack has been copied since a call was noted.
[[gnu::always_inline]] inline const CallStack* known_list(const trap::TaskState* task, std::uint64_t address) {
  if (task == nullptr) return nullptr;
  const Goroutine goroutine = goroutine_at(task, address);
  const CallStack* list = nullptr;
  if (goroutine.g != 0) {
    list = find_list(goroutine);
  } else if (goroutine.is_known) {  // a forked child that has noted no call yet goes on in its parent's
    const std::uint64_t inherited = task->storage != nullptr ? task->storage->call_stack : 0;
    list = reinterpret_cast<const CallStack*>(task->call_stack != 0 ? task->call_stack : inherited);
  }
  return list != nullptr && list->base == goroutine.end ? list : nullptr;
}

enum class Word : std::uint8_t { kThere, kNone, kUnknown };
// A word that may be of a stack that is gone. kUnknown: nothing may be asked.
Word read_word(std::uint64_t address, std::uint64_t& word);

// What lies where the stack pointer is, or above: it can be read, on the stack of a goroutine that runs.
inline Word read_return_address(const CallStack& list, std::uint64_t address, std::uint64_t& word) {
  if (list.base == 0) return read_word(address, word);
  word = *reinterpret_cast<const std::uint64_t*>(address);
  return Word::kThere;
}

// In the task's counters, which others read at any time.
inline void count(trap::TaskState* task, trap::Counter name, std::uint64_t counter) {
  std::uint64_t& value = task->counters[trap::g_process.tasks.offset_of(name) + counter];
  __atomic_store_n(&value, value + 1, __ATOMIC_RELAXED);
}

// Calls that were not seen to return. Those of an owner that has paused since are nobody's.
class GivesUp {
 public:
  explicit GivesUp(trap::TaskState* task) : task_(task) {}
  void operator()(const CallFrame& frame) const {
    if (frame.generation == __atomic_load_n(&frame.function->owner->generation, __ATOMIC_RELAXED))  // a number
      count(task_, trap::Counter::kLeft, frame.function->entries);
  }

 private:
  trap::TaskState* task_;
};

// Whether a frame of a list is certainly of no call that goes on, when the stack pointer is at `place`.
class IsLeft {
 public:
  IsLeft(const CallStack& list, std::uint64_t place) : list_(list), place_(place) {}
  bool operator()(const CallFrame& frame) const {
    if (list_.base != 0 && frame.place < place_) return true;
    if (is_anothers(list_, frame.place)) return true;
    std::uint64_t word = 0;
    const Word got = read_return_address(list_, frame.place + list_.base, word);
    return got == Word::kNone || (got == Word::kThere && word != frame.returns_to);
  }

 private:
  const CallStack& list_;
  std::uint64_t place_;
};

// The list for calls that are made where the stack pointer is at this address. Null: there is no room, or memory is
// denied.
CallStack* list_to_note(trap::TaskState* task, std::uint64_t address);
// The last call of an owner that may return there.
struct FoundCall {
  CallStack* list;   // that it would be in; null: nothing was noted
  std::uint64_t at;  // CallStack::kNone: it is not there
};
FoundCall find_call(trap::TaskState* task, std::uint64_t address, const ReturnOwner* owner, std::uint16_t generation);
// Where more is kept of a list's calls. False: memory is denied.
bool open_kept_calls(CallStack& list);
// The list is a goroutine's, and empty: it is another one's from here on.
void let_go(CallStack& list);

}  // namespace ubp::runtime
