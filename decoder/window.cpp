// Windows. See window.h.
#include "decoder/window.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "decoder/walk.h"

namespace ubp::decoder {
namespace {

Instruction instruction_at(std::span<const std::uint8_t> code, std::size_t at) {
  return classify(code.subspan(at).first(std::min(code.size() - at, kMaxInstructionBytes)));
}

// Whether the instruction does the same from a detour: copied, or as a jump or a push and a jump.
bool can_move(const Instruction& instruction) {
  if (instruction.route == Route::kSlot) return true;
  return instruction.route == Route::kEmulate && instruction.op.effect != Effect::kCallIndirect;
}

// Whether [begin, end) of the code is what compilers and assemblers fill gaps with.
bool is_padding(std::span<const std::uint8_t> code, std::size_t begin, std::size_t end) {
  while (begin < end && begin < code.size()) {
    const Instruction instruction = instruction_at(code, begin);
    const bool is_nop = instruction.route == Route::kEmulate && instruction.op.effect == Effect::kNone;
    if (instruction.length == 0 || !(is_nop || code[begin] == 0xcc)) return false;
    begin += instruction.length;
  }
  return begin >= end;
}

// Calls visit(offset, target) for all bytes that read as a direct branch or call, at offsets from the function's entry. Those
// with short displacements only where they may reach [begin, end).
template <typename Visit>
void for_each_lookalike(std::span<const std::uint8_t> code, std::uint32_t begin, std::uint32_t end, const Visit& visit) {
  const auto size = static_cast<std::int64_t>(code.size());
  for (std::int64_t at = 0; at + 4 <= size; ++at) {  // the displacement's place; the opcode before it is not looked at
    std::int32_t displacement;
    std::memcpy(&displacement, code.data() + at, sizeof displacement);
    const std::int64_t target = at + 4 + displacement;
    if (target >= begin && target < end) visit(static_cast<std::uint32_t>(at));
  }
  constexpr std::int64_t kShortReach = 130;
  for (std::int64_t at = std::max<std::int64_t>(begin - kShortReach, 0); at + 2 <= size && at < end + kShortReach; ++at) {
    const std::uint8_t opcode = code[static_cast<std::size_t>(at)];
    if ((opcode & 0xf0) != 0x70 && opcode != 0xeb && (opcode & 0xfc) != 0xe0) continue;
    const std::int64_t target = at + 2 + static_cast<std::int8_t>(code[static_cast<std::size_t>(at) + 1]);
    if (target >= begin && target < end) visit(static_cast<std::uint32_t>(at));
  }
}

}  // namespace

Window find_window(const FunctionCode& function, std::uint32_t offset, std::uint32_t bytes) {
  Window window;
  std::uint32_t at = offset;
  while (at - offset < bytes) {
    if (at >= function.end) return window;
    const Instruction instruction = instruction_at(function.bytes.first(function.end), at);
    if (instruction.length == 0 || !can_move(instruction)) {
      window.problem = WindowProblem::kInstruction;
      return window;
    }
    window.parts[window.count++] = {static_cast<std::uint8_t>(at - offset), instruction};
    at += instruction.length;
    if (instruction.ends_block) break;
  }
  window.length = static_cast<std::uint8_t>(at - offset);
  const bool is_covered = window.length >= bytes;
  if (!is_covered && (at < function.end || !is_padding(function.bytes, at, offset + bytes))) return window;
  window.problem = WindowProblem::kNone;
  return window;
}

bool is_branched_into(const FunctionCode& function, std::uint32_t begin, std::uint32_t end) {
  const auto code = function.bytes.first(function.end);
  std::vector<std::uint32_t> lookalikes;
  for_each_lookalike(code, begin, end, [&](std::uint32_t at) { lookalikes.push_back(at); });
  if (lookalikes.empty()) return false;
  const Walk walk = walk_function(code, 0);
  const auto leads_in = [&](const Decoded& decoded) {
    const std::int64_t target = decoded.offset + decoded.instruction.target;
    return decoded.instruction.has_target && target >= begin && target < end;
  };
  if (std::any_of(walk.reached.begin(), walk.reached.end(), leads_in)) return true;
  std::vector<std::uint64_t> references;
  return std::any_of(walk.gaps.begin(), walk.gaps.end(), [&](const Bytes& gap) {
    const auto holds = [&](std::uint32_t at) { return at >= gap.begin && at < gap.end; };
    if (std::none_of(lookalikes.begin(), lookalikes.end(), holds)) return false;
    const std::vector<Decoded> decoded = decode_gap(code, gap, 0, references);
    return decoded.empty() || std::any_of(decoded.begin(), decoded.end(), leads_in);
  });
}

}  // namespace ubp::decoder
