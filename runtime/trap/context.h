// The kernel's ucontext, as the trap path reads and writes it.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <signal.h>

#include <cstddef>
#include <cstdint>

#include "runtime/trap/layout.h"

namespace ubp::trap {

// Where the 16 general registers stand in a Context, by the hardware's numbers: in words from r8 on.
inline constexpr std::uint8_t kRegisterWords[16] = {13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7};

// The kernel's ucontext, as the signal frame holds it (uapi/asm/ucontext.h; glibc's ucontext_t begins alike).
struct Context {
  std::uint64_t flags;
  std::uint64_t link;
  std::uint64_t stack_base, stack_flags, stack_size;
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t err, trapno, oldmask, cr2;
  std::uint8_t* fpstate;
  std::uint64_t reserved[8];  // ignored by rt_sigreturn, and not what they were at the start. Of a handler's frame
                              // (translate.h): [0]: the probepoint whose hit goes on; 0: none does; [1]: Consumed; [2]:
                              // note_mask() has been here; [3]: the stack pointer of that hit
  std::uint64_t mask;

  // A general register by its number (0 rax, 1 rcx, ... 15 r15).
  [[gnu::always_inline]] inline std::uint64_t& general(unsigned number) { return (&r8)[kRegisterWords[number]]; }
  // Half of an %xmm register, as FXSAVE lays them out.
  [[gnu::always_inline]] inline std::uint64_t vector(unsigned number, unsigned half) const {
    constexpr std::size_t kVectors = 160;
    std::uint64_t value = 0;
    if (fpstate != nullptr)
      __builtin_memcpy(&value, fpstate + kVectors + number * 16 + half * sizeof value, sizeof value);
    return value;
  }
  siginfo_t* info() { return reinterpret_cast<siginfo_t*>(reinterpret_cast<std::uint8_t*>(this) + UBP_UC_SIGINFO); }
  std::uint64_t& return_address() { return *(reinterpret_cast<std::uint64_t*>(this) - 1); }
};
static_assert(offsetof(Context, rdi) == offsetof(Context, r8) + 8 * 8 &&
              offsetof(Context, rsp) == offsetof(Context, r8) + 15 * 8);
static_assert(offsetof(Context, rax) == offsetof(Context, r8) + 13 * 8 &&
              offsetof(Context, rbx) == offsetof(Context, r8) + 11 * 8);
static_assert(offsetof(Context, r8) == UBP_UC_R8 && offsetof(Context, r15) == UBP_UC_R15);
static_assert(offsetof(Context, rcx) == UBP_UC_RCX && offsetof(Context, rip) == UBP_UC_RIP);
static_assert(offsetof(Context, cs) == UBP_UC_CS && offsetof(Context, ss) == UBP_UC_SS);
static_assert(offsetof(Context, fpstate) == UBP_UC_FPSTATE);
static_assert(offsetof(Context, reserved) == UBP_UC_RESERVED && offsetof(Context, mask) == UBP_UC_MASK);
static_assert(sizeof(Context) == UBP_UC_SIGINFO);

}  // namespace ubp::trap
