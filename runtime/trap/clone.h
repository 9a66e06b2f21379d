// System calls that make a task, at the gate.
//
// One of the program's own may share its maker's memory, and bring it a TLS or none: what the runtime knows of tasks by
// their TLS no longer holds then.
//
// clone3 with CLONE_CLEAR_SIGHAND: the child loses every handler, SIGTRAP's with them, and its next int3 kills it. libc
// since glibc 2.38 starts the children of posix_spawn, system and popen so.
//
// The kernel is given a copy of the arguments without that flag, and the child resets the handlers by itself, all but
// the runtime's: the call is made in the gate's permanent slot, from where parent and child come back by an int3
// (slot_image.h). Until then all signals are blocked, so that no handler runs in the child that it should not have.
//
// What is copied lies in the thread's storage: a vfork child finds it there as its parent does, and a forked one has
// its own. A child on its maker's memory that its maker does not wait for could find it used again: refused with
// ENOSYS, as by a kernel that has no clone3.
//
// Inline and free of libc: compiled into the trap path (pass_clone: the pending range; finish_clone: the uncounted).
// Source: clone(2); uapi/linux/sched.h.
#pragma once

#include <linux/sched.h>

#include "runtime/trap/gate.h"

namespace ubp::trap {

inline constexpr std::uint64_t kNoSuchCall = static_cast<std::uint64_t>(-38), kTooBig = static_cast<std::uint64_t>(-7);

// Whether the system call at hand makes a task that runs beside this one in the same memory.
[[gnu::always_inline]] inline bool makes_thread(const Context& uc) {
  std::uint64_t flags = uc.rdi;
  if (uc.rax == SYS_clone3) {  // its argument's first word
    if (!sys::is_readable(uc.rdi)) return false;
    flags = *reinterpret_cast<const std::uint64_t*>(uc.rdi);
  } else if (uc.rax != SYS_clone) {
    return false;
  }
  return (flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM;
}

// Whose TLS such a task will run on.
enum class TaskTls : std::uint8_t { kMakers, kLibcs, kOther };

[[gnu::always_inline]] inline TaskTls tls_of_new_task(const Context& uc) {
  constexpr std::uint64_t kTls = 7;  // in clone_args
  const auto* const words = reinterpret_cast<const std::uint64_t*>(uc.rdi);
  const bool by_words = uc.rax == SYS_clone3;
  if (((by_words ? words[0] : uc.rdi) & CLONE_SETTLS) == 0) return TaskTls::kMakers;
  const std::uint64_t tls = !by_words ? uc.r8 : sys::is_readable(uc.rdi + kTls * 8) ? words[kTls] : 0;
  return is_marked(reinterpret_cast<const Thread*>(tls + thread_offset())) ? TaskTls::kLibcs : TaskTls::kOther;
}

// It is one of the program's own: what libc's clone() is told (signals/interpose.cpp).
[[gnu::always_inline]] inline void share_memory(const Context* uc) {
  const TaskTls tls = tls_of_new_task(*uc);
  if (tls == TaskTls::kMakers)
    g_process.tasks.shares_tls.store(true, std::memory_order_relaxed);  // this thread makes the task after this
  const bool is_told = g_process.upcalls.before_sharing_tls != nullptr && g_process.tasks.is_own_stack(address_of(uc));
  if (tls == TaskTls::kLibcs || !is_told) return;  // libc has made it before
  const std::uint64_t before = block_all();
  if (tls == TaskTls::kOther) {
    leave_storage();
  } else {
    g_process.upcalls.before_sharing_tls();
  }
  sys::set_signal_mask(before);
}

// Looks at a clone3 that is about to be made. Returns where the thread goes on: in the slot, behind the call when it is
// refused; 0: the gate has nothing to do with it.
[[gnu::always_inline]] inline std::uint64_t pass_clone(Context* uc, const xol::Displaced& point) {
#ifdef UBP_TEST_NO_GATE
  return 0;
#endif
  const std::uint64_t size = uc->rsi;
  if (size < CLONE_ARGS_SIZE_VER0 || size > xol::kPageBytes || size % 8 != 0) return 0;  // the kernel has an answer
  if (!sys::is_readable(uc->rdi) || !sys::is_readable(uc->rdi + size - 8)) return 0;
  const auto* const given = reinterpret_cast<const std::uint64_t*>(uc->rdi);
  const std::uint64_t flags = given[0];
  if ((flags & CLONE_CLEAR_SIGHAND) == 0 || (flags & CLONE_SIGHAND) != 0) return 0;
  const auto refuse = [&](std::uint64_t error) __attribute__((always_inline)) {
    uc->rax = error;
    uc->r11 = uc->eflags;  // as SYSCALL leaves it
    uc->rcx = point.next();
    return point.next();
  };
  if (size > sizeof Cloning::args) return refuse(kTooBig);
  std::uint64_t next = 0;
  Cloning* const clonings = this_thread().clonings;
  while (next < kMostClonings && clonings[next].rest != 0) ++next;
  // A task without libc's storage may share what it has, or its child find it wiped.
  const bool is_lost =
      next == kMostClonings || (flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM || thread_in_storage() == nullptr;
  if (is_lost) return refuse(kNoSuchCall);
  Cloning* const cloning = &clonings[next];
  sys::set_signal_mask(kAllSignals);
  for (std::uint64_t word = 0; word < size / 8; ++word) cloning->args[word] = given[word];
  cloning->args[0] = flags & ~CLONE_CLEAR_SIGHAND;
  cloning->mask = uc->mask;
  cloning->rdi = uc->rdi;
  cloning->cleared_before = this_thread().app_trap.cleared_guest;
  cloning->rest = kMostClonings - next;
  uc->rdi = address_of(cloning->args);
  // A filter may raise SIGSYS for the call, and the kernel kills where that is blocked.
  uc->mask = ~(kTrapBit | std::uint64_t{1} << (SIGSYS - 1));
  return g_process.slots.permanent[point.area].base + point.system.permanent * xol::kSlotBytes + xol::kCloneOffset;
}

// What CLONE_CLEAR_SIGHAND does: every handler back to the default, what is ignored stays so.
[[gnu::always_inline]] inline void clear_handlers() {
  const KernelSigaction reset{};
  for (std::uint64_t signal = 1; signal <= 64; ++signal) {
    KernelSigaction present{};
    sys::call4(SYS_rt_sigaction, static_cast<long>(signal), 0, reinterpret_cast<long>(&present), 8);
    const bool is_trap = signal == SIGTRAP;
    const std::uint64_t handler =
        is_trap ? g_handlers.handler[SIGTRAP].load(std::memory_order_relaxed) : present.handler;  // not called
    if (handler > 1) change_disposition(signal, &reset, nullptr);
  }
}

// The call has been made: parent or child goes on behind it, with what the gate has changed put back.
[[gnu::always_inline]] inline void finish_clone(Context* uc, const xol::Displaced& point) {
  auto* const cloning = reinterpret_cast<Cloning*>(uc->rdi);
  const bool is_child = uc->rax == 0, shares_memory = (cloning->args[0] & CLONE_VM) != 0;
  if (is_child) {
    set_up_child(sys::gettid());  // a forked one is a process of its own from here on
    clear_handlers();
    if (shares_memory) this_thread().app_trap.cleared_guest = sys::gettid();
  }
  uc->mask = cloning->mask;
  uc->rdi = cloning->rdi;
  uc->r11 = uc->eflags;  // as SYSCALL leaves it
  uc->rcx = point.next();
  if (is_child && shares_memory) return;  // its parent comes back for it
  if (shares_memory) this_thread().app_trap.cleared_guest = static_cast<std::uint32_t>(cloning->cleared_before);
  const std::uint64_t rest = cloning->rest;  // vfork children's that died, too
  for (std::uint64_t entry = 0; entry < rest; ++entry) cloning[entry].rest = 0;
}

}  // namespace ubp::trap
