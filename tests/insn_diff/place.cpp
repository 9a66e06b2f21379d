// Where a case stands: world, text address, slot, and the displacements that its bytes must hold there.
#include <algorithm>
#include <cstring>

#include "tests/insn_diff/case.h"

namespace ubp::insn_diff {
namespace {

constexpr std::size_t kCleared = 160;  // bytes around an instruction that write_code may touch

// An address held by the bytes: RIP-relative, absolute disp32, moffs.
enum class Held : std::uint8_t { kNone, kRip, kAbsolute };

Held held_address(const Decoded& decoded) {
  for (std::uint8_t i = 0; i < decoded.raw.operand_count; ++i) {
    const ZydisDecodedOperand& operand = decoded.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
    if (operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_EIP) return Held::kRip;
    if (operand.mem.base == ZYDIS_REGISTER_NONE && operand.mem.index == ZYDIS_REGISTER_NONE) return Held::kAbsolute;
  }
  return Held::kNone;
}

bool uses_segment_base(const Decoded& decoded) {
  return (decoded.raw.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS)) != 0;
}

bool needs_low_world(const Decoded& decoded, Held held) {
  if (decoded.raw.address_width == 32) return true;
  if (uses_segment_base(decoded)) return false;
  if (held == Held::kAbsolute && decoded.raw.raw.disp.size < 64) return true;
  for (std::uint8_t i = 0; i < decoded.raw.operand_count; ++i) {
    const ZydisDecodedOperand& operand = decoded.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB &&
        operand.mem.base == ZYDIS_REGISTER_NONE) {
      return true;
    }
  }
  return false;
}

const ZydisDecodedOperand* memory_operand(const Decoded& decoded) {
  for (std::uint8_t i = 0; i < decoded.raw.operand_count; ++i) {
    if (decoded.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) return &decoded.operands[i];
  }
  return nullptr;
}

// Results that differ from run to run, and the known limits of single steps (TF): popf that sets TF, what the
// kernel emulates under UMIP and system calls trap one instruction later, and in a slot that is the jump
// back; what the trap path emulates returns to the next instruction, which then runs before the trap.
void mark_peculiarities(Case& c) {
  c.steps_late = c.kind.route != decoder::Route::kSlot;
  constexpr std::uint32_t kRax = 1, kRcx = 2, kRdx = 4;
  switch (c.decoded.raw.mnemonic) {
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_RDPRU: c.ignored_gpr = kRax | kRdx; break;
    case ZYDIS_MNEMONIC_RDTSCP: c.ignored_gpr = kRax | kRdx | kRcx; break;
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
      c.ignored_gpr = 1u << number_of(c.decoded.operands[0].reg.value);
      c.ignore_flags = true;
      break;
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_WBINVD:
    case ZYDIS_MNEMONIC_XSETBV: c.is_slow = true; break;
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_STR: c.steps_late = true; break;
    default: break;
  }
}

// Direct branches: a displacement that leads to a stub of its own.
bool place_branch(Case& c, Random& random) {
  const auto& immediate = c.decoded.raw.raw.imm[0];
  if (immediate.size == 8) {
    const std::int64_t forward = random.between(std::int64_t{kStubBytes}, 112);
    const std::int64_t backward = random.between(-128, -std::int64_t{c.length()} - std::int64_t{kStubBytes});
    const auto displacement = static_cast<std::int8_t>(random.chance(2) ? forward : backward);
    std::memcpy(c.code.data() + immediate.offset, &displacement, 1);
    c.target = c.next() + static_cast<std::uint64_t>(std::int64_t{displacement});
    c.target_in_text = true;
    return true;
  }
  if (immediate.size != 32) return false;
  const auto displacement = static_cast<std::int32_t>(c.target - c.next());
  std::memcpy(c.code.data() + immediate.offset, &displacement, 4);
  return true;
}

}  // namespace

std::uint64_t choose_address(const World& world, std::size_t bytes, Random& random) {
  bytes = std::clamp<std::size_t>(bytes, 1, 2560);
  const std::uint64_t data = world.data();
  const std::uint64_t room = kDataBytes - 1024 - bytes;
  switch (random.below(64)) {
    case 0: return world.read_only() - random.below(bytes + 1);  // into the read-only page
    case 1: return world.read_only() + random.below(kPage);
    case 2: return world.bus() - random.below(bytes + 1) + random.below(8);  // into the page beyond end of file
    case 3: return world.bus() + kPage + random.below(2 * kPage);            // unmapped
    case 4: return random.next() | 0x0100000000000000;                       // mostly not canonical
    case 5:
    case 6: return data + kPage - random.below(bytes + 1);  // across two pages
    case 7:
    case 8:
    case 9:
    case 10:
    case 11: return data + 512 + random.below(room);  // misaligned
    default: return data + 512 + (random.below(room) & ~std::uint64_t{63});
  }
}

bool make_case(Machine& machine, const Encoding& encoding, Random& random, Case& out) {
  out = Case{};
  out.code = mutate(encoding.samples[random.below(encoding.samples.size())], random);
  auto decoded = decode({out.code.data(), out.code.size()});
  if (!decoded) return false;
  const Held held = held_address(*decoded);
  out.decoded = *decoded;
  const bool is_low = needs_low_world(*decoded, held) || random.chance(4);
  out.world = &machine.world(is_low);
  const World& world = *out.world;

  out.address = world.text() + (random.chance(8) ? 2 * kPage - random.below(16)  // across two pages
                                                 : kPage + random.below(2 * kPage));
  const int region = random.chance(2) ? 1 : 0;
  const std::uint64_t slot_offset = random.below(kSlotRegionBytes / xol::kSlotBytes) * xol::kSlotBytes;
  out.slot = world.slots(region) + slot_offset;
  out.slot_rw = world.slots_rw[region] + slot_offset;
  out.target = world.targets() + random.below(kTargetBytes - 64);

  const bool is_branch = decoded->raw.raw.imm[0].is_relative;
  if (is_branch && !place_branch(out, random)) return false;
  if (held != Held::kNone) {
    const ZydisDecodedOperand* operand = memory_operand(*decoded);
    out.fixed_address = choose_address(world, operand->size / 8u, random);
    if (out.fixed_address >> 63 != 0 || out.fixed_address >> 48 != 0) out.fixed_address = world.bus() + kPage + 8;
    const auto& field = decoded->raw.raw.disp;
    if (uses_segment_base(*decoded)) {
      // The segment's base makes up for whatever the field says.
      const auto value = static_cast<std::int32_t>(random.between(-4096, 4096));
      const std::int64_t wide = value;
      std::memcpy(out.code.data() + field.offset, &wide, field.size / 8u);
    } else {
      const std::uint64_t value = held == Held::kRip ? out.fixed_address - out.next() : out.fixed_address;
      std::memcpy(out.code.data() + field.offset, &value, field.size / 8u);
    }
  }
  decoded = decode({out.code.data(), out.code.size()});
  if (!decoded || decoded->raw.length != out.length()) return false;
  out.decoded = *decoded;
  out.kind = decoder::classify({out.code.data(), out.length()});
  mark_peculiarities(out);
  return true;
}

void write_code(Machine& machine, const Case& c) {
  const World& world = *c.world;
  std::uint8_t* text = world.text_rw + (c.address - world.text());
  std::memcpy(text, c.code.data(), c.length());
  write_stub(text + c.length(), machine.pad(false));
  std::uint8_t* at = world.targets_rw + (c.target - world.targets());
  if (c.target_in_text) at = world.text_rw + (c.target - world.text());
  write_stub(at, machine.pad(true));
}

void clear_code(const Case& c) {
  const World& world = *c.world;
  std::memset(world.text_rw + (c.address - world.text()) - kCleared, 0xcc, 2 * kCleared);
  if (!c.target_in_text) std::memset(world.targets_rw + (c.target - world.targets()), 0xcc, kStubBytes);
  std::memset(c.slot_rw, 0xcc, xol::kSlotBytes);
}

}  // namespace ubp::insn_diff
