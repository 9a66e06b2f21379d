// Where a function is left: its returns, and the jumps out of it. Found in the whole of its code (walk.h); if some of
// that may be no code, nothing is said.
//
// Context: load time or tests. Pure but for the vectors it returns. Thread-safe: yes.
// Source: Intel SDM volume 2 (RET, JMP, Jcc; 2.1.3, ModR/M).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "decoder/walk.h"

namespace ubp::decoder {

struct Exit {
  enum class Kind : std::uint8_t {
    kReturn,
    kJump,      // to a known place outside; `condition` says when
    kIndirect,  // to where `operand` says, which may be in the function
  };
  static constexpr std::uint8_t kAlways = 0xff;

  Kind kind = Kind::kReturn;
  std::uint8_t condition = kAlways;  // kJump: the low nibble of a jcc's opcode
  std::uint32_t offset = 0;          // from the function's entry
  Instruction instruction{};
  std::uint32_t run = 0;     // where the instructions begin that lead straight here, and are neither calls nor exits
  std::uint64_t target = 0;  // kJump: in the terms of find_exits()'s address
  // kIndirect: `base` alone where the register is the target; else the memory that holds it (is_memory).
  EmulateOp operand{};
};

// code: the function's bytes, all of them, and address: where they run. has_end: a table says where the function ends;
// else what lies behind its last instruction is not its. Returns its exits, by offset; none at all are of a function
// that never returns. Nothing: some bytes may be data, or an instruction leaves in a way that is not known (a far
// return, a loop instruction out of the function).
std::optional<std::vector<Exit>> find_exits(std::span<const std::uint8_t> code, std::uint64_t address, bool has_end);

// Where an instruction jumps to through a register or memory; nothing: it is none that does.
std::optional<EmulateOp> operand_of_jump(std::span<const std::uint8_t> code);

}  // namespace ubp::decoder
