// See flags.h.
#include "decoder/flags.h"

#include <algorithm>

#include "decoder/classify.h"

namespace ubp::decoder {

bool has_dead_flags(const FunctionCode& function, std::uint32_t offset) {
  constexpr int kMost = 32;  // instructions
  const auto code = function.bytes.first(function.end);
  std::int64_t at = offset;
  for (int looked_at = 0; looked_at < kMost; ++looked_at) {
    if (at < 0 || at >= static_cast<std::int64_t>(code.size())) return false;
    const auto rest = code.subspan(static_cast<std::size_t>(at));
    const Instruction instruction = classify(rest.first(std::min(rest.size(), kMaxInstructionBytes)));
    if (instruction.length == 0 || instruction.reads_flags) return false;
    if (instruction.writes_flags) return true;
    const Effect effect = instruction.route == Route::kEmulate ? instruction.op.effect : Effect::kNone;
    if (instruction.is_call || effect == Effect::kReturn) return false;
    const bool is_jump = effect == Effect::kJump;
    if (!is_jump && (instruction.ends_block || instruction.has_target)) return false;
    at += is_jump ? instruction.target : instruction.length;
  }
  return false;
}

}  // namespace ubp::decoder
