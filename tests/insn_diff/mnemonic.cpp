// What particular instructions need so that they do something: counts, targets, selectors, valid images,
// numbers of system calls. Everything else is left as random as it is.
#include <algorithm>
#include <cstring>

#include "tests/insn_diff/case.h"

namespace ubp::insn_diff {
namespace {

constexpr int kRax = 0, kRcx = 1, kRdx = 2, kRbp = 5;

template <class T, std::size_t N>
T pick(const T (&values)[N], Random& random) {
  return values[random.below(N)];
}

// A branch target: nearly always the stub, sometimes nowhere.
std::uint64_t some_target(const Case& c, Random& random) {
  if (!random.chance(32)) return c.target;
  static constexpr std::uint64_t kCanonical = 0x7ffffffff000, kNot = 0x8000000000000000;
  switch (random.below(3)) {
    case 0: return c.world->bus() + 2 * kPage;  // unmapped
    case 1: return c.world->data();             // not executable
    default: return random.chance(2) ? kCanonical + random.below(1u << 20) : kNot + random.next() / 4;
  }
}

bool is_string_operation(const ZydisDecodedInstruction& raw) {
  return raw.meta.category == ZYDIS_CATEGORY_STRINGOP || raw.meta.category == ZYDIS_CATEGORY_IOSTRINGOP;
}

std::uint64_t some_selector(Random& random) {
  static constexpr std::uint64_t kSelectors[] = {0, 1, 3, 0x23, 0x2b, 0x33, 0x7b, 0x63, 0xffff};
  return pick(kSelectors, random) | (random.next() << 16 & 0xffff0000);
}

bool is_segment_register(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER &&
         ZydisRegisterGetClass(operand.reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

}  // namespace

void StateMaker::apply_mnemonic(const Case& c, Random& random, State& out) {
  const ZydisDecodedInstruction& raw = c.decoded.raw;
  const ZydisDecodedOperand* operands = c.decoded.operands;
  const auto set = [&](const ZydisDecodedOperand& operand, std::uint64_t value) {
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) put(c, last_address_, &value, 8, out);
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const int reg = number_of(operand.reg.value);
      if (reg >= 0 && (fixed_ >> reg & 1) == 0) out.gpr[reg] = value;
    }
  };
  const auto push = [&](std::uint64_t value) { put(c, out.gpr[4], &value, 8, out); };
  constexpr auto kRepeats = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  if (is_string_operation(raw)) {
    const bool is_narrow = raw.address_width == 32;
    out.gpr[kRcx] = random.below(random.chance(4) ? 4 : 48) | (is_narrow ? random.next() << 32 : 0);
    if ((raw.attributes & kRepeats) == 0) out.gpr[kRcx] = random.next();
    return;
  }
  if (c.kind.has_target) {  // loops and jrcxz see small counts; jcc sees random flags
    static constexpr std::uint64_t kCounts[] = {0, 1, 2, std::uint64_t{1} << 32, (std::uint64_t{1} << 32) + 1};
    if (!random.chance(4)) out.gpr[kRcx] = pick(kCounts, random);
  }
  switch (raw.mnemonic) {
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_JMP:
      if (!c.kind.has_target) set(operands[0], some_target(c, random));
      break;
    case ZYDIS_MNEMONIC_RET: push(some_target(c, random)); break;
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_INT: {
      static constexpr std::uint64_t kCalls[] = {39, 102, 104, 186, 0x1000, ~std::uint64_t{0}};  // getpid, getuid ...
      static constexpr std::uint64_t kOldCalls[] = {20, 24, 47, 224, 0x1000, ~std::uint64_t{0}};
      out.gpr[kRax] = raw.mnemonic == ZYDIS_MNEMONIC_INT ? pick(kOldCalls, random) : pick(kCalls, random);
      break;
    }
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ: {
      std::uint64_t& rsp = out.gpr[4];
      if (rsp - c.world->stack() < kRwBytes && rsp + 8 > c.world->read_only()) rsp = c.world->read_only() - 8;
      const std::uint64_t rare = random.chance(8) ? 0 : 0x44000;  // NT, AC
      push(random.next() & ~(rare | (random.chance(64) ? 0u : 0x100u)));
      break;
    }
    case ZYDIS_MNEMONIC_ENTER: out.gpr[kRbp] = c.world->stack() + 1024 + random.below(512) * 8; break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
      if (random.chance(8)) break;
      out.gpr[kRdx] = random.below(2);
      if (operands[0].size == 8) out.gpr[kRax] = random.below(512);
      if (raw.mnemonic == ZYDIS_MNEMONIC_IDIV && operands[0].size != 8) out.gpr[kRdx] = 0;
      set(operands[0], random.next() >> random.below(8) | 0x0303030303030303);
      break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
      if (operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY && operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
        set(operands[1], static_cast<std::uint64_t>(random.between(-4096, 4096)));
      }
      break;
    case ZYDIS_MNEMONIC_CPUID: {
      static constexpr std::uint64_t kLeaves[] = {0, 1, 2, 4, 6, 7, 0x40000000, 0x80000000, 0x80000001, 0x80000008};
      out.gpr[kRax] = pick(kLeaves, random);
      out.gpr[kRcx] = random.below(3);
      break;
    }
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_RDPMC: out.gpr[kRcx] = random.below(3); break;
    case ZYDIS_MNEMONIC_WRPKRU:
      out.gpr[kRax] = random.next() & 0xfffffffc;  // key 0 stays open: everything else here uses it
      if (!random.chance(8)) out.gpr[kRcx] = out.gpr[kRdx] = random.next() << 32;
      break;
    case ZYDIS_MNEMONIC_RDPKRU: out.gpr[kRcx] = random.chance(8) ? 1 : random.next() << 32; break;
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE: set(operands[0], random.chance(8) ? random.next() : random.next() >> 18); break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
      if (!random.chance(8)) set(operands[0], random.next() & 0xffff);
      break;
    case ZYDIS_MNEMONIC_LFS:
    case ZYDIS_MNEMONIC_LGS:
    case ZYDIS_MNEMONIC_LDS:
    case ZYDIS_MNEMONIC_LES: {
      const std::uint64_t selector = some_selector(random);
      put(c, last_address_ + (operands[1].size / 8u - 2u), &selector, 2, out);
      break;
    }
    case ZYDIS_MNEMONIC_POP:
      if (is_segment_register(operands[0])) push(some_selector(random));
      break;
    case ZYDIS_MNEMONIC_MOV:
      if (is_segment_register(operands[0])) set(operands[1], some_selector(random));
      break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: {
      if (random.chance(16)) break;
      alignas(64) std::uint8_t image[kXsaveBytes];
      fill_xsave(image, random);
      put(c, last_address_, image, std::min<std::size_t>(machine_.xsave_layout().size, 2560), out);
      break;
    }
    case ZYDIS_MNEMONIC_XLAT: break;
    default: break;
  }
}

}  // namespace ubp::insn_diff
