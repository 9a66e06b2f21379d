// The boundary walker, and the lengths that it stands on.
//
// Input: machine code of a function, perhaps with data in it. find_boundary() is asked about every offset and must
// agree with a walk of the test's own; every length must be Zydis' or none, and depend on no byte behind it.
#include <vector>

#include "oracle.h"

namespace ubp::fuzz {
namespace {

using decoder::Instruction;
using decoder::Refusal;
using decoder::Route;

constexpr std::size_t kMostBytes = 256;

// An instruction that Zydis decodes may have no length only where processors disagree, or none has it.
bool may_lack_length(const Decoded& decoded, Refusal refusal) {
  const auto& raw = decoded.instruction;
  switch (refusal) {
    case Refusal::kOperandSizeBranch: return raw.raw.imm[0].is_relative && raw.raw.imm[0].size > 8;
    case Refusal::kUndefined: return raw.mnemonic == ZYDIS_MNEMONIC_UD0;
    case Refusal::kUndecodable:
      return raw.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX || raw.meta.isa_ext == ZYDIS_ISA_EXT_KNC ||
             raw.meta.isa_ext == ZYDIS_ISA_EXT_KNCE || raw.meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
    default: return false;
  }
}

bool same(const Instruction& a, const Instruction& b) {
  return a.length == b.length && a.route == b.route && a.refusal == b.refusal && a.has_target == b.has_target &&
         a.target == b.target && a.rip_disp_offset == b.rip_disp_offset && a.ends_block == b.ends_block &&
         a.is_call == b.is_call;
}

void check_length(std::span<const std::uint8_t> code, const Instruction& instruction) {
  FUZZ_CHECK((instruction.route == Route::kRefused) == (instruction.refusal != Refusal::kNone));
  FUZZ_CHECK(!decoder::refusal_code(instruction.refusal).empty());
  FUZZ_CHECK(!decoder::refusal_message(instruction.refusal).empty());
  FUZZ_CHECK(instruction.length <= code.size() && instruction.length <= decoder::kMaxInstructionBytes);
  const auto decoded = zydis_decode(code);
  if (instruction.length == 0) {
    FUZZ_CHECK(instruction.route == Route::kRefused);
    FUZZ_CHECK(!decoded || may_lack_length(*decoded, instruction.refusal), "%s, refusal %s",
               ZydisMnemonicGetString(decoded->instruction.mnemonic),
               std::string(decoder::refusal_code(instruction.refusal)).c_str());
    return;
  }
  FUZZ_CHECK(decoded && decoded->instruction.length == instruction.length);
  FUZZ_CHECK(same(decoder::classify(code.first(instruction.length)), instruction));
  for (std::size_t cut = 0; cut < instruction.length; ++cut) {
    FUZZ_CHECK(decoder::classify(code.first(cut)).refusal == Refusal::kTruncated, "%zu of %d bytes", cut,
               instruction.length);
  }
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  const std::span<const std::uint8_t> code{bytes, std::min(size, kMostBytes)};
  for_each_instruction(code, check_length);

  constexpr std::uint32_t kNobody = 0xffffffff;
  std::vector<std::uint32_t> start_of(code.size(), kNobody);  // of the instruction that covers a byte
  std::uint32_t end = 0;                                      // where the walk stopped
  std::uint32_t length = 0;
  for (; end < code.size(); end += length) {
    length = ubp::decoder::classify(code.subspan(end)).length;
    if (length == 0) break;
    std::fill_n(start_of.begin() + end, length, end);
  }
  for (std::uint32_t offset = 0; offset < code.size(); ++offset) {
    const auto found = ubp::decoder::find_boundary(code, offset);
    if (offset > end) {
      FUZZ_CHECK(!found, "claims offset %u behind the undecodable byte at %u", offset, end);
      continue;
    }
    FUZZ_CHECK(found);
    const std::uint32_t start = offset == end ? end : start_of[offset];
    FUZZ_CHECK(found->is_boundary == (start == offset) && found->before == start);
    FUZZ_CHECK(found->after == start + ubp::decoder::classify(code.subspan(start)).length);
  }
  FUZZ_CHECK(!ubp::decoder::find_boundary(code, static_cast<std::uint32_t>(code.size())));
  return 0;
}
