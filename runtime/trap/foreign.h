// SIGTRAPs that no probepoint has caused: what they are, and what becomes of them.
//
// Decisions alone: ubp_trap_foreign (signal_path.cpp) carries them out.
// Inline and free of libc: compiled into the trap path. Source: arch/x86/kernel/traps.c; rt_sigqueueinfo(2).
#pragma once

#include "runtime/trap/disposition.h"
#include "runtime/trap/translate.h"

namespace ubp::trap {

enum class ForeignTrap : std::uint8_t {
  kOwn,         // queued by the runtime itself (arm/threads.cpp), which no longer waits for it
  kHiddenStep,  // a single step, none of which was an instruction of the program's
  kPutOff,      // the int3 by which a signal is delivered that waited for consumers (consume.h)
  kCaused,      // by an instruction of the program's
  kSent,        // by kill(2) and its like
};

// The numbers of the processor's exceptions, which the kernel leaves in the frame; a signal that was sent has that of
// the thread's last one.
inline constexpr std::uint64_t kDebugException = 1, kBreakpointException = 3;

// The bytes of the breakpoint instruction right before an address: 1 of int3, 2 of int $3. 0: there is none. What
// cannot be read is taken for an int3.
[[gnu::always_inline]] inline std::uint64_t breakpoint_bytes(std::uint64_t address) {
  const bool has_more = sys::is_readable(address - 8);  // else the code may begin with it
  if (!has_more && !sys::is_readable(address - 1)) return 1;
  const auto* const end = reinterpret_cast<const std::uint8_t*>(address);
  if (end[-1] == 0xcc) return 1;
  return has_more && end[-1] == 3 && end[-2] == 0xcd ? 2 : 0;
}

// Whether an instruction has caused the trap. The code alone does not say: a program may queue itself a SIGTRAP with
// any.
[[gnu::always_inline]] inline bool is_caused(const siginfo_t& info, const Context& uc) {
  constexpr int kPerfEvent = 6;  // TRAP_PERF: an event that it has asked for, and no exception
  if (info.si_code == SI_KERNEL) return uc.trapno == kBreakpointException && breakpoint_bytes(uc.rip) != 0;
  return info.si_code > 0 && (info.si_code == kPerfEvent || uc.trapno == kDebugException);
}

// is_consuming: the trapped context was called by a consumer.
[[gnu::always_inline]] inline ForeignTrap foreign_trap_of(const CodeMap& code, const siginfo_t& info, const Context& uc,
                                                          bool is_consuming) {
  if (info.si_code == SI_QUEUE && reinterpret_cast<std::uint64_t>(info.si_value.sival_ptr) == UBP_ENTRY_MARK)
    return ForeignTrap::kOwn;
  // A step inside a detour: the program sees one only where an instruction of its own has been executed.
  if (info.si_code == TRAP_TRACE && (is_before_copies(code, uc.rip) || is_consuming)) return ForeignTrap::kHiddenStep;
  if (info.si_code == SI_KERNEL) {
    const std::uint64_t address = uc.rip - 1;
    const runtime::DetourInfo* const detour = code.detours.around(address);
    const bool is_late = detour != nullptr && runtime::detour_position(*detour, address).is(runtime::kDelivers);
    if (is_late || address == reinterpret_cast<std::uint64_t>(&ubp_trap_deliver)) return ForeignTrap::kPutOff;
  }
  return is_caused(info, uc) ? ForeignTrap::kCaused : ForeignTrap::kSent;
}

// The kernel keeps one SIGTRAP pending: an int3 that is executed then has none of its own. No instruction begins behind
// the first byte of a longer one: the int3 is executed again. (After one of a single byte, it cannot be told.)
[[gnu::always_inline]] inline bool has_swallowed_int3(const runtime::TableView& table, const siginfo_t& info,
                                                      const Context& uc) {
  if (info.si_code == SI_KERNEL || uc.trapno != kBreakpointException) return false;
  const std::uint32_t point = table.find(uc.rip - 1);
  return point != runtime::kNotFound && table.points[point].length > 1;
}

// What becomes of a SIGTRAP that is the application's.
enum class TrapFate : std::uint8_t {
  kIgnored,
  kPending,  // until the application unblocks it, or the consumers have run
  kHandler,
  kDeath,
};

// handler: what the application has set, or SIG_DFL or SIG_IGN. Neither blocking nor ignoring it stops a trap that an
// instruction has caused.
[[gnu::always_inline]] inline TrapFate fate_of(bool is_caused, bool is_blocked, std::uint64_t handler) {
  if (is_blocked) return is_caused ? TrapFate::kDeath : TrapFate::kPending;
  if (is_function(handler)) return TrapFate::kHandler;
  return handler == 0 || is_caused ? TrapFate::kDeath : TrapFate::kIgnored;
}

}  // namespace ubp::trap
