// The ranges of the trap path: what holds when it is interrupted there. trap_entry.S explains them.
//
// Every function of it lies in the section of its range, by which whoever interrupts tells where it stands.
// Inline and free of libc: compiled into the trap path.
#pragma once

#include "runtime/trap/layout.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

// name: uncounted, pending, resuming, entering; outside: not interrupted in a way that matters, or never by a handler.
#define UBP_RANGE(name) __attribute__((section("ubp_trap_" #name), noinline, used))

namespace ubp::trap {

// The C++ sections of the trap path; the linker makes the symbols from the section names.
extern "C" {
extern const char __start_ubp_trap_uncounted[], __stop_ubp_trap_uncounted[], __start_ubp_trap_pending[],
    __stop_ubp_trap_pending[];
extern const char __start_ubp_trap_resuming[], __stop_ubp_trap_resuming[], __start_ubp_trap_entering[],
    __stop_ubp_trap_entering[];
extern const char __start_ubp_trap_outside[], __stop_ubp_trap_outside[], __start_ubp_trap_asm[], __stop_ubp_trap_asm[];
}

// Where in the trap path an interrupted RIP lies; see the ranges in trap_entry.S.
enum class Range : std::uint8_t { kOutside, kUncounted, kPending, kStored, kResuming, kEntering };

[[gnu::always_inline]] inline std::uint64_t address_of(const void* p) { return reinterpret_cast<std::uint64_t>(p); }
[[gnu::always_inline]] inline std::uint64_t address_of(void (*p)()) { return reinterpret_cast<std::uint64_t>(p); }

[[gnu::always_inline]] inline Range range_of(std::uint64_t rip) {
  const auto within = [rip](std::uint64_t low, std::uint64_t high) { return rip - low < high - low; };
  if (within(address_of(&ubp_trap_entry), address_of(&ubp_trap_counted)) ||
      within(address_of(__start_ubp_trap_uncounted), address_of(__stop_ubp_trap_uncounted))) {
    return Range::kUncounted;
  }
  if (within(address_of(&ubp_trap_counted), address_of(&ubp_trap_stored)) ||
      within(address_of(__start_ubp_trap_pending), address_of(__stop_ubp_trap_pending))) {
    return Range::kPending;
  }
  if (within(address_of(&ubp_trap_stored), address_of(&ubp_trap_end))) return Range::kStored;
  if (within(address_of(&ubp_resume_restorer), address_of(&ubp_resume_end)) ||
      within(address_of(__start_ubp_trap_resuming), address_of(__stop_ubp_trap_resuming))) {
    return Range::kResuming;
  }
  if (within(address_of(&ubp_signal_entry), address_of(&ubp_signal_end)) ||
      within(address_of(__start_ubp_trap_entering), address_of(__stop_ubp_trap_entering))) {
    return Range::kEntering;
  }
  return Range::kOutside;
}

// The ucontext of the activation that was interrupted inside the trap path.
[[gnu::always_inline]] inline Context* interrupted_frame(const Context* uc) {
  std::uint64_t frame = uc->r15;
  if (uc->rip == address_of(&ubp_trap_entry) || uc->rip == address_of(&ubp_signal_entry)) frame = uc->rdx;
  if (uc->rip == address_of(&ubp_resume_restorer)) frame = uc->rsp;
  if (uc->rip == address_of(&ubp_trap_iret))
    frame = uc->rsp - static_cast<std::uint64_t>(std::int64_t{UBP_IRET_OFFSET});
  return reinterpret_cast<Context*>(frame);
}

// Blocks every signal but SIGTRAP, whose handler is the runtime's; returns the mask that was. (A debugger's single step
// or watchpoint while SIGTRAP is blocked would make the kernel reset the handler.)
[[gnu::always_inline]] inline std::uint64_t block_all() { return sys::set_signal_mask(kAllSignals & ~kTrapBit); }

}  // namespace ubp::trap
