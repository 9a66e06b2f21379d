// What a jump in place of an instruction displaces: the window, whole instructions of at least the jump's length.
//
// Pure data and pure functions. Context: load time or tests. Thread-safe: yes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "decoder/instruction.h"

namespace ubp::decoder {

inline constexpr std::uint32_t kJumpBytes = 5;     // jmp rel32
inline constexpr std::uint32_t kMostPrefixes = 2;  // redundant ones in front of it
inline constexpr std::uint32_t kMostWindow = kJumpBytes + kMostPrefixes - 1 + kMaxInstructionBytes;

enum class WindowProblem : std::uint8_t {
  kNone,
  kTooShort,     // an unconditional transfer or the function's end comes before the jump's
  kInstruction,  // one of the instructions cannot run elsewhere without a trap
  kTarget,       // a branch leads into it
};

struct Window {
  struct Part {
    std::uint8_t offset = 0;  // from the window's start
    Instruction instruction;
  };
  std::array<Part, kJumpBytes + kMostPrefixes> parts;
  std::uint8_t count = 0;   // of parts
  std::uint8_t length = 0;  // of the instructions; the jump may also cover dead padding behind them
  WindowProblem problem = WindowProblem::kTooShort;
};

// A function, as far as its windows need to know it.
struct FunctionCode {
  std::span<const std::uint8_t> bytes;  // from its entry up to where something else begins, dead padding included
  std::uint32_t end = 0;                // of them its own
};

// The window of `bytes` bytes, the jump's length, at `offset` in the function. Crosses no unconditional transfer and no
// function's end, but for padding that nothing executes. Does not look for branches into it (is_branched_into).
Window find_window(const FunctionCode& function, std::uint32_t offset, std::uint32_t bytes);

// Whether a direct branch or call anywhere in the function leads into its bytes [begin, end). Bytes that may be data count
// as the branch they look like.
bool is_branched_into(const FunctionCode& function, std::uint32_t begin, std::uint32_t end);

}  // namespace ubp::decoder
