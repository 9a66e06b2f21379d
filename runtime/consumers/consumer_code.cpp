// See consumer_code.h.
#include "runtime/consumers/consumer_code.h"

#include <link.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <unordered_set>
#include <vector>

#include "decoder/classify.h"
#include "runtime/symbols/symbols.h"
#include "xol/slot_image.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

using decoder::Effect;
using decoder::Instruction;
using decoder::Route;

struct Range {
  std::uint64_t begin, end;
};

// The loaded modules: code that is not writable, and words that the loader has made read-only.
struct Modules {
  std::vector<Range> code, constant;

  Modules() { dl_iterate_phdr(&add, this); }
  static int add(dl_phdr_info* info, std::size_t, void* data) {
    auto& modules = *static_cast<Modules*>(data);
    constexpr std::uint64_t kPageBytes = sys::kPageBytes;
    for (const ElfW(Phdr)* header = info->dlpi_phdr; header != info->dlpi_phdr + info->dlpi_phnum; ++header) {
      const std::uint64_t begin = info->dlpi_addr + header->p_vaddr, end = begin + header->p_memsz;
      const bool is_code = header->p_type == PT_LOAD && (header->p_flags & (PF_X | PF_W)) == PF_X;
      if (is_code) modules.code.push_back({begin, end});
      if (header->p_type == PT_GNU_RELRO)
        modules.constant.push_back({begin & ~(kPageBytes - 1), end & ~(kPageBytes - 1)});  // as the loader does
    }
    return 0;
  }
  static const Range* find(const std::vector<Range>& ranges, std::uint64_t address) {
    const auto found = std::find_if(ranges.begin(), ranges.end(), [&](const Range& range) {
      return address - range.begin < range.end - range.begin;
    });
    return found != ranges.end() ? &*found : nullptr;
  }
};

bool is_jump_indirect(const Instruction& instruction) {
  return instruction.route == Route::kSlot && instruction.ends_block;
}
bool is_call_indirect(const Instruction& instruction) {
  return instruction.route == Route::kEmulate && instruction.op.effect == Effect::kCallIndirect;
}

// Where the word is through which an indirect call or jump goes, if that is RIP-relative; else 0.
std::uint64_t word_of(const Instruction& instruction, std::uint64_t address, std::span<const std::uint8_t> code) {
  const std::uint64_t next = address + instruction.length;
  const auto& op = instruction.op;
  if (is_call_indirect(instruction)) {
    const bool is_plain = op.is_memory && op.base == decoder::kRipRegister && op.segment == 0 && !op.narrow_address;
    return is_plain ? next + static_cast<std::uint64_t>(std::int64_t{op.displacement}) : 0;
  }
  constexpr std::uint8_t kBnd = 0xf2, kNotrack = 0x3e, kGroup5 = 0xff;
  const std::size_t prefixes = code[0] == kBnd || code[0] == kNotrack ? 1 : 0;
  if (instruction.rip_disp_offset == 0 || code[prefixes] != kGroup5) return 0;
  const auto displacement = static_cast<std::int32_t>(xol::load32(&code[instruction.rip_disp_offset]));
  return next + static_cast<std::uint64_t>(std::int64_t{displacement});
}

bool walk(const Modules& modules, std::uint64_t function) {
  constexpr std::size_t kMost = 1024;  // instructions
  std::unordered_set<std::uint64_t> seen;
  std::vector<std::uint64_t> left{function};
  while (!left.empty()) {
    std::uint64_t at = left.back();
    left.pop_back();
    while (seen.insert(at).second) {
      const Range* const text = Modules::find(modules.code, at);
      if (text == nullptr || seen.size() > kMost) return false;
      const std::size_t bytes = std::min<std::uint64_t>(text->end - at, decoder::kMaxInstructionBytes);
      const std::span<const std::uint8_t> code{reinterpret_cast<const std::uint8_t*>(at), bytes};
      const Instruction instruction = decoder::classify(code);
      const bool is_known = instruction.route == Route::kSlot || instruction.route == Route::kEmulate;
      if (!is_known || !instruction.is_general) return false;
      if (instruction.has_target) left.push_back(at + static_cast<std::uint64_t>(instruction.target));
      if (is_jump_indirect(instruction) || is_call_indirect(instruction)) {
        const std::uint64_t word = word_of(instruction, at, code);
        if (word == 0 || word % 8 != 0 || Modules::find(modules.constant, word) == nullptr) return false;
        left.push_back(xol::load64(reinterpret_cast<const std::uint8_t*>(word)));
      }
      if (instruction.ends_block) break;
      at += instruction.length;
    }
  }
  return true;
}

}  // namespace

bool is_general_code(ubp_consumer consumer) {
  // One consumer is often registered many times.
  static ubp_consumer last = nullptr;
  static std::uint64_t generation = 0;
  static bool is_general = false;
  const std::uint64_t present = symbols::modules_generation();
  if (consumer == last && present == generation) return is_general;
  last = consumer;
  generation = present;
  is_general = walk(Modules(), reinterpret_cast<std::uint64_t>(consumer));
  return is_general;
}

}  // namespace ubp::runtime
