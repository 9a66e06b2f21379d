// The emulator: whatever classify() calls emulated does what Zydis says the instruction does.
//
// Input: machine code. Every emulated instruction of it is compared with Zydis' operands, and then carried out on
// registers that follow from the input.
#include <array>

#include "oracle.h"
#include "xol/emulate.h"

namespace ubp::fuzz {
namespace {

using decoder::Effect;
using decoder::EmulateOp;
using decoder::Instruction;

constexpr std::uint8_t kRsp = 4, kRcx = 1;

// General-register number of a 32- or 64-bit register; kNoRegister, kRipRegister.
std::uint8_t number_of(ZydisRegister reg) {
  if (reg == ZYDIS_REGISTER_NONE) return decoder::kNoRegister;
  if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP) return decoder::kRipRegister;
  const ZydisRegisterClass kind = ZydisRegisterGetClass(reg);
  FUZZ_CHECK(kind == ZYDIS_REGCLASS_GPR64 || kind == ZYDIS_REGCLASS_GPR32);
  return static_cast<std::uint8_t>(ZydisRegisterGetId(reg));
}

// The effect that a mnemonic has; jcc: the condition, in the order of the opcodes.
Effect effect_of(ZydisMnemonic mnemonic, bool is_direct, int& condition) {
  static constexpr ZydisMnemonic kConditions[16] = {
      ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB,  ZYDIS_MNEMONIC_JNB,
      ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
      ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP,  ZYDIS_MNEMONIC_JNP,
      ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE};
  for (condition = 0; condition < 16; ++condition) {
    if (mnemonic == kConditions[condition]) return Effect::kJumpIf;
  }
  condition = 0;
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64: return Effect::kNone;
    case ZYDIS_MNEMONIC_PUSH: return Effect::kPush;
    case ZYDIS_MNEMONIC_JMP: return Effect::kJump;
    case ZYDIS_MNEMONIC_LOOP: return Effect::kLoop;
    case ZYDIS_MNEMONIC_LOOPE: return Effect::kLoopEqual;
    case ZYDIS_MNEMONIC_LOOPNE: return Effect::kLoopNotEqual;
    case ZYDIS_MNEMONIC_JRCXZ:
    case ZYDIS_MNEMONIC_JECXZ: return Effect::kJumpRcxZero;
    case ZYDIS_MNEMONIC_CALL: return is_direct ? Effect::kCall : Effect::kCallIndirect;
    case ZYDIS_MNEMONIC_RET: return Effect::kReturn;
    default: FUZZ_CHECK(false, "%s is emulated", ZydisMnemonicGetString(mnemonic));
  }
  return Effect::kNone;
}

// The thread before the instruction.
struct Thread {
  std::array<std::uint64_t, 16> gpr;
  xol::Registers registers;
  ZydisRegisterContext zydis{};
  std::array<std::uint64_t, 4> stack;  // what rsp points to

  explicit Thread(Numbers& numbers) {
    for (std::uint64_t& value : gpr) value = numbers.next();
    for (std::uint64_t& value : stack) value = numbers.next();
    gpr[kRsp] = reinterpret_cast<std::uint64_t>(stack.data());
    if (numbers.below(2) == 0) gpr[kRcx] = numbers.below(3) | (numbers.below(2) << 32);
    registers.rflags = numbers.next();
    for (std::size_t i = 0; i < 16; ++i) {
      registers.gpr[i] = &gpr[i];
      zydis.values[ZYDIS_REGISTER_RAX + i] = gpr[i];
      zydis.values[ZYDIS_REGISTER_EAX + i] = static_cast<std::uint32_t>(gpr[i]);
    }
  }

  // Calls and returns to other addresses fault, as they should (tests/xol, tests/insn_diff).
  void make_canonical() {
    for (std::uint64_t& value : gpr) value = canonical(value);
    for (std::uint64_t& value : stack) value = canonical(value);
  }
  static std::uint64_t canonical(std::uint64_t value) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << 16) >> 16);
  }
};

// Flags as Intel's manual words the conditions (volume 2, Jcc).
bool is_taken(ZydisMnemonic mnemonic, std::uint64_t flags) {
  const bool cf = (flags >> 0 & 1) != 0, pf = (flags >> 2 & 1) != 0, zf = (flags >> 6 & 1) != 0;
  const bool sf = (flags >> 7 & 1) != 0, of = (flags >> 11 & 1) != 0;
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_JO: return of;
    case ZYDIS_MNEMONIC_JNO: return !of;
    case ZYDIS_MNEMONIC_JB: return cf;
    case ZYDIS_MNEMONIC_JNB: return !cf;
    case ZYDIS_MNEMONIC_JZ: return zf;
    case ZYDIS_MNEMONIC_JNZ: return !zf;
    case ZYDIS_MNEMONIC_JBE: return cf || zf;
    case ZYDIS_MNEMONIC_JNBE: return !cf && !zf;
    case ZYDIS_MNEMONIC_JS: return sf;
    case ZYDIS_MNEMONIC_JNS: return !sf;
    case ZYDIS_MNEMONIC_JP: return pf;
    case ZYDIS_MNEMONIC_JNP: return !pf;
    case ZYDIS_MNEMONIC_JL: return sf != of;
    case ZYDIS_MNEMONIC_JNL: return sf == of;
    case ZYDIS_MNEMONIC_JLE: return zf || sf != of;
    default: return !zf && sf == of;
  }
}

void check_memory(const Decoded& original, const EmulateOp& op, Numbers& numbers, std::uint64_t address) {
  const ZydisDecodedOperand& operand = original.operands[0];
  FUZZ_CHECK(op.base == number_of(operand.mem.base) && op.index == number_of(operand.mem.index));
  FUZZ_CHECK(op.index == decoder::kNoRegister || 1 << op.scale == operand.mem.scale);
  FUZZ_CHECK(op.narrow_address == (original.instruction.address_width == 32));
  FUZZ_CHECK(op.displacement == operand.mem.disp.value);
  const ZydisRegister segment = operand.mem.segment;
  FUZZ_CHECK(op.segment == (segment == ZYDIS_REGISTER_FS ? 1 : segment == ZYDIS_REGISTER_GS ? 2 : 0));
  const Thread thread(numbers);
  ZyanU64 expected = 0;
  FUZZ_CHECK(
      ZYAN_SUCCESS(ZydisCalcAbsoluteAddressEx(&original.instruction, &operand, address, &thread.zydis, &expected)));
  const std::uint64_t got = xol::effective_address(op, thread.registers, address + original.instruction.length);
  FUZZ_CHECK(got == expected, "%#lx, but Zydis says %#lx", got, expected);
}

// What the instruction does to a thread, in the manual's words.
void check_outcome(const Decoded& original, const xol::Displaced& point, const Instruction& instruction,
                   Numbers& numbers, std::uint64_t address) {
  Thread thread(numbers);
  thread.make_canonical();
  const xol::Outcome out = xol::emulate(point, thread.registers);
  const std::uint64_t next = address + original.instruction.length;
  const ZydisDecodedOperand& operand = original.operands[0];
  const std::uint64_t target = instruction.has_target ? absolute(original, operand, address) : 0;
  const std::uint64_t rsp = thread.gpr[kRsp];
  std::uint64_t rip = next, rsp_after = rsp, rcx = thread.gpr[kRcx], pushed = 0;
  bool pushes = false;
  const bool zf = (thread.registers.rflags & 0x40) != 0;
  const bool counts_32 = original.instruction.address_width == 32;
  switch (instruction.op.effect) {
    case Effect::kNone: break;
    case Effect::kPush:
      pushes = true;
      pushed = thread.gpr[number_of(operand.reg.value)];
      break;
    case Effect::kJump: rip = target; break;
    case Effect::kJumpIf:
      if (is_taken(original.instruction.mnemonic, thread.registers.rflags)) rip = target;
      break;
    case Effect::kLoop:
    case Effect::kLoopEqual:
    case Effect::kLoopNotEqual: {
      rcx = counts_32 ? static_cast<std::uint32_t>(rcx - 1) : rcx - 1;
      const ZydisMnemonic mnemonic = original.instruction.mnemonic;
      if (rcx != 0 && (mnemonic == ZYDIS_MNEMONIC_LOOP || zf == (mnemonic == ZYDIS_MNEMONIC_LOOPE))) rip = target;
      break;
    }
    case Effect::kJumpRcxZero:
      if ((counts_32 ? static_cast<std::uint32_t>(rcx) : rcx) == 0) rip = target;
      break;
    case Effect::kCall:
    case Effect::kCallIndirect:
      pushes = true;
      pushed = next;
      rip = instruction.has_target ? target : thread.gpr[number_of(operand.reg.value)];
      break;
    case Effect::kReturn:
      rip = thread.stack[0];
      rsp_after = rsp + 8;
      if (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) rsp_after += operand.imm.value.u;
      break;
  }
  if (pushes) rsp_after = rsp - 8;
  FUZZ_CHECK(out.rip == rip, "rip %#lx, expected %#lx", out.rip, rip);
  FUZZ_CHECK(out.rsp == rsp_after && out.rcx == rcx && out.stores == pushes);
  FUZZ_CHECK(!pushes || (out.store_address == rsp_after && out.store_value == pushed));
}

void check_emulated(Numbers& numbers, std::span<const std::uint8_t> code, const Instruction& instruction) {
  const auto original = zydis_decode(code);
  FUZZ_CHECK(original && original->instruction.length == instruction.length);
  const ZydisMnemonic mnemonic = original->instruction.mnemonic;
  const std::uint64_t address = numbers.between(std::uint64_t{1} << 33, (std::uint64_t{1} << 47) - 16);
  const ZydisDecodedOperand& operand = original->operands[0];
  const bool is_direct = original->instruction.operand_count != 0 && operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
                         operand.imm.is_relative;
  int condition = 0;
  const Effect effect = effect_of(mnemonic, is_direct, condition);
  FUZZ_CHECK(instruction.op.effect == effect, "%s has effect %d", ZydisMnemonicGetString(mnemonic),
             static_cast<int>(instruction.op.effect));
  FUZZ_CHECK(effect != Effect::kJumpIf || instruction.op.condition == condition);
  FUZZ_CHECK(instruction.has_target == is_direct);
  FUZZ_CHECK(!is_direct ||
             address + static_cast<std::uint64_t>(instruction.target) == absolute(*original, operand, address));
  FUZZ_CHECK(instruction.is_call == (mnemonic == ZYDIS_MNEMONIC_CALL));
  FUZZ_CHECK(instruction.ends_block == (mnemonic == ZYDIS_MNEMONIC_JMP || mnemonic == ZYDIS_MNEMONIC_RET));
  FUZZ_CHECK(effect != Effect::kPush || operand.type == ZYDIS_OPERAND_TYPE_REGISTER);
  FUZZ_CHECK(effect != Effect::kPush || operand.size == 64);
  if (effect == Effect::kCallIndirect && operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
    FUZZ_CHECK(instruction.op.is_memory && operand.size == 64);
    for (int i = 0; i < 4; ++i) check_memory(*original, instruction.op, numbers, address);
    return;  // carrying it out would read an address that nobody mapped
  }
  FUZZ_CHECK(!instruction.op.is_memory);
  const xol::Displaced point = make_displaced(address, code, instruction);
  for (int i = 0; i < 4; ++i) check_outcome(*original, point, instruction, numbers, address);
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  Numbers numbers(bytes, size);
  for_each_instruction({bytes, size}, [&](auto code, const Instruction& instruction) {
    if (instruction.route == ubp::decoder::Route::kEmulate) check_emulated(numbers, code, instruction);
  });
  return 0;
}
