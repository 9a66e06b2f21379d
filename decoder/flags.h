// Whether the status flags mean anything at a place in a function: where they do not, one `inc` may stand before it.
//
// Context: load time or tests. Thread-safe: no state.
#pragma once

#include <cstdint>

#include "decoder/window.h"

namespace ubp::decoder {

// What becomes of OF, SF, ZF, AF and PF on the way from an instruction on, along direct jumps.
enum class FlagsFate : std::uint8_t {
  kRead,      // or the instructions say nothing of it
  kWritten,   // before anything reads them
  kCall,      // a call or return is reached first: no function promises its caller or its callee any (psABI, 3.2.1)
  kLeft,      // a jump out of the function is, or one that depends on something else
};

FlagsFate fate_of_flags(const FunctionCode& function, std::uint32_t offset);

}  // namespace ubp::decoder
