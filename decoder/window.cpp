// Windows. See window.h.
#include "decoder/window.h"

#include <emmintrin.h>

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

// endbr64 does not count as one: something may jump there.
bool is_nop(std::span<const std::uint8_t> code, std::size_t at, const Instruction& instruction) {
  static constexpr std::uint8_t kEndbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  const bool is_endbr = code.size() - at >= 4 && std::equal(std::begin(kEndbr64), std::end(kEndbr64),
                                                            code.begin() + static_cast<std::ptrdiff_t>(at));
  return instruction.route == Route::kEmulate && instruction.op.effect == Effect::kNone && !is_endbr;
}

// Whether [begin, end) of the code is what compilers and assemblers fill gaps with.
bool is_padding(std::span<const std::uint8_t> code, std::size_t begin, std::size_t end) {
  while (begin < end && begin < code.size()) {
    const Instruction instruction = instruction_at(code, begin);
    if (instruction.length == 0 || !(is_nop(code, begin, instruction) || code[begin] == 0xcc)) return false;
    begin += instruction.length;
  }
  return begin >= end;
}

// Calls visit(target) for all bytes of a part of the code that read as the displacement of a direct branch or call with
// a target in [begin, end). The opcode before it is not looked at.
template <typename Visit>
void for_each_near(std::span<const std::uint8_t> code, std::uint32_t begin, std::uint32_t end, ByteRange within,
                   const Visit& visit) {
  for (std::int64_t at = within.begin; at + 4 <= std::int64_t{within.end}; ++at) {
    std::int32_t displacement;
    std::memcpy(&displacement, code.data() + at, sizeof displacement);
    const std::int64_t target = at + 4 + displacement;
    if (target >= begin && target < end) visit(static_cast<std::uint32_t>(target));
  }
}

// The same for branches with short displacements, where they may reach it.
template <typename Visit>
void for_each_short(std::span<const std::uint8_t> code, std::uint32_t begin, std::uint32_t end, ByteRange within,
                    const Visit& visit) {
  constexpr std::int64_t kReach = 130;
  const std::int64_t first = std::max<std::int64_t>(within.begin, std::int64_t{begin} - kReach);
  for (std::int64_t at = first; at + 2 <= std::int64_t{within.end} && at < std::int64_t{end} + kReach; ++at) {
    const std::uint8_t opcode = code[static_cast<std::size_t>(at)];
    if ((opcode & 0xf0) != 0x70 && opcode != 0xeb && (opcode & 0xfc) != 0xe0) continue;
    const std::int64_t target = at + 2 + static_cast<std::int8_t>(code[static_cast<std::size_t>(at) + 1]);
    if (target >= begin && target < end) visit(static_cast<std::uint32_t>(target));
  }
}

// Whether one of these visits any in the whole code. This is asked for every function: 16 displacements are looked at
// together.
bool may_lead_into(std::span<const std::uint8_t> code, std::uint32_t begin, std::uint32_t end) {
  const auto size = static_cast<std::uint32_t>(code.size());
  // target - begin, taken as unsigned, is less than this. SSE2 compares signed numbers: both get their highest bit
  // flipped.
  constexpr std::uint32_t kFlip = 0x80000000;
  const __m128i width = _mm_set1_epi32(static_cast<int>((end - begin) ^ kFlip));
  std::uint32_t at = 0;
  for (; at + 16 + 3 <= size; at += 16) {
    __m128i found = _mm_setzero_si128();
    for (std::uint32_t phase = 0; phase < 4; ++phase) {
      const __m128i displacements = _mm_loadu_si128(reinterpret_cast<const __m128i_u*>(code.data() + at + phase));
      const __m128i next = _mm_set1_epi32(static_cast<int>((at + phase + 4 - begin) ^ kFlip));
      const __m128i targets = _mm_add_epi32(displacements, _mm_add_epi32(next, _mm_setr_epi32(0, 4, 8, 12)));
      found = _mm_or_si128(found, _mm_cmplt_epi32(targets, width));
    }
    if (_mm_movemask_epi8(found) != 0) return true;
  }
  bool may = false;
  const auto note = [&](std::uint32_t) { may = true; };
  for_each_near(code, begin, end, {at, size}, note);
  for_each_short(code, begin, end, {0, size}, note);
  return may;
}

}  // namespace

Straight follow(const FunctionCode& function, std::uint32_t offset, std::size_t most, std::uint32_t bytes) {
  Straight straight;
  bool has_left = false;  // what comes now can only be what aligns something else
  while (straight.parts.size() < most) {
    const std::uint32_t at = offset + straight.length;
    straight.stop = WindowProblem::kTooShort;
    if (at >= function.end) return straight;
    const Instruction instruction = instruction_at(function.bytes.first(function.end), at);
    if (has_left && !is_nop(function.bytes, at, instruction)) return straight;
    straight.stop = WindowProblem::kInstruction;
    if (instruction.length == 0 || !can_move(instruction)) return straight;
    if (instruction.is_call && straight.length >= bytes) return straight;
    straight.parts.push_back({straight.length, instruction});
    straight.length += instruction.length;
    straight.stop = WindowProblem::kNone;
    has_left |= instruction.ends_block;
    // A call returns to the code itself: nobody would execute the copy of what is behind.
    if ((has_left || instruction.is_call) && straight.length >= bytes) return straight;
  }
  return straight;
}

WindowProblem window_problem(const FunctionCode& function, std::uint32_t offset, const Straight& straight,
                             std::uint32_t bytes) {
  if (straight.length >= bytes) return WindowProblem::kNone;
  if (straight.stop == WindowProblem::kInstruction) return straight.stop;
  const std::uint32_t end = offset + straight.length;
  const auto leaves = [](const Straight::Part& part) { return part.instruction.ends_block; };
  const bool is_at_end = end >= function.end && std::any_of(straight.parts.begin(), straight.parts.end(), leaves);
  return is_at_end && is_padding(function.bytes, end, offset + bytes) ? WindowProblem::kNone : WindowProblem::kTooShort;
}

std::optional<std::uint32_t> approach_of(const FunctionCode& function, BranchTargets& targets, std::uint32_t begin,
                                         std::uint32_t offset) {
  constexpr std::uint32_t kFurthest = 64, kEntryBytes = kJumpBytes + kMostPrefixes;
  constexpr std::size_t kMostParts = 12;
  const auto has_room = [&](std::uint32_t at) {
    const Straight straight = follow(function, at, kMostParts, kJumpBytes);
    const bool is_led_to = std::any_of(straight.parts.begin(), straight.parts.end(),
                                       [&](const Straight::Part& part) { return at + part.offset == offset; });
    return is_led_to && window_problem(function, at, straight, kJumpBytes) == WindowProblem::kNone &&
           !targets.lead_into(at + 1, at + kJumpBytes);
  };
  if (begin >= offset || has_room(offset)) return std::nullopt;
  std::vector<std::uint32_t> starts;
  for (std::uint32_t at = begin; at < offset;) {
    if (at >= kEntryBytes) starts.push_back(at);
    const Instruction instruction = instruction_at(function.bytes, at);
    if (instruction.length == 0) return std::nullopt;
    at += instruction.length;
  }
  for (auto at = starts.rbegin(); at != starts.rend() && offset - *at <= kFurthest; ++at) {
    if (has_room(*at)) return *at;
  }
  return std::nullopt;
}

std::vector<JumpInto> jumps_behind_entry(std::span<const std::uint8_t> code, std::uint32_t most) {
  std::vector<JumpInto> found;
  for (std::uint32_t at = 0; at + 2 <= code.size(); ++at) {
    std::int64_t displacement = 0;
    std::uint32_t length = 2;
    if (code[at] == 0xeb) {
      displacement += static_cast<std::int8_t>(code[at + 1]);
    } else if (code[at] == 0xe9 && at + 5 <= code.size()) {
      std::int32_t wide = 0;
      std::memcpy(&wide, code.data() + at + 1, sizeof wide);
      displacement = wide;
      length = 5;
    } else {
      continue;
    }
    const std::int64_t target = std::int64_t{at} + length + displacement - static_cast<std::int64_t>(code.size());
    if (target > 0 && target < most) found.push_back({at, static_cast<std::uint32_t>(target)});
  }
  return found;
}

bool BranchTargets::lead_into(std::uint32_t begin, std::uint32_t end) {
  const auto is_within = [&](std::uint32_t target) { return target >= begin && target < end; };
  if (std::any_of(from_others_.begin(), from_others_.end(), is_within)) return true;
  const auto code = function_.bytes.first(function_.end);
  if (!sorted_) {
    if (!may_lead_into(code, begin, end)) return false;
    std::vector<std::uint32_t>& targets = sorted_.emplace();
    const auto add = [&](const Decoded& decoded) {
      const std::int64_t target = decoded.offset + decoded.instruction.target;
      if (decoded.instruction.has_target && target >= 0 && target < function_.end)
        targets.push_back(static_cast<std::uint32_t>(target));
    };
    const Walk walk = walk_function(code, 0);
    std::for_each(walk.reached.begin(), walk.reached.end(), add);
    std::vector<std::uint64_t> references;
    for (const ByteRange& gap : walk.gaps) {
      const std::vector<Decoded> decoded = decode_gap(code, gap, 0, references);
      std::for_each(decoded.begin(), decoded.end(), add);
      if (!decoded.empty()) continue;
      const auto add_target = [&](std::uint32_t target) { targets.push_back(target); };
      for_each_near(code, 0, function_.end, gap, add_target);
      for_each_short(code, 0, function_.end, gap, add_target);
    }
    std::sort(targets.begin(), targets.end());
  }
  const auto found = std::lower_bound(sorted_->begin(), sorted_->end(), begin);
  return found != sorted_->end() && *found < end;
}

}  // namespace ubp::decoder
