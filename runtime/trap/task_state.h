// What is kept for each thread, and for each task that has hit a probe. Plain data.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>

namespace ubp::trap {

struct TaskState;

// What a detour has spilled.
struct Spilled {
  std::uint64_t rcx, rax, rdx;
  std::uint64_t status;  // the status flags, as a DetourSave has them
};

// The alternate stack that this thread's sigaltstack() set and reads back; size 0: none.
struct AppStack {
  std::uint64_t base, size;
};
[[gnu::always_inline]] inline bool is_on(const AppStack& stack, std::uint64_t rsp) {
  return stack.size != 0 && rsp > stack.base && rsp - stack.base <= stack.size;  // as the kernel's on_sig_stack
}
// The thread's SIGTRAP as the application set it: the mask bit, and one that arrived while it was blocked.
struct AppTrap {
  bool is_blocked;  // the first: trap_entry.S
  bool is_pending;
  bool in_wrapper;              // libc's sigaction is called by the interposed one, which translates the answer itself
  bool guest_is_blocked;        // the mask bit of a vfork child that runs on this TLS,
  std::uint32_t guest;          // whose tid this is
  std::uint32_t cleared_guest;  // the tid of one whose handlers clone3 has reset (CLONE_CLEAR_SIGHAND)
  siginfo_t info;
};

// A clone3 under way whose arguments the gate has changed (clone.h). What the kernel is given comes first: rdi points
// to it.
inline constexpr std::uint64_t kMostCloneWords = 16;  // struct clone_args has 11; newer kernels may add some
struct Cloning {
  std::uint64_t args[kMostCloneWords];
  std::uint64_t rdi;             // the application's pointer
  std::uint64_t mask;            // the thread's signal mask
  std::uint64_t cleared_before;  // AppTrap::cleared_guest
  std::uint64_t rest;            // how many there are from this one on; 0: it is free
};
inline constexpr std::uint64_t kMostClonings = 4;  // one within another: what a vfork child starts, on its parent's TLS

// Whether a fault in the thread is certain to reach ubp_signal_entry (reads.h).
struct Faults {
  enum : std::uint8_t { kUnknown, kCaught, kNotCaught };
};

// What is kept for a thread, in its TLS (t_thread), or in its state where it has none of libc's (tls.h).
struct Thread {
  AppTrap app_trap;     // the first: trap_entry.S
  std::uint8_t faults;  // behind it: trap_entry.S
  std::uint64_t mark;   // kThreadMark wherever libc has made this TLS
  TaskState* state;     // the thread's, or one that counts nothing: detours read it as it is
  Spilled spilled;
  AppStack app_stack;
  bool is_away;     // detours of this thread are not to count (segment.h)
  bool in_runtime;  // it runs libubp's own code at load and exit: what that calls is no hit of the application's
  Cloning clonings[kMostClonings];
  std::uint64_t call_stack;  // TaskState::call_stack; a forked child finds its parent's. 0: it has none
};
inline constexpr std::uint64_t kThreadMark = 0x534c545f50425521;

// Something has come by that may change whether the thread's faults are caught.
[[gnu::always_inline]] inline void forget_faults(Thread& thread) {
  __atomic_store_n(&thread.faults, Faults::kUnknown, __ATOMIC_RELAXED);  // its own
}

// What a task counts at each probepoint, and for each probe that has an action: of a probepoint, hits = trapped +
// jumped + missed; of an action, hits = performed + skipped + missed, and performed = recorded + filtered + dropped.
enum class Counter : std::uint8_t {
  kTrapped,               // by its int3
  kPerformed = kTrapped,  // of an action
  kMissed,                // made by what ran at a hit of the same task
  kJumped,                // by its detour
  kSkipped = kJumped,     // of an action: its filter said no in the detour itself
  kLeft = kJumped,        // of an entry whose return is waited for: it did not come (consumers/returns.h)
  kFiltered,              // its filter said no
  kDropped,               // there was no room for what it recorded
};
inline constexpr std::uint64_t kCounterNames = 5;

// One task: a thread, or a process made by clone(CLONE_VM) that shares its parent's TLS. Lives in memory that a
// forked child finds wiped (MADV_WIPEONFORK), so that a child never takes itself for its parent.
struct TaskState {
  std::atomic<std::uint32_t> tid;  // owner; 0: never used
  std::uint32_t block;             // its block in every XOL area
  // Stack addresses at which this state's owner has been verified with gettid: a hit whose RSP lies in
  // [verified_low, verified_low + verified_bytes) skips the call. Small and contiguous, so that a task which borrows
  // this task's TLS (clone(CLONE_VM) without CLONE_SETTLS) and runs on another stack is told apart.
  std::uint64_t verified_low, verified_bytes;
  std::uint64_t* counters;  // by Counter, then by probepoint, and by probe that has an action
  std::uint64_t* jumped;    // of them, Counter::kJumped's
  // Where detours count: jumped. 0: they leave the hit to the breakpoint tier, because the task has none yet (also a
  // forked child's, whose states are wiped), is inside the runtime, or shares its TLS.
  std::uint64_t* fast;
  std::uint64_t stack_tries;  // to put its signal frames on UBP's stack (frame.h)
  std::uint64_t slot_hits, misses, refills, evictions;
  std::atomic<std::uint64_t> held;  // policy steal: the pool's slot that the task may be in, area << 32 | slot, plus 1
  std::uint64_t turn;               // policy steal: where it looks for a slot next
  std::atomic<std::uint64_t> consumer;  // not 0 while the task runs consumers (consume.h)
  std::uint64_t consumer_frame;         // the ucontext of the hit whose consumers it runs, unless a detour does
  std::uint64_t has_deferred;           // a signal arrived meanwhile: `deferred`; 0 at other times
  std::uint64_t consumer_stack;         // where detours run consumers: below its DetourSave
  std::uint64_t ring, ring_head, ring_tail, ring_limit;  // what it records (record/rings.h); 0: it has not yet
  std::uint64_t own_traps;  // of libubp's own code, at probepoints in libc: no hits, but they cost as much
  // A hit whose consumers have run, when a handler sent the thread elsewhere before its instruction: if it comes back,
  // it is the same hit. 0: there is none.
  std::uint64_t moved_origin, moved_rsp;
  siginfo_t deferred;
  Thread* storage;             // the task's, in libc's storage; null: it has come with another
  Thread own;                  // and then this is (tls.h)
  std::uint64_t call_stack;    // the calls that it is in (consumers/returns.h); 0: it has noted none yet
  std::uint64_t signal_stack;  // where the kernel puts its signal frames, as it was seen last (task.h); 0: not known
  std::uint64_t goroutine;     // whose g it could read last (consumers/call_lists.h); 0: none yet
  // Then, per area: geometry.slots tags and geometry.sets hands (see caches()).
};

inline constexpr std::uint64_t kDelivering = 2;  // TaskState::has_deferred, while its handler is prepared

}  // namespace ubp::trap
