// Running the consumers of a hit, in the thread that made it.
//
// Invariant: a hit's consumers run once, to their end, and no handler of the application's runs meanwhile. A hit under
// way may be abandoned and taken up again (translate.h), which a callback must not be: while a task is marked, a signal
// is put off, with those that can be held blocked in the interrupted context, and its handler called when the consumers
// have run (deliver(), signal_path.cpp), before those of signals that came later. The signals of faults, and abort(),
// are not put off: they are the callback's own. Nor is libc's SIGSETXID, for which another thread waits: its handler
// looks at no context, and returns to where it was. A hit that a callback makes is missed: counted, told to the
// consumers' accounts, and displaced as any other.
//
// Synchronization protocol (with consumers/consumers.cpp). The task marks itself, fences, and reads the list of
// consumers; whoever takes a consumer out changes the list, fences, and waits until every task it finds marked has
// moved on. So a task either sees the new list or is waited for. Detours do not fence: whoever waits makes every thread
// do so.
//
// The mark holds how often the probepoint was hit, so that the next hit's is another. (The same may come at another
// probepoint: once for each. The wait is then longer, not endless.)
//
// Inline and free of libc: compiled into the trap path (the pending range; defer(): the entering range). The callbacks
// run on the stack the frame lies on: UBP's own (frame.h), of which they have at least 32 KiB.
#pragma once

#include "runtime/trap/death.h"

namespace ubp::trap {

[[gnu::always_inline]] inline bool is_consuming(const TaskState* task) {
  return task->consumer.load(std::memory_order_relaxed) != 0;  // its own, but for defer() in a handler above it
}

// Whether a context with this stack pointer was called by the task's consumer.
[[gnu::always_inline]] inline bool is_below(const TaskState* task, std::uint64_t rsp) {
  const bool is_detour = (task->consumer.load(std::memory_order_relaxed) & 0xff) == runtime::kDetourMark;  // as above
  return (is_detour ? task->consumer_stack : task->consumer_frame) - rsp < g_process.tasks.own_stack_bytes;
}

[[gnu::always_inline]] inline void end_consuming(TaskState* task) {
  task->consumer.store(0, std::memory_order_release);  // pairs with the wait in consumers/consumers.cpp
}

// A signal was put off, and its handler is not called from here.
[[gnu::always_inline]] inline void give_up_deferred(TaskState* task) {
  if (__atomic_load_n(&task->has_deferred, __ATOMIC_RELAXED) == 0) return;  // its own
  __atomic_store_n(&task->has_deferred, 0, __ATOMIC_RELAXED);               // its own
  send_again(task->deferred);
}

// The task that runs a consumer in a context with this stack pointer; nullptr: none does.
[[gnu::always_inline]] inline TaskState* consuming_task(std::uint64_t rsp) {
  TaskState* task = this_thread().state;
  if (g_process.tasks.is_own_stack(rsp)) {
    task = g_process.tasks.state(
        static_cast<std::uint32_t>((rsp - g_process.tasks.stacks) / g_process.tasks.own_stack_bytes));
  } else if (!is_state(task)) {
    return nullptr;
  }
  return is_consuming(task) && is_below(task, rsp) ? task : nullptr;
}

// A consumer has ended the call: the thread goes on in the function's caller, as behind a return. Atomic, since no
// signal sees the task before it is unmarked.
[[gnu::always_inline]] inline void end_call(Context* uc, Continuation& next) {
  next.kind = TrapKind::kLeftSlot;
  next.origin = *reinterpret_cast<const std::uint64_t*>(uc->rsp);
  uc->rsp += sizeof(std::uint64_t);
  uc->rax = next.returned;
}

[[gnu::always_inline]] inline void consume(Context* uc) {
  Continuation& next = continuation(uc);
  TaskState* const task = next.task;
  const std::uint32_t point = next.index;
  if (next.consumed == kMissed) {
    g_process.upcalls.run_consumers(uc, task, point, kMissed);
    next.consumed = kConsumed;
    return;
  }
  SlowLane slow_lane;
  task->consumer_frame = address_of(uc);
  constexpr std::uint64_t kTrapMark = 1;
  static_assert(kTrapMark != runtime::kDetourMark);
  task->consumer.store(task->counters[point] << runtime::kMarkBits | kTrapMark, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in consumers/consumers.cpp
  next.is_overridden = 0;
  g_process.upcalls.run_consumers(uc, task, point, next.consumed);
  next.consumed = kConsumed;
  if (next.is_overridden != 0) end_call(uc, next);
  if (task->tid.load(std::memory_order_relaxed) == 0) [[unlikely]] {  // a forked child, whose states are wiped
    next.task = current_task(uc->rsp);
    next.is_mask_current = false;
    return;
  }
  slow_lane.leave();
  end_consuming(task);
  std::atomic_signal_fence(std::memory_order_seq_cst);  // from here on a signal finds no mark, and is not put off
  while (__atomic_load_n(&task->has_deferred, __ATOMIC_RELAXED) != 0) {  // its own
    next.is_mask_current = false;                                        // rt_sigreturn unblocks what was
    ubp_trap_deliver(0, task);  // goes on here if there is no handler any more, or another's SIGTRAP came in the way
  }
  send_pending_trap();
}

// A signal has come in the middle of the task's consumer: it is to come behind it. False: another waits already.
[[gnu::always_inline]] inline bool put_off(TaskState* task, const siginfo_t* info, Context* uc) {
  if (task->has_deferred != 0) return false;
  reinterpret_cast<runtime::DetourSave*>(task->consumer_stack)->mask = uc->mask;  // for a detour's end
  copy_bytes(&task->deferred, info, sizeof *info);
  __atomic_store_n(&task->has_deferred, 1, __ATOMIC_RELAXED);  // its own
  uc->mask |= kHoldable;
  return true;
}

// Whether a signal's handler can be kept until consumers have run. handler: the application's, or SIG_DFL or SIG_IGN.
[[gnu::always_inline]] inline bool can_wait(std::uint64_t signal, std::uint64_t handler) {
  // Also one that was sent: while it is blocked, a fault is death.
  const bool is_synchronous = (kSynchronousSignals >> (signal - 1) & 1) != 0;
  const bool is_death = handler == 0 && ends_process(signal);
  return !is_synchronous && !is_death && signal != SIGABRT && signal != kSetxid;  // abort() does not wait
}

// A handler is about to run in the middle of a consumer: puts the signal off. False: it must run now.
[[gnu::always_inline]] inline bool defer(siginfo_t* info, Context* uc) {
#ifdef UBP_TEST_NO_DEFER  // tests/api: handlers run in the middle of consumers
  return false;
#endif
  const auto signal = static_cast<std::uint64_t>(info->si_signo);
  if (!can_wait(signal, g_handlers.handler[signal].load(std::memory_order_acquire))) return false;  // with sigaction
  TaskState* const task = consuming_task(uc->rsp);
  if (task == nullptr) return false;
  sys::set_signal_mask(kHoldable);
  if (!put_off(task, info, uc)) {  // the kernel had put its frame on that of another
    send_again(*info);
    uc->mask |= kHoldable;
  }
  return true;
}

}  // namespace ubp::trap
