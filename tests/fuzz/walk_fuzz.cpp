// The walk through a function, and the gaps that it leaves.
//
// Input: machine code of a function, perhaps with data in it. What is reached must be reached for a reason, be what
// classify() says, and stand beside gaps that cover exactly the rest.
#include <set>
#include <vector>

#include "decoder/walk.h"
#include "oracle.h"

namespace ubp::fuzz {
namespace {

constexpr std::size_t kMostBytes = 1024;
constexpr std::uint64_t kAddress = 0x7f1234567000;

bool same(const decoder::Instruction& a, const decoder::Instruction& b) {
  return a.length == b.length && a.route == b.route && a.refusal == b.refusal && a.target == b.target &&
         a.ends_block == b.ends_block && a.is_call == b.is_call;
}

// The entry, what falls through and what a direct branch leads to, found by repeating until nothing is new.
std::set<std::uint32_t> reference_reach(std::span<const std::uint8_t> code) {
  std::set<std::uint32_t> reached, pending{0};
  while (!pending.empty()) {
    const std::uint32_t at = *pending.begin();
    pending.erase(pending.begin());
    if (at >= code.size() || reached.contains(at)) continue;
    const decoder::Instruction instruction = decoder::classify(code.subspan(at));
    if (instruction.length == 0) continue;
    reached.insert(at);
    if (!instruction.ends_block) pending.insert(at + instruction.length);
    const std::int64_t target = std::int64_t{at} + instruction.target;
    const bool inside = target >= 0 && target < static_cast<std::int64_t>(code.size());
    if (instruction.has_target && !instruction.is_call && inside) pending.insert(static_cast<std::uint32_t>(target));
  }
  return reached;
}

// The addresses that an instruction names RIP-relatively, by Zydis. Those of refused ones and of nops are not asked
// for.
void add_references(std::span<const std::uint8_t> code, const decoder::Decoded& at,
                    std::multiset<std::uint64_t>& references) {
  const auto& [offset, instruction] = at;
  const bool is_nop = instruction.route == decoder::Route::kEmulate && !instruction.op.is_memory;
  if (is_nop || instruction.route == decoder::Route::kRefused) return;
  const auto original = zydis_decode(code.subspan(offset));
  FUZZ_CHECK(original);
  for (const ZydisDecodedOperand& operand : original->all_operands()) {
    if (!is_rip_based(operand)) continue;
    references.insert(kAddress + offset + original->instruction.length +
                      static_cast<std::uint64_t>(operand.mem.disp.value));
  }
}

void check_gap(std::span<const std::uint8_t> code, decoder::ByteRange gap) {
  std::vector<std::uint64_t> references;
  std::multiset<std::uint64_t> expected;
  const auto decoded = decoder::decode_gap(code, gap, kAddress, references);
  std::uint32_t at = gap.begin;
  for (const decoder::Decoded& one : decoded) {
    const auto& [offset, instruction] = one;
    FUZZ_CHECK(offset == at && instruction.length != 0 && same(instruction, decoder::classify(code.subspan(offset))));
    add_references(code, one, expected);
    at += instruction.length;
  }
  FUZZ_CHECK(decoded.empty() || at == gap.end, "decoded to %u of [%u, %u)", at, gap.begin, gap.end);
  for (const std::uint64_t reference : references) FUZZ_CHECK(decoded.empty() || expected.contains(reference));
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  const std::span<const std::uint8_t> code{bytes, std::min(size, kMostBytes)};
  const ubp::decoder::Walk walk = ubp::decoder::walk_function(code, kAddress);

  const std::set<std::uint32_t> expected = reference_reach(code);
  std::vector<bool> covered(code.size(), false);
  std::multiset<std::uint64_t> references;
  auto next = expected.begin();
  for (const ubp::decoder::Decoded& one : walk.reached) {
    const auto& [offset, instruction] = one;
    FUZZ_CHECK(next != expected.end() && *next == offset, "offset %u", offset);
    ++next;
    FUZZ_CHECK(same(instruction, ubp::decoder::classify(code.subspan(offset))));
    std::fill_n(covered.begin() + offset, instruction.length, true);
    add_references(code, one, references);
  }
  FUZZ_CHECK(next == expected.end());
  FUZZ_CHECK(std::multiset<std::uint64_t>(walk.references.begin(), walk.references.end()) == references);

  std::uint32_t end = 0;
  for (const ubp::decoder::ByteRange gap : walk.gaps) {
    FUZZ_CHECK(gap.begin >= end && gap.begin < gap.end && gap.end <= code.size());
    for (; end < gap.begin; ++end) FUZZ_CHECK(covered[end]);
    for (; end < gap.end; ++end) FUZZ_CHECK(!covered[end], "byte %u is code and in a gap", end);
    check_gap(code, gap);
  }
  for (; end < code.size(); ++end) FUZZ_CHECK(covered[end]);
  return 0;
}
