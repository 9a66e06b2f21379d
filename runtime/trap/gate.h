// The gate: system calls of libc's own that would take SIGTRAP away are carried out here, without that part.
//
// An int3 met while SIGTRAP is blocked kills the process, and libc blocks every signal by raw system calls in
// pthread_create, at thread start and exit, in pthread_kill, posix_spawn, and for life in its helper threads; a spawned
// child resets every handler. Those sites carry a probepoint of the runtime's own (plan/gate_sites.h). As SIGTRAP is
// never blocked, they can be probed like any other code.
//
// Inline and free of libc: compiled into the trap path (the pending range). All signals are blocked from the first
// effect until rt_sigreturn sets the thread's mask, so that no handler sees the call half made.
#pragma once

#include <sys/stat.h>

#include "runtime/trap/app_stack.h"
#include "runtime/trap/consume.h"
#include "runtime/trap/disposition.h"
#include "runtime/trap/tls.h"

namespace ubp::trap {

// What of a system call is the gate's.
enum class Gated : std::uint8_t {
  kNothing,      // it runs as any displaced call does
  kMask,         // rt_sigprocmask: carried out here
  kDisposition,  // rt_sigaction: likewise
  kExec,         // likewise, where the application blocks SIGTRAP
  kClone,        // it may make a task that shares memory
  kClone3,       // likewise, and its arguments may be changed (clone.h)
  kStorage,      // %fs is about to change (tls.h)
  kExit,         // the report is made first
  kThreadExit,   // likewise, where no other thread is left
  kReturn,       // rt_sigreturn, not a restorer's that the runtime replaces: carried out here
};

[[gnu::always_inline]] inline Gated gated_part(const Context& uc) {
  switch (uc.rax) {
    case SYS_rt_sigprocmask: return Gated::kMask;
    case SYS_rt_sigaction:  // with the mark: another copy of UBP asks (signals/interpose.cpp)
      return uc.r8 == UBP_ENTRY_MARK ? Gated::kNothing : Gated::kDisposition;
    case SYS_execve:
    case SYS_execveat: return Gated::kExec;
    case SYS_clone: return Gated::kClone;
    case SYS_clone3: return Gated::kClone3;
    case SYS_arch_prctl: return uc.rdi == static_cast<std::uint64_t>(kSetFs) ? Gated::kStorage : Gated::kNothing;
    case SYS_exit_group: return Gated::kExit;
    case SYS_exit: return Gated::kThreadExit;
    case SYS_rt_sigreturn: return Gated::kReturn;
    default: return Gated::kNothing;
  }
}

// Whether the running task blocks SIGTRAP as far as the application knows. A vfork child has a bit of its own, on its
// parent's TLS.
[[gnu::always_inline]] inline bool& blocked_bit() {
  AppTrap& trap = this_thread().app_trap;
  if (sys::is_process(g_process.tasks.pid)) return trap.is_blocked;
  const std::uint32_t tid = sys::gettid();
  if (trap.guest != tid) {
    trap.guest = tid;
    trap.guest_is_blocked = trap.is_blocked;
  }
  return trap.guest_is_blocked;
}

// What sigprocmask did to the application's SIGTRAP. A trap that was pending comes again when it is unblocked.
[[gnu::always_inline]] inline void block_trap(bool blocked) {
  bool& bit = blocked_bit();
  bit = blocked;
  if (&bit == &this_thread().app_trap.is_blocked) send_pending_trap();
}

inline constexpr std::uint64_t kInvalid = static_cast<std::uint64_t>(-22),
                               kBadAddress = static_cast<std::uint64_t>(-14);

// rt_sigprocmask(how, set, old, size) on the mask that rt_sigreturn will restore. Pointers are the application's, and
// libraries ask this very call whether they are good: the kernel answers that.
[[gnu::always_inline]] inline std::uint64_t gated_mask(Context* uc) {
  const auto* set = reinterpret_cast<const std::uint64_t*>(uc->rsi);
  auto* old = reinterpret_cast<std::uint64_t*>(uc->rdx);
  if (uc->r10 != 8) return kInvalid;
  const std::uint64_t before = uc->mask | (blocked_bit() ? kTrapBit : 0);
  if (set != nullptr) {
    constexpr std::uint64_t kUnblockable = (std::uint64_t{1} << (SIGKILL - 1)) | (std::uint64_t{1} << (SIGSTOP - 1));
    if (!sys::is_readable(uc->rsi)) return kBadAddress;
    const std::uint64_t bits = *set;
    std::uint64_t after;
    switch (static_cast<int>(uc->rdi)) {
      case SIG_BLOCK: after = before | bits; break;
      case SIG_UNBLOCK: after = before & ~bits; break;
      case SIG_SETMASK: after = bits; break;
      default: return kInvalid;
    }
    uc->mask = after & ~(kTrapBit | kUnblockable);
    block_trap((after & kTrapBit) != 0);
  }
  if (old != nullptr) {
    if (sys::failed(sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(old), 8))) return kBadAddress;
    *old = before;
  }
  return 0;
}

// Whether a call that has failed has made its change all the same: what is at old, the kernel writes last.
[[gnu::always_inline]] inline bool is_made(long result, const KernelSigaction* old) {
  return !sys::failed(result) || (old != nullptr && static_cast<std::uint64_t>(result) == kBadAddress);
}

// The same for SIGTRAP: the kernel is asked only whether old is good.
[[gnu::always_inline]] inline std::uint64_t change_trap(const KernelSigaction* act, KernelSigaction* old,
                                                        bool is_member) {
  const long result = sys::call4(SYS_rt_sigaction, SIGTRAP, 0, reinterpret_cast<long>(old), 8);
  if (!is_made(result, old)) return static_cast<std::uint64_t>(result);
  if (old != nullptr && !sys::failed(result)) {
    const std::uint64_t restorer = old->restorer;
    *old = trap_disposition(is_cleared_guest());
    old->restorer = restorer;
  }
  if (act != nullptr && is_member) set_trap_disposition(*act);
  return static_cast<std::uint64_t>(result);
}

// Changes a disposition as the application asks for it. The default is put behind ubp_signal_entry too, where that ends
// the process (death.h). act, old: null, or act is good; old may be bad.
[[gnu::always_inline]] inline std::uint64_t change_disposition(std::uint64_t signal, const KernelSigaction* act,
                                                               KernelSigaction* old) {
  const bool is_member = sys::is_process(g_process.tasks.pid);
  if (signal == SIGTRAP) return change_trap(act, old, is_member);
  DispositionChange change = begin_change(signal, act, is_member);
  if (act != nullptr && change.is_kept && act->handler == 0 && is_guarded(signal)) {
    note(signal, notes_of(*act));
    change.is_noted = true;
    change.kernel = guard_action();
  }
  // An interposed function has put it there; ubp_signal_prepare reads the signal's information.
  if (change.kernel.handler == entry_address()) change.kernel.flags |= SA_SIGINFO;
  const long given = act != nullptr ? reinterpret_cast<long>(&change.kernel) : 0;
  const long result = sys::call4(SYS_rt_sigaction, static_cast<long>(signal), given, reinterpret_cast<long>(old), 8);
  if (!is_made(result, old)) {
    take_back(change);
  } else if (!this_thread().app_trap.in_wrapper) {  // else the interposed function does it
    complete_change(change, act, sys::failed(result) ? nullptr : old);
  }
  return static_cast<std::uint64_t>(result);
}

// rt_sigaction(signal, act, old, size) as libc calls it, for the application (which then passes ubp_signal_entry:
// signals/interpose.cpp) or for itself, and as syscall(2) does.
[[gnu::always_inline]] inline std::uint64_t gated_sigaction(Context* uc) {
  if (uc->r10 != 8) return kInvalid;
  const auto* act = reinterpret_cast<const KernelSigaction*>(uc->rsi);
  if (act != nullptr) {  // signal 0 is looked at last
    const long readable = sys::call4(SYS_rt_sigaction, 0, reinterpret_cast<long>(act), 0, 8);
    if (static_cast<std::uint64_t>(readable) == kBadAddress) return kBadAddress;
  }
  const auto signal =
      static_cast<std::uint32_t>(uc->rdi);  // an int to the kernel, whatever the register's upper half holds
  return change_disposition(signal, act, reinterpret_cast<KernelSigaction*>(uc->rdx));
}

// execve and execveat: the new program inherits the mask, the application's SIGTRAP with it. The thread's mask is that
// of the call while it lasts, as always in the pending range, and what it was again if the call fails.
[[gnu::always_inline]] inline std::uint64_t gated_exec(Context* uc) {
  sys::set_signal_mask(uc->mask | kTrapBit);
  const long result = sys::call6(static_cast<long>(uc->rax), static_cast<long>(uc->rdi), static_cast<long>(uc->rsi),
                                 static_cast<long>(uc->rdx), static_cast<long>(uc->r10), static_cast<long>(uc->r8), 0);
  return static_cast<std::uint64_t>(result);
}

// Whether the process has no thread but this one. Each is a folder of /proc/self/task, which fs/proc/base.c counts as a
// link besides the usual two. false: it has, or nobody can say.
[[gnu::always_inline]] inline bool is_only_thread() {
  struct stat folder;
  const long result =
      sys::call4(SYS_stat, reinterpret_cast<long>("/proc/self/task"), reinterpret_cast<long>(&folder), 0, 0);
  return !sys::failed(result) && folder.st_nlink == 3;
}

// exit_group of the program's own, or exit of its only thread: the thread goes on in the function that makes the report
// and ends the process, on a stack that has room for it, and with libc's TLS. Returns where; 0: the call is made.
[[gnu::always_inline]] inline std::uint64_t leave_process(Context* uc, bool is_of_thread) {
  constexpr long kStackBytes = 256 << 10;
  const bool may_report = g_process.upcalls.on_exit != nullptr &&
                          !sys::is_set(g_process.is_sandboxed);        // nothing new is asked of the kernel
  if (!may_report || !sys::is_process(g_process.tasks.pid)) return 0;  // a vfork child ends alone
  if (is_of_thread && !is_only_thread()) return 0;
  const long stack =
      sys::call6(SYS_mmap, 0, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (sys::failed(stack)) return 0;
  Storage storage(true);  // the loading thread has left its own too, or comes to no more use of it
  storage.keep();
  uc->rsp = static_cast<std::uint64_t>(stack) + kStackBytes - 8;
  uc->eflags &= ~runtime::kDirectionFlag;
  return reinterpret_cast<std::uint64_t>(g_process.upcalls.on_exit);
}

// rt_sigreturn by the program's own text, with a handler's frame or one that it has made: the trap's frame takes what
// the kernel would have taken from there, less SIGTRAP in the mask, and goes back to the kernel itself. The program's
// is only read. A handler's own frame goes the way that the handler's return would have gone: a hit that the signal has
// interrupted goes on there. Returns where the thread goes on; 0: the kernel ends the program for such a frame.
[[gnu::always_inline]] inline std::uint64_t gated_return(Context* uc) {
  constexpr std::uint64_t kNestedTask = 0x4000;  // rt_sigreturn leaves that flag as it is
  auto* const frame = reinterpret_cast<Context*>(uc->rsp);
  if (!sys::is_readable(uc->rsp) || !sys::is_readable(uc->rsp + sizeof *frame - 8) || frame->rip == 0) return 0;
  const std::uint64_t restorer = address_of(&ubp_resume_restorer);
  if (sys::is_readable(uc->rsp - 8) && frame->return_address() == restorer) return restorer;
  sys::set_signal_mask(kAllSignals);
  const std::uint64_t kept_eflags = uc->eflags & kNestedTask;
  // Where the kernel has the runtime's stack, the program's is not its concern. A handler's frame shows the runtime's.
  const bool is_own = g_process.tasks.is_own_stack(frame->stack_base);
  if (!is_own && (!g_process.tasks.is_own_stack(uc->stack_base) || (frame->stack_flags & kAutodisarm) != 0)) {
    copy_bytes(&uc->stack_base, &frame->stack_base, 3 * sizeof uc->stack_base);
  } else if (!is_own) {
    set_app_stack(this_thread().app_stack, {frame->stack_base, frame->stack_size}, static_cast<int>(frame->stack_flags),
                  frame->rsp);
  }
  uc->flags = frame->flags;
  copy_bytes(&uc->r8, &frame->r8, offsetof(Context, reserved) - offsetof(Context, r8));
  uc->eflags = (frame->eflags & ~kNestedTask) | kept_eflags;
  uc->mask = frame->mask & ~kTrapBit;
  block_trap((frame->mask & kTrapBit) != 0);
  return uc->rip;
}

// Carries a system call out that changes the mask, a disposition, or the program. Returns where the thread goes on; 0:
// the call is to run as any displaced one does.
[[gnu::always_inline]] inline std::uint64_t pass_gate(Context* uc, Gated call, const xol::Displaced& point) {
#ifdef UBP_TEST_NO_GATE  // tests/preload/gate_test.cpp: libc blocks SIGTRAP as it likes
  return 0;
#endif
  if (call == Gated::kExec && !blocked_bit()) return 0;
  sys::set_signal_mask(kAllSignals);
  uc->rax = call == Gated::kExec ? gated_exec(uc) : call == Gated::kMask ? gated_mask(uc) : gated_sigaction(uc);
  uc->r11 = uc->eflags;  // as SYSCALL leaves it
  uc->rcx = point.next();
  return point.next();
}

}  // namespace ubp::trap
