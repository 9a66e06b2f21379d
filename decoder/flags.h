// Whether the status flags mean anything at a place in a function: where they do not, one `inc` may stand before it.
//
// Context: load time or tests. Thread-safe: no state.
#pragma once

#include <cstdint>

#include "decoder/window.h"

namespace ubp::decoder {

// Whether OF, SF, ZF, AF and PF are all written before anything could read them, on the way from an instruction on, along direct jumps
// of the function. False where that is not seen: behind a call, a return or a jump elsewhere there may be one who reads them, whatever
// the psABI says (3.2.1).
bool has_dead_flags(const FunctionCode& function, std::uint32_t offset);

}  // namespace ubp::decoder
