// What a jump in place of an instruction displaces: the window, whole instructions of at least the jump's length; and
// whether anything branches into it.
//
// Context: load time or tests. Thread-safe: no state but BranchTargets'.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "decoder/instruction.h"

namespace ubp::decoder {

class BranchTargets;

enum class WindowProblem : std::uint8_t {
  kNone,
  kTooShort,     // an unconditional transfer or the function's end comes before the jump's
  kInstruction,  // one of the instructions cannot run elsewhere without a trap
  kTarget,       // a branch leads into it
};

// A function, as far as its windows need to know it.
struct FunctionCode {
  std::span<const std::uint8_t> bytes;  // from its entry up to where something else begins, dead padding included
  std::uint32_t end = 0;                // of them its own
};

// Instructions one behind the other, up to a transfer that is never passed.
struct Straight {
  struct Part {
    std::uint32_t offset;  // from the first one
    Instruction instruction;
  };
  std::vector<Part> parts;
  std::uint32_t length = 0;
  WindowProblem stop = WindowProblem::kNone;  // what came behind the last one; kNone: what leaves by itself, or enough
};

// The instructions from `offset` in the function on that do the same from a detour, `most` at most. Behind `bytes`
// bytes, a call ends them too: its copy would confuse the processor's prediction of returns. Within them, a transfer
// that is never passed may be followed by the nops that align the next instruction.
Straight follow(const FunctionCode& function, std::uint32_t offset, std::size_t most, std::uint32_t bytes);

// Whether a jump of `bytes` bytes fits over them, with padding behind that nothing executes if need be. Does not look
// for branches (BranchTargets).
WindowProblem window_problem(const FunctionCode& function, std::uint32_t offset, const Straight& straight,
                             std::uint32_t bytes);

// Where a jump has room that an instruction has not which is never passed: the last one in [begin, offset), where
// control comes straight from, over code that can all be moved, and that a jump at the function's entry leaves alone.
// Nothing: it has room itself, or there is none.
std::optional<std::uint32_t> approach_of(const FunctionCode& function, BranchTargets& targets, std::uint32_t begin,
                                         std::uint32_t offset);

// Where an unconditional jump in `code`, which is the code before a function, leads behind its first byte, within
// `most` bytes: where the jumps are, if they are instructions at all, and their targets from the function's entry on.
struct JumpInto {
  std::uint32_t at, target;
};
std::vector<JumpInto> jumps_behind_entry(std::span<const std::uint8_t> code, std::uint32_t most);

// Where the direct branches and calls of a function lead in itself. Bytes that may be data count as the branch they
// look like.
class BranchTargets {
 public:
  // from_others: where other functions lead into this one.
  explicit BranchTargets(const FunctionCode& function, std::vector<std::uint32_t> from_others = {})
      : function_(function), from_others_(std::move(from_others)) {}
  // Whether any leads into [begin, end).
  bool lead_into(std::uint32_t begin, std::uint32_t end);

 private:
  const FunctionCode& function_;
  std::vector<std::uint32_t> from_others_;
  std::optional<std::vector<std::uint32_t>> sorted_;  // made when a look at the bytes alone does not answer
};

}  // namespace ubp::decoder
