// Following control through a function. See walk.h.
#include "decoder/walk.h"

#include <algorithm>
#include <cstring>

namespace ubp::decoder {
namespace {

// The address that an instruction names through RIP, when it has such an operand.
void add_reference(const Decoded& decoded, std::span<const std::uint8_t> code, std::uint64_t address,
                   std::vector<std::uint64_t>& references) {
  const Instruction& instruction = decoded.instruction;
  const std::uint64_t next = address + decoded.offset + instruction.length;
  if (instruction.rip_disp_offset != 0) {
    std::int32_t displacement;
    std::memcpy(&displacement, code.data() + decoded.offset + instruction.rip_disp_offset, sizeof displacement);
    if (!instruction.has_target) references.push_back(next + static_cast<std::uint64_t>(std::int64_t{displacement}));
  } else if (instruction.op.is_memory && instruction.op.base == kRipRegister) {
    references.push_back(next + static_cast<std::uint64_t>(std::int64_t{instruction.op.displacement}));
  }
}

// Instructions that compilers do not put between others: a gap that holds one is taken for data.
bool is_unlikely(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
    case Refusal::kBreakpoint:  // padding
    case Refusal::kUndefined:   // __builtin_trap, unreachable
      return false;
    default: return true;
  }
}

}  // namespace

Walk walk_function(std::span<const std::uint8_t> code, std::uint64_t address) {
  Walk walk;
  std::vector<bool> seen(code.size(), false);
  std::vector<std::uint32_t> pending = {0};
  while (!pending.empty()) {
    std::uint32_t at = pending.back();
    pending.pop_back();
    while (at < code.size() && !seen[at]) {
      const Instruction instruction = classify(code.subspan(at).first(std::min<std::size_t>(code.size() - at, 15)));
      if (instruction.length == 0) break;
      seen[at] = true;
      const Decoded& decoded = walk.reached.emplace_back(Decoded{at, instruction});
      add_reference(decoded, code, address, walk.references);
      if (instruction.has_target && !instruction.is_call) {
        const std::int64_t target = std::int64_t{at} + instruction.target;
        if (target >= 0 && static_cast<std::uint64_t>(target) < code.size()) {
          pending.push_back(static_cast<std::uint32_t>(target));
        }
      }
      if (instruction.ends_block) break;
      at += instruction.length;
    }
  }
  std::sort(walk.reached.begin(), walk.reached.end(),
            [](const Decoded& a, const Decoded& b) { return a.offset < b.offset; });
  std::uint32_t covered = 0;
  for (const Decoded& decoded : walk.reached) {
    if (decoded.offset > covered) walk.gaps.push_back({covered, decoded.offset});
    covered = std::max(covered, decoded.offset + decoded.instruction.length);
  }
  if (covered < code.size()) walk.gaps.push_back({covered, static_cast<std::uint32_t>(code.size())});
  return walk;
}

std::vector<Decoded> decode_gap(std::span<const std::uint8_t> code, ByteRange gap, std::uint64_t address,
                                std::vector<std::uint64_t>& references) {
  std::vector<Decoded> decoded;
  std::uint32_t at = gap.begin;
  while (at < gap.end) {
    const Instruction instruction = classify(code.subspan(at, std::min<std::size_t>(gap.end - at, 15)));
    const bool zeros = code[at] == 0 && at + 1 < gap.end && code[at + 1] == 0;  // add %al, (%rax): a table
    if (instruction.length == 0 || zeros || is_unlikely(instruction.refusal)) return {};
    add_reference(decoded.emplace_back(Decoded{at, instruction}), code, address, references);
    at += instruction.length;
  }
  if (at != gap.end) return {};
  return decoded;
}

}  // namespace ubp::decoder
