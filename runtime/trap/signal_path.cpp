// The trap path's signals: what an application handler is shown, what it leaves behind, and SIGTRAPs that are not the
// runtime's. The ranges resuming and entering.
//
// Context: signal handlers in application threads. Rules, enforced by tests/checks/link_check: no libc, no allocation,
// no lock, no C++ runtime; every function in the section of its range (ranges.h); r15 is left alone (-ffixed-r15);
// general registers only.
#include "runtime/trap/consume.h"
#include "runtime/trap/death.h"
#include "runtime/trap/foreign.h"
#include "runtime/trap/gate.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"

namespace ubp::trap {
namespace {

// A filter of the program's (SECCOMP_RET_TRAP) has raised SIGSYS for a system call of the runtime's own. The program's
// handler knows nothing of that, and the trap path, begun again behind it, would make the same call for ever: the call
// has failed, and the runtime does without.
[[gnu::always_inline]] inline bool refused_call(const siginfo_t* info, Context* uc) {
  constexpr int kSeccomp = 1;                                // SYS_SECCOMP, uapi/asm-generic/siginfo.h
  constexpr std::uint64_t kNoSuchCall = ~std::uint64_t{37};  // -ENOSYS
  if (info->si_signo != SIGSYS || info->si_code != kSeccomp) return false;
  const std::uint64_t call = reinterpret_cast<std::uint64_t>(info->si_addr);  // si_call_addr has its place
  if (!g_process.text.holds(call) && !this_thread().in_runtime) return false;
  uc->rax = kNoSuchCall;
  return true;
}

// A handler and the frame to call it with.
struct Prepared {
  std::uint64_t handler;
  Context* frame;
};

// The consumers of a hit have run: calls the handler of the signal that was put off, as the kernel would have in the
// hit's own context. handler 0: there is none any more, and the thread goes on where it trapped.
[[gnu::always_inline]] inline Prepared deliver(Context* uc, TaskState* task) {
  const siginfo_t& info = task->deferred;
  const auto signal = static_cast<std::uint64_t>(info.si_signo) & 127;
  const std::uint64_t handler =
      g_handlers.handler[signal % 65].load(std::memory_order_acquire);  // pairs with sigaction
  if (handler <= 1 || signal == SIGTRAP) {
    give_up_deferred(task);  // the kernel knows what becomes of it, and ubp_trap_foreign of a SIGTRAP
    return {0, uc};
  }
  KernelSigaction act{};
  sys::call4(SYS_rt_sigaction, static_cast<long>(signal), 0, reinterpret_cast<long>(&act), 8);
  block_all();
  copy_bytes(uc->info(), &info, sizeof info);
  __atomic_store_n(&task->has_deferred, kDelivering, __ATOMIC_RELAXED);  // its own, as below
  Context* const settled = settle(uc);
  __atomic_store_n(&task->has_deferred, 0, __ATOMIC_RELAXED);  // its own
  if (settled == nullptr) {
    uc->info()->si_signo = SIGSEGV;
    die(uc, SIGSEGV, true);
    return {0, uc};
  }
  expect_return(settled);
  const std::uint64_t own = (act.flags & SA_NODEFER) != 0 ? 0 : std::uint64_t{1} << (signal - 1);
  sys::set_signal_mask((settled->mask | act.mask | own) & ~kTrapBit);
  return {handler, settled};
}

// Begins the application's handler of SIGTRAP. before: the thread's mask.
[[gnu::always_inline]] inline Prepared begin_trap_handler(Context* uc, std::uint64_t handler, std::uint64_t before) {
  const std::uint64_t flags = g_handlers.trap_flags.load(std::memory_order_relaxed);  // set with the handler
  if ((flags & SA_RESETHAND) != 0)
    g_handlers.handler[SIGTRAP].store(0, std::memory_order_release);  // pairs with ubp_trap_foreign
  sys::set_signal_mask(before | (g_handlers.trap_mask.load(std::memory_order_relaxed) & ~kTrapBit));  // as its flags
  if (const std::uint64_t target = frame_target(uc, SIGTRAP)) {
    Context* const moved = move_frame(uc, target);
    if (moved == nullptr) {
      die(uc, SIGSEGV, true);
      return {0, uc};
    }
    uc = moved;
  }
  expect_return(uc);
  return {handler, uc};
}

// A system call that lends a mask (io_uring_enter, ppoll where libc's is not called) ends in EINTR, and the handler
// begins under that mask: SIGTRAP may be blocked. So it may where another handler was about to begin.
[[gnu::always_inline]] inline bool begins_in_lent_mask(const Context* uc) {
  constexpr auto kInterrupted = static_cast<std::uint64_t>(-4);  // -EINTR
  return uc->rax == kInterrupted || (uc->mask & kTrapBit) != 0;
}

// For a handler that is about to run: SIGTRAP is blocked for the application alone.
[[gnu::always_inline]] inline void keep_trap_unblocked() {
  std::uint64_t present = 0;
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&present), sizeof present);
  if ((present & kTrapBit) == 0) return;
  this_thread().app_trap.is_blocked = true;  // until the handler returns: note_mask
  sys::set_signal_mask(present & ~kTrapBit);
}

}  // namespace

extern "C" {

// Range: resuming. The handler of a signal, not of the instruction's own fault, has sent the thread elsewhere before
// the instruction of a hit that was counted. Maybe it comes back (asynchronous preemption), and hits again: the hit is
// no longer counted, or, where its consumers have run, remembered.
UBP_RANGE(resuming) void ubp_trap_moved(Context* uc, TaskState* task, std::uint32_t index) {
  const std::uint64_t origin = uc->reserved[0];
  if (is_fault(uc->info())) return;
  const std::uint64_t before = block_all();  // once, whoever interrupts
  uc->reserved[0] = 0;
  if (g_process.table.points[index].has_consumers && uc->reserved[1] != kNotConsumed) {
    task->moved_rsp = uc->reserved[3];
    task->moved_origin = origin;
    if (this_thread().state == task) task->fast = nullptr;  // its detours leave the hit to ubp_trap_decide
  } else {
    std::uint64_t* const counter = task->counters + index;
    --*(*counter != 0 ? counter : counter + g_process.tasks.offset_of(Counter::kJumped));
  }
  sys::set_signal_mask(before);
}

// Range: resuming. An application handler has returned. 1: from a translated frame, whose context still stands before
// the probepoint, whose counted hit goes on; 0: else, or the handler has moved it, and it is resumed as it is.
UBP_RANGE(resuming) int ubp_trap_resume(Context* uc) {
  forget_faults(this_thread());  // another mask is restored
  note_mask(uc);
  send_pending_trap();
  const std::uint64_t origin = uc->reserved[0];
  if (origin == 0) return 0;
  const std::uint32_t index = g_process.table.find(origin);
  TaskState* task = current_task(uc->rsp, uc->stack_base);
  if (index == runtime::kNotFound || task == nullptr) return 0;
  if (task->has_deferred != 0 && !is_consuming(task))
    give_up_deferred(task);  // the signal of a fault came before its delivery
  if (uc->rip != origin) {
    ubp_trap_moved(uc, task, index);
    return 0;
  }
  Continuation& next = continuation(uc);
  next.origin = origin;
  next.index = index;
  next.kind = TrapKind::kHit;
  next.task = task;
  next.copy = 0;
  next.is_mask_current = false;  // the handler ran with a mask of its own
  next.consumed = static_cast<Consumed>(uc->reserved[1]);
  return 1;
}

// Range: entering. Shows the handler the original context; handler 0: there is none, return from the frame.
UBP_RANGE(entering) Prepared ubp_signal_prepare(siginfo_t* info, Context* uc) {
  if (is_read_fault(info, uc)) [[unlikely]] {
    end_read(uc);
    return {0, uc};
  }
  if (const xol::Displaced* const made_by = born_at(g_process, uc->rip, uc->rax)) [[unlikely]]
    give_birth(uc, *made_by);
  if (refused_call(info, uc) || defer(info, uc)) [[unlikely]]
    return {0, uc};
  const auto signal = static_cast<std::uint64_t>(info->si_signo);
  // One that was sent, in the gate, where SIGTRAP is blocked: it comes when the gate sets the thread's mask.
  if (signal == SIGSYS && info->si_code <= 0 && (uc->mask & kTrapBit) != 0) [[unlikely]] {
    uc->mask |= std::uint64_t{1} << (SIGSYS - 1);
    send_again(*info);
    return {0, uc};
  }
  if (signal == kSetxid && consuming_task(uc->rsp) != nullptr) [[unlikely]] {
    return {g_handlers.handler[kSetxid].load(std::memory_order_acquire), uc};  // pairs with sigaction
  }
  // The stack that a handler's frame belongs on is used up: the kernel kills by SIGSEGV then.
  const auto overflow = [](Context * frame) __attribute__((always_inline))->Prepared {
    while (range_of(frame->rip) == Range::kEntering) frame = interrupted_frame(frame);
    translate(frame, nullptr);
    frame->info()->si_signo = SIGSEGV;
    die(frame, SIGSEGV, true);
    return {0, frame};
  };
  if (range_of(uc->rip) == Range::kEntering && is_fault(info)) [[unlikely]]
    return overflow(uc);
  if (g_process.is_in_runtime(uc->rip) || g_process.tasks.is_own_stack(reinterpret_cast<std::uint64_t>(uc)))
      [[unlikely]] {
    const std::uint64_t before = block_all();
    Context* const settled = settle(uc);
    if (settled == nullptr) return overflow(uc);
    uc = settled;
    if (g_process.slots.policy == xol::Policy::kSteal) [[unlikely]] {  // its context is in no slot any more
      if (TaskState* task = current_task(uc->rsp, uc->stack_base))
        task->held.store(0, std::memory_order_release);  // pairs with is_held
    }
    sys::set_signal_mask(before);
  }
  const std::uint64_t handler =
      g_handlers.handler[signal % 65].load(std::memory_order_acquire);  // pairs with sigaction
  if (handler > 1) {
    const bool may_be_blocked = begins_in_lent_mask(uc);
    expect_return(uc);
    if (may_be_blocked) [[unlikely]]
      keep_trap_unblocked();
    return {handler, uc};
  }
  if (handler == 0 && ends_process(signal)) die(uc, signal, !is_fault(info));
  return {0, uc};
}

// Outside the ranges. A SIGTRAP that no probepoint caused: what the application's disposition makes of it. handler 0:
// nothing to call, return from the frame.
UBP_RANGE(outside) Prepared ubp_trap_foreign(siginfo_t* info, Context* uc) {
  if (has_swallowed_int3(g_process.table, *info, *uc)) --uc->rip;
  const ForeignTrap kind = foreign_trap_of(g_process, *info, *uc, consuming_task(uc->rsp) != nullptr);
  if (kind == ForeignTrap::kOwn || kind == ForeignTrap::kHiddenStep) return {0, uc};
  if (kind == ForeignTrap::kPutOff) return deliver(uc, reinterpret_cast<TaskState*>(uc->rsi));
  const bool is_caused = kind == ForeignTrap::kCaused, is_breakpoint = is_caused && info->si_code == SI_KERNEL;
  const std::uint64_t before = block_all();
  if (g_process.is_in_runtime(uc->rip)) {
    Context* const settled = settle(uc);
    uc = settled != nullptr ? settled : uc;
  }
  const std::uint64_t kept = g_handlers.handler[SIGTRAP].load(std::memory_order_acquire);  // pairs with sigaction
  const std::uint64_t handler = is_function(kept) && is_cleared_guest() ? 0 : kept;
  Thread& thread = this_thread();
  TaskState* const consuming = consuming_task(uc->rsp);
  const bool waits = thread.app_trap.is_blocked || thread.in_runtime;
  switch (fate_of(is_caused, waits || consuming != nullptr, handler)) {
    case TrapFate::kIgnored: break;
    case TrapFate::kPending:
      if (!waits && put_off(consuming, info, uc)) break;
      thread.app_trap.info = *info;  // stays pending: send_pending_trap
      thread.app_trap.is_pending = true;
      break;
    case TrapFate::kDeath:
      if (is_breakpoint) uc->rip -= breakpoint_bytes(uc->rip);  // it traps again
      die(uc, SIGTRAP, !is_breakpoint);                         // which has its own mask, until the return
      return {0, uc};
    case TrapFate::kHandler: return begin_trap_handler(uc, handler, before);
  }
  sys::set_signal_mask(before);
  return {0, uc};
}

}  // extern "C"

}  // namespace ubp::trap
