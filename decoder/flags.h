// Whether the status flags mean anything at a place in a function: where they do not, one `inc` may stand before it.
//
// Context: load time or tests. Thread-safe: no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "decoder/window.h"

namespace ubp::decoder {

// Code of the same module outside a function: copies what lies `offset` bytes from the function's entry, as it is
// without any probe, and returns how much that is; 0: nothing is known there.
using CodeElsewhere =
    std::function<std::size_t(std::int64_t offset, std::span<std::uint8_t, kMaxInstructionBytes> into)>;

// Whether OF, SF, ZF, AF and PF are all written before anything could read them, on the way from an instruction on,
// along direct jumps and into direct calls. False where that is not seen: behind a return or a jump or call that
// computes its target there may be one who reads them, whatever the psABI says (3.2.1).
bool has_dead_flags(const FunctionCode& function, std::uint32_t offset, const CodeElsewhere& elsewhere);

}  // namespace ubp::decoder
