// Address space that becomes memory piece by piece.
//
// Context: normal. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>

namespace ubp::runtime {

// Reserves so many bytes below an address, where the kernel would not put them by itself: above they may be where
// detours want to lie. They cannot be read or written yet, and are in no core dump. Returns where; 0: it is denied.
std::uint64_t reserve_below(std::uint64_t address, std::uint64_t bytes);

}  // namespace ubp::runtime
