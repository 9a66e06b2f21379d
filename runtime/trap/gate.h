// The gate: system calls of libc's own that would take SIGTRAP away are carried out here, without that part.
//
// An int3 met while SIGTRAP is blocked kills the process, and libc blocks every signal by raw system calls in
// pthread_create, at thread start and exit, in pthread_kill, posix_spawn, and for life in its helper threads; a spawned
// child resets every handler. Those sites carry a probepoint of the runtime's own (probes/gate_sites.h). As SIGTRAP is
// never blocked, they can be probed like any other code.
//
// Inline and free of libc: compiled into the trap path (the pending range). All signals are blocked from the first
// effect until rt_sigreturn sets the thread's mask, so that no handler sees the call half made.
#pragma once

#include "runtime/trap/death.h"

namespace ubp::trap {

inline constexpr std::uint64_t kTrapBit = std::uint64_t{1} << (SIGTRAP - 1);

// What sigprocmask did to the application's SIGTRAP. A trap that was pending comes again when it is unblocked.
[[gnu::always_inline]] inline void block_trap(bool blocked) {
  AppTrap& trap = t_app_trap;
  trap.is_blocked = blocked;
  if (blocked || !trap.is_pending) return;
  trap.is_pending = false;
  sys::call4(SYS_rt_tgsigqueueinfo, sys::getpid(), sys::gettid(), SIGTRAP, reinterpret_cast<long>(&trap.info));
}

// rt_sigprocmask(how, set, old, 8) on the mask that rt_sigreturn will restore.
[[gnu::always_inline]] inline std::uint64_t gated_mask(Context* uc) {
  const auto* set = reinterpret_cast<const std::uint64_t*>(uc->rsi);
  auto* old = reinterpret_cast<std::uint64_t*>(uc->rdx);
  const std::uint64_t before = uc->mask | (t_app_trap.is_blocked ? kTrapBit : 0);
  if (set != nullptr) {
    constexpr std::uint64_t kUnblockable = (std::uint64_t{1} << (SIGKILL - 1)) | (std::uint64_t{1} << (SIGSTOP - 1));
    const std::uint64_t bits = *set;
    std::uint64_t after;
    switch (uc->rdi) {
      case SIG_BLOCK: after = before | bits; break;
      case SIG_UNBLOCK: after = before & ~bits; break;
      case SIG_SETMASK: after = bits; break;
      default: return static_cast<std::uint64_t>(-22);  // -EINVAL
    }
    if (old != nullptr) *old = before;
    uc->mask = after & ~(kTrapBit | kUnblockable);
    block_trap((after & kTrapBit) != 0);
  } else if (old != nullptr) {
    *old = before;
  }
  return 0;
}

// rt_sigaction(signal, act, old, 8) as libc calls it, for the application (which then passes the shim:
// signals/interpose.cpp) or for itself: SIGTRAP stays the runtime's, a handler is put behind ubp_signal_entry, and so
// is the default where that is a core dump.
[[gnu::always_inline]] inline std::uint64_t gated_sigaction(Context* uc) {
  const std::uint64_t signal = uc->rdi;
  if (signal == SIGTRAP) return 0;
  const auto* act = reinterpret_cast<const KernelSigaction*>(uc->rsi);
  auto* old = reinterpret_cast<KernelSigaction*>(uc->rdx);
  const std::uint64_t shim = address_of(&ubp_signal_entry);
  const bool known = signal >= 1 && signal <= 64;
  // A vfork child's dispositions are its own, the table its parent's.
  const bool is_member = sys::is_process(g_process.pid);
  const std::uint64_t previous = known ? g_handlers.handler[signal].load(std::memory_order_relaxed) : 0;  // shown as old
  const bool wraps = act != nullptr && known && is_member && act->handler > 1 && act->handler != shim;
  const bool guards = act != nullptr && is_member && act->handler == 0 && is_guarded(signal);
  KernelSigaction copy{};
  if (act != nullptr) {
    copy = *act;
    copy.mask &= ~kTrapBit;
    if (wraps || guards) {
      g_handlers.handler[signal].store(act->handler, std::memory_order_release);  // pairs with ubp_signal_prepare
      set_bit(g_handlers.on_stack, signal, (act->flags & SA_ONSTACK) != 0);
      set_bit(g_handlers.takes_info, signal, (act->flags & SA_SIGINFO) != 0);
      copy.handler = shim;
    }
    if (guards) copy = guard_action();
    if (copy.handler == shim) copy.flags |= SA_SIGINFO;  // ubp_signal_prepare reads it
  }
  const long result = sys::call4(SYS_rt_sigaction, static_cast<long>(signal), act != nullptr ? reinterpret_cast<long>(&copy) : 0,
                                 static_cast<long>(uc->rdx), static_cast<long>(uc->r10));
  if (sys::failed(result)) {
    if (wraps || guards) g_handlers.handler[signal].store(previous, std::memory_order_release);  // as above
  } else if (old != nullptr && old->handler == shim && act != nullptr && act->handler != shim) {
    // sigaction() itself comes through here too, and translates the shim back: only libc's own callers need it done.
    old->handler = previous;
  }
  return static_cast<std::uint64_t>(result);
}

// execve and execveat: the new program inherits the mask, the application's SIGTRAP with it. The thread's mask is that
// of the call while it lasts, as always in the pending range, and what it was again if the call fails.
[[gnu::always_inline]] inline std::uint64_t gated_exec(Context* uc) {
  const std::uint64_t mask = uc->mask | kTrapBit;
  sys::call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&mask), 0, 8);
  const long result = sys::call6(static_cast<long>(uc->rax), static_cast<long>(uc->rdi), static_cast<long>(uc->rsi),
                                 static_cast<long>(uc->rdx), static_cast<long>(uc->r10), static_cast<long>(uc->r8), 0);
  return static_cast<std::uint64_t>(result);
}

// Carries the system call out when it is one of the two; false: it is another, to run as any displaced call does.
[[gnu::always_inline]] inline bool pass_gate(Context* uc, const xol::Displaced& point) {
#ifdef UBP_TEST_NO_GATE  // tests/preload/gate_test.cpp: libc blocks SIGTRAP as it likes
  return false;
#endif
  const std::uint64_t number = uc->rax;
  const bool is_exec = number == SYS_execve || number == SYS_execveat;
  if (is_exec ? !t_app_trap.is_blocked : number != SYS_rt_sigprocmask && number != SYS_rt_sigaction) return false;
  const std::uint64_t all = ~std::uint64_t{0};
  sys::call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&all), 0, 8);
  uc->rax = is_exec ? gated_exec(uc) : number == SYS_rt_sigprocmask ? gated_mask(uc) : gated_sigaction(uc);
  uc->r11 = uc->eflags;  // as SYSCALL leaves it
  uc->rcx = point.next();
  return true;
}

}  // namespace ubp::trap
