// The second opinion on code: Zydis with operands, which the decoder itself never asks for. Also the one place where
// the fuzz targets build a xol::Displaced from bytes.
#pragma once

#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>

#include "decoder/classify.h"
#include "fuzz.h"
#include "xol/displaced.h"

namespace ubp::fuzz {

struct Decoded {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];

  std::span<const ZydisDecodedOperand> all_operands() const { return {operands, instruction.operand_count}; }
};

// The instruction at the start of `code`, as the decoder's own settings read it (no MPX).
inline std::optional<Decoded> zydis_decode(std::span<const std::uint8_t> code) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  Decoded decoded{};
  if (ZYAN_FAILED(ZydisDecoderDecodeFull(&decoder, code.data(), code.size(), &decoded.instruction, decoded.operands))) {
    return std::nullopt;
  }
  return decoded;
}

inline bool is_rip_based(const ZydisDecodedOperand& operand) {
  return operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
         (operand.mem.base == ZYDIS_REGISTER_RIP || operand.mem.base == ZYDIS_REGISTER_EIP);
}

inline bool is_relative(const ZydisDecodedOperand& operand) {
  return is_rip_based(operand) || (operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand.imm.is_relative);
}

// The absolute address that a relative operand names when the instruction runs at `address`.
inline std::uint64_t absolute(const Decoded& decoded, const ZydisDecodedOperand& operand, std::uint64_t address) {
  ZyanU64 target = 0;
  FUZZ_CHECK(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&decoded.instruction, &operand, address, &target)));
  return target;
}

// "48 8b 05 ..." for messages.
inline std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    char digits[4];
    std::snprintf(digits, sizeof digits, "%02x ", byte);
    text += digits;
  }
  return text;
}

// The probepoint that arming would make of `code` at `address`. instruction: what classify() said of it, not refused.
inline xol::Displaced make_displaced(std::uint64_t address, std::span<const std::uint8_t> code,
                                     const decoder::Instruction& instruction) {
  return xol::Displaced(address, instruction, code.data());
}

// Calls visit(code from an instruction on, what classify() says of it) for one instruction after the other; behind
// bytes without a length it goes on one byte later.
template <typename Visit>
void for_each_instruction(std::span<const std::uint8_t> code, Visit visit) {
  constexpr std::size_t kMostBytes = 4096;
  code = code.first(std::min(code.size(), kMostBytes));
  while (!code.empty()) {
    const decoder::Instruction instruction = decoder::classify(code);
    visit(code, instruction);
    code = code.subspan(std::max<std::size_t>(instruction.length, 1));
  }
}

}  // namespace ubp::fuzz
