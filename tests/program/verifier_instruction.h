// One instruction as Zydis sees it, and what it does to registers.
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <optional>

namespace ubp::program {

struct Instruction {
  ZydisDecodedInstruction its;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  std::uint64_t address, next;
  std::optional<std::uint64_t> target;  // of a branch
  bool falls_through = true;
};

inline bool is_general(ZydisRegister reg) {
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
    case ZYDIS_REGCLASS_FLAGS:
    case ZYDIS_REGCLASS_IP: return true;
    default: return reg == ZYDIS_REGISTER_NONE;
  }
}

inline ZydisRegister whole(ZydisRegister reg) {
  return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
}

inline bool writes(const ZydisDecodedOperand& operand) {
  return (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
}
inline bool writes(const Instruction& instruction, ZydisRegister reg) {
  for (int i = 0; i < instruction.its.operand_count; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && writes(operand) && whole(operand.reg.value) == reg) return true;
  }
  return false;
}
inline bool is_register(const ZydisDecodedOperand& operand, ZydisRegister reg) {
  return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value == reg;
}
inline bool is_immediate(const ZydisDecodedOperand& operand, std::uint64_t value) {
  return operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand.imm.value.u == value;
}

}  // namespace ubp::program
