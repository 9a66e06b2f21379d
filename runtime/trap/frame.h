// Where signal frames lie, and moving one.
//
// The kernel's alternate stack of a task that has hit a probe is UBP's own (adopt_stack), so that no hit needs room on
// the application's stack, however small or full. The application's alternate stack is virtual: Thread::app_stack is
// what sigaltstack() reads back (signals/altstack.cpp), and a handler of its that the kernel has started on UBP's stack
// is moved to where it would run without UBP, frame and all, before its first instruction (translate.h).
//
//   frame    | pretcode 8 | ucontext 304 | siginfo 128 | up to 63 bytes | XSAVE image |     <- stack top
//
// So UBP's stack is empty whenever application code runs. Threads of Go take the stack that the kernel has for their
// own, by system calls of their own, and run handlers on stacks too small for a frame: in a process with Go code the
// kernel's stacks are left alone (Tasks::keeps_stacks).
//
// Inline and free of libc: compiled into the trap path. Source: arch/x86/kernel/signal_64.c, sigaltstack(2).
#pragma once

#include "runtime/trap/tls.h"

namespace ubp::trap {

inline constexpr std::uint64_t kFrameBytes = 8 + UBP_UC_SIGINFO + 128;
inline constexpr std::uint64_t kRedZone = 128;
inline constexpr std::uint64_t kAutodisarm = std::uint64_t{1} << 31;  // SS_AUTODISARM

inline constexpr std::uint32_t kFpMagic1 = 0x46505853;  // FP_XSTATE_MAGIC1, uapi/asm/sigcontext.h

[[gnu::always_inline]] inline std::uint32_t fp_word(const Context* uc, std::uint32_t offset) {
  std::uint32_t value;
  __builtin_memcpy(&value, uc->fpstate + offset, sizeof value);
  return value;
}

// Bytes of the frame's XSAVE image; 464: _fpx_sw_bytes {magic1, extended_size, ...}.
[[gnu::always_inline]] inline std::uint32_t fp_bytes(const Context* uc) {
  if (uc->fpstate == nullptr) return 0;
  return fp_word(uc, 464) == kFpMagic1 ? fp_word(uc, 468) : 512;
}

// bytes is a multiple of 4 (what a frame is made of).
[[gnu::always_inline]] inline void copy_bytes(void* to, const void* from, std::uint64_t bytes) {
  std::uint64_t words = bytes / 4;
  asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
}

// Where the frame of a handler that is about to run belongs; 0: where it is.
[[gnu::always_inline]] inline std::uint64_t frame_target(const Context* uc, std::uint64_t signal) {
  if (!g_process.tasks.is_own_stack(reinterpret_cast<std::uint64_t>(uc)) || g_process.tasks.is_own_stack(uc->rsp))
    return 0;
  const AppStack& stack = this_thread().app_stack;
  const bool wants_stack = has_bit(g_handlers.on_stack, signal) && stack.size != 0;
  return !wants_stack || is_on(stack, uc->rsp) ? uc->rsp - kRedZone : stack.base + stack.size;
}

// Copies the frame to below `target`, as the kernel would have laid it out there. Leaves the original as it is, so
// that whoever interrupts can do it again. May fault, when that stack is used up. Returns the new ucontext; nullptr:
// the application's alternate stack is used up, which the kernel answers with SIGSEGV.
[[gnu::always_inline]] inline Context* move_frame(const Context* uc, std::uint64_t target) {
  const std::uint32_t image = fp_bytes(uc);
  const std::uint64_t fp = (target - image) & ~std::uint64_t{63};
  const std::uint64_t frame = (((image != 0 ? fp : target) - kFrameBytes + 8) & ~std::uint64_t{15}) - 8;
  auto* const to = reinterpret_cast<Context*>(frame + 8);
  const AppStack& stack = this_thread().app_stack;
  if (is_on(stack, target) && frame < stack.base) return nullptr;
  copy_bytes(reinterpret_cast<void*>(frame), reinterpret_cast<const std::uint8_t*>(uc) - 8, kFrameBytes);
  if (image != 0) {
    copy_bytes(reinterpret_cast<void*>(fp), uc->fpstate, image);
    to->fpstate = reinterpret_cast<std::uint8_t*>(fp);
  }
  return to;
}

// Gives the hit's task UBP's stack for its signal frames from the next one on. Returns nullptr when it has it, or
// cannot have it now; else a frame, on that stack, whose return installs it: the int3 then traps again. (On the frame
// the kernel made it would be too late: sigaltstack refuses while the stack pointer is on the present one, and since
// Linux 6.12 rt_sigreturn looks at its own.)
[[gnu::always_inline]] inline Context* adopt_stack(const Context* uc, TaskState* task) {
#ifdef UBP_TEST_NO_OWN_STACK  // tests/preload/stack_test.cpp: frames lie where the application's settings put them
  return nullptr;
#endif
  constexpr std::uint64_t kMostTries = 16;  // whatever refuses it will go on doing so
  const std::uint64_t own = g_process.tasks.stack_of(task->block);
  if (uc->stack_base == own || g_process.tasks.keeps_stacks) [[likely]]
    return nullptr;
  const bool is_disabled = (uc->stack_flags & SS_DISABLE) != 0;
  const AppStack present{uc->stack_base, is_disabled ? 0 : uc->stack_size};
  if ((uc->stack_flags & kAutodisarm) != 0 || is_on(present, uc->rsp) || task->stack_tries >= kMostTries)
    return nullptr;
  if (!g_process.tasks.is_own_stack(uc->stack_base)) this_thread().app_stack = present;  // else: inherited through fork
  forget_faults(this_thread());  // asked again on that stack: reads.h
  ++task->stack_tries;
  task->signal_stack = own;
  Context* const frame = move_frame(uc, g_process.tasks.stack_end(task->block));
  frame->stack_base = own;
  frame->stack_flags = 0;
  frame->stack_size = g_process.tasks.stack_end(task->block) - own;
  frame->rip = uc->rip - 1;
  return frame;
}

}  // namespace ubp::trap
