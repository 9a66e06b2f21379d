// See exits.h.
#include "decoder/exits.h"

#include <algorithm>

namespace ubp::decoder {
namespace {

bool is_indirect_jump(const Instruction& instruction) {
  return instruction.route != Route::kRefused && instruction.ends_block && !instruction.has_target &&
         !instruction.is_call && instruction.op.effect != Effect::kReturn;
}

// True: it is no exit, or one that was added. False: it leaves in a way that is not known.
bool add_exit(const Decoded& decoded, std::span<const std::uint8_t> code, std::uint64_t address,
              std::vector<Exit>& exits) {
  const Instruction& instruction = decoded.instruction;
  Exit exit{Exit::Kind::kReturn, Exit::kAlways, decoded.offset, instruction};
  if (instruction.op.effect == Effect::kReturn) {
    exits.push_back(exit);
    return true;
  }
  if (is_indirect_jump(instruction)) {
    const auto operand = operand_of_jump(code.subspan(decoded.offset, instruction.length));
    if (!operand) return false;
    exit.kind = Exit::Kind::kIndirect;
    exit.operand = *operand;
    exits.push_back(exit);
    return true;
  }
  if (instruction.refusal == Refusal::kFarTransfer || instruction.refusal == Refusal::kSysenter ||
      instruction.refusal == Refusal::kOperandSizeBranch)
    return false;
  if (!instruction.has_target || instruction.is_call) return true;
  const std::int64_t target = std::int64_t{decoded.offset} + instruction.target;
  if (target >= 0 && static_cast<std::uint64_t>(target) < code.size()) return true;
  const Effect effect = instruction.op.effect;
  if (effect != Effect::kJump && effect != Effect::kJumpIf) return false;  // loop, jrcxz, xbegin
  exit.kind = Exit::Kind::kJump;
  if (effect == Effect::kJumpIf) exit.condition = instruction.op.condition;
  exit.target = address + static_cast<std::uint64_t>(target);
  exits.push_back(exit);
  return true;
}

// all, exits: by offset.
void find_runs(std::span<const Decoded> all, std::vector<Exit>& exits) {
  auto decoded = all.begin();
  std::uint32_t begin = 0, next = 0;  // of the run so far, and behind it
  for (Exit& exit : exits) {
    for (; decoded->offset < exit.offset; ++decoded) {
      const Instruction& instruction = decoded->instruction;
      if (decoded->offset != next) begin = decoded->offset;
      next = decoded->offset + instruction.length;
      if (instruction.is_call || instruction.ends_block || instruction.route == Route::kRefused) begin = next;
    }
    exit.run = exit.offset == next ? begin : exit.offset;
    begin = exit.offset + exit.instruction.length;
  }
}

}  // namespace

std::optional<EmulateOp> operand_of_jump(std::span<const std::uint8_t> code) {
  // It is the operand of the call that differs from it in one digit of the opcode: FF /4, FF /2.
  std::uint8_t bytes[kMaxInstructionBytes];
  if (code.size() > sizeof bytes) return std::nullopt;
  std::copy(code.begin(), code.end(), bytes);
  const auto opcode = std::find(bytes, bytes + code.size(), 0xff);  // no prefix is 0xff
  if (opcode + 1 >= bytes + code.size() || (opcode[1] >> 3 & 7) != 4) return std::nullopt;
  constexpr std::uint8_t kJumpToCall = (4 ^ 2) << 3;
  opcode[1] ^= kJumpToCall;
  const Instruction call = classify({bytes, code.size()});
  if (call.op.effect != Effect::kCallIndirect || call.length != code.size()) return std::nullopt;
  return call.op;
}

std::optional<std::vector<Exit>> find_exits(std::span<const std::uint8_t> code, std::uint64_t address, bool has_end) {
  Walk walk = walk_function(code, address);
  if (walk.reached.empty()) return std::nullopt;
  if (!has_end) {
    const Decoded& last = walk.reached.back();
    const std::uint32_t end = last.offset + last.instruction.length;
    if (!walk.gaps.empty() && walk.gaps.back().begin >= end) walk.gaps.pop_back();
    if (!walk.gaps.empty()) return std::nullopt;
    code = code.first(end);
  }
  std::vector<Decoded> all = std::move(walk.reached);
  std::vector<std::uint64_t> references = std::move(walk.references);
  for (const ByteRange& gap : walk.gaps) {
    const std::vector<Decoded> decoded = decode_gap(code, gap, address, references);
    if (decoded.empty()) return std::nullopt;
    all.insert(all.end(), decoded.begin(), decoded.end());
  }
  for (const ByteRange& gap : walk.gaps) {
    const std::uint64_t begin = address + gap.begin, end = address + gap.end;
    if (std::any_of(references.begin(), references.end(),
                    [&](std::uint64_t named) { return named >= begin && named < end; }))
      return std::nullopt;
  }
  std::vector<Exit> exits;
  for (const Decoded& decoded : all) {
    if (!add_exit(decoded, code, address, exits)) return std::nullopt;
  }
  const auto before = [](const auto& a, const auto& b) { return a.offset < b.offset; };
  std::sort(all.begin(), all.end(), before);
  std::sort(exits.begin(), exits.end(), before);
  find_runs(all, exits);
  return exits;
}

}  // namespace ubp::decoder
