// The application's view of signals: which libc functions UBP stands in front of, and what it keeps for them.
#pragma once

#include <cstdint>

namespace ubp::signals {

// Takes SIGTRAP for the runtime and puts ubp_signal_entry in front of every handler the application has installed
// so far; from here on the interposed functions do the same for later ones.
// Call before the first int3 is armed, with all other threads held; idempotent. Returns false when the kernel refuses
// the SIGTRAP handler, or another copy of UBP has it. Context: normal. Async-signal-safe: no. Thread-safe: no.
bool take_over();

// Puts ubp_signal_entry in front of the default of those of these signals that have it (trap/death.h), or gives them
// back to the kernel. Context: any. Async-signal-safe: yes.
void set_guards(bool (*are)(std::uint64_t signal), bool guards);

// Whether another copy of UBP has SIGTRAP: its handler carries the mark (trap/layout.h), and is not this one's.
bool is_taken_by_another();

// Whether it has happened: SIGTRAP is never blocked from then on. Async-signal-safe: yes.
bool has_taken_over();

}  // namespace ubp::signals
