// See flags.h.
#include "decoder/flags.h"

#include <algorithm>

#include "decoder/classify.h"

namespace ubp::decoder {

FlagsFate fate_of_flags(const FunctionCode& function, std::uint32_t offset) {
  constexpr int kMost = 32;  // instructions: beyond, nothing is known
  const auto code = function.bytes.first(function.end);
  std::int64_t at = offset;
  for (int looked_at = 0; looked_at < kMost; ++looked_at) {
    if (at < 0 || at >= static_cast<std::int64_t>(code.size())) return FlagsFate::kLeft;
    const auto rest = code.subspan(static_cast<std::size_t>(at));
    const Instruction instruction = classify(rest.first(std::min(rest.size(), kMaxInstructionBytes)));
    if (instruction.length == 0 || instruction.reads_flags) return FlagsFate::kRead;
    if (instruction.writes_flags) return FlagsFate::kWritten;
    const Effect effect = instruction.route == Route::kEmulate ? instruction.op.effect : Effect::kNone;
    if (instruction.is_call || effect == Effect::kReturn) return FlagsFate::kCall;
    const bool is_jump = effect == Effect::kJump;
    if (!is_jump && (instruction.ends_block || instruction.has_target)) return FlagsFate::kLeft;
    at += is_jump ? instruction.target : instruction.length;
  }
  return FlagsFate::kRead;
}

}  // namespace ubp::decoder
