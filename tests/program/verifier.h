// What may be said of a block's machine code by looking at it alone, without the assembler that made it: that it writes
// to its own frame and calls helpers, touches general registers, ends, and takes no more stack than it was given.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/program/program.h"

namespace ubp::program {

// Why the function that begins at `entry` is not to be run; "": it may be. code: what it lies in, where it lies.
// - Each instruction is one of a list, and names no register but the general ones and the flags.
// - It stores only in its frame, whose size it takes at once and only once: through rbp, which it sets once, or rbx,
//   which is the Run's address in the frame; and to the Run's budget nothing but less by 1, once it is set, and nothing
//   to its chunk. Or in the words of the event that begin_event has just given it, and to the chunk's `used` what makes
//   that an event.
// - It calls helpers only, by an address in the instruction before, and what they are to write lies in the frame to its
//   end, or in the event that was begun for it (verifier_helpers.h). One may be called in place of the block.
// - It jumps to instructions of its own, and on every way round a loop it spends of the budget, or counts down a number
//   of its own that began as a constant.
std::string refusal_of(std::span<const std::uint8_t> code, std::uint64_t entry);

// The same of all blocks of a program.
std::string refusal_of(const Program& program);

}  // namespace ubp::program
