// See flags.h.
#include "decoder/flags.h"

#include <algorithm>
#include <array>

#include "decoder/classify.h"

namespace ubp::decoder {

bool has_dead_flags(const FunctionCode& function, std::uint32_t offset, const CodeElsewhere& elsewhere) {
  constexpr int kMost = 32;  // instructions
  const auto own = function.bytes.first(function.end);
  std::array<std::uint8_t, kMaxInstructionBytes> copy;
  std::int64_t at = offset;
  for (int looked_at = 0; looked_at < kMost; ++looked_at) {
    const bool is_own = at >= 0 && at < static_cast<std::int64_t>(own.size());
    const auto rest = is_own ? own.subspan(static_cast<std::size_t>(at)) : std::span(copy).first(elsewhere(at, copy));
    const Instruction instruction = classify(rest.first(std::min(rest.size(), kMaxInstructionBytes)));
    if (instruction.length == 0 || instruction.reads_flags) return false;
    if (instruction.writes_flags) return true;
    const Effect effect = instruction.route == Route::kEmulate ? instruction.op.effect : Effect::kNone;
    const bool goes_there = effect == Effect::kJump || effect == Effect::kCall;
    if (!goes_there && (instruction.ends_block || instruction.has_target || instruction.is_call)) return false;
    at += goes_there ? instruction.target : instruction.length;
  }
  return false;
}

}  // namespace ubp::decoder
