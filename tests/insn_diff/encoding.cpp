// Keys of encodings, and the variation of an instruction within its encoding.
#include "tests/insn_diff/encoding.h"

#include <algorithm>
#include <cstring>

namespace ubp::insn_diff {
namespace {

ZydisDecoder make_decoder() {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  return decoder;
}

const ZydisDecoder kDecoder = make_decoder();

bool opcode_holds_register(const ZydisDecodedInstruction& raw) {
  if (raw.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;
  const std::uint8_t opcode = raw.opcode;
  if (raw.opcode_map == ZYDIS_OPCODE_MAP_0F) return (opcode & 0xf8) == 0xc8;
  if (raw.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) return false;
  return (opcode & 0xf0) == 0x50 || (opcode & 0xf0) == 0xb0 || (opcode & 0xf8) == 0x90;
}

std::uint64_t prefix_bits(const ZydisDecodedInstruction& raw) {
  std::uint64_t bits = 0;
  for (std::uint8_t i = 0; i < raw.raw.prefix_count; ++i) {
    std::uint64_t bit = 0;
    switch (raw.raw.prefixes[i].value) {
      case 0x66: bit = 1; break;
      case 0x67: bit = 2; break;
      case 0xf2: bit = 4; break;
      case 0xf3: bit = 8; break;
      case 0xf0: bit = 16; break;
      case 0x64: bit = 32; break;
      case 0x65: bit = 64; break;
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e: bit = 128; break;
      default: break;  // REX
    }
    if ((bits & bit) != 0) bits |= 256;  // repeated
    bits |= bit;
  }
  return bits;
}

std::uint64_t memory_form(const ZydisDecodedInstruction& raw) {
  if ((raw.attributes & ZYDIS_ATTRIB_HAS_MODRM) == 0) return 0;
  const auto& modrm = raw.raw.modrm;
  if (modrm.mod == 3) return 1;
  if (modrm.mod == 0 && modrm.rm == 5) return 2;  // RIP-relative
  std::uint64_t form = 4 + modrm.mod;
  if (modrm.rm == 4) {
    form |= 8;
    if (raw.raw.sib.index != 4) form |= 16;
    if (modrm.mod == 0 && raw.raw.sib.base == 5) form |= 32;
  }
  return form;
}

void randomize(Code& code, std::uint8_t offset, std::uint8_t bits, Random& random) {
  const std::uint64_t value = random.chance(4) ? random.below(16) : random.next();
  std::memcpy(code.data() + offset, &value, std::min<std::size_t>(bits / 8u, 8));
}

// One attempt: some register fields, every immediate and displacement.
void vary(Code& code, const ZydisDecodedInstruction& raw, Random& random) {
  const std::uint64_t bits = random.next();
  const bool has_modrm = (raw.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  const auto replace = [&](std::uint8_t at, std::uint8_t mask, std::uint64_t value) {
    code[at] = static_cast<std::uint8_t>((code[at] & ~mask) | (value & mask));
  };
  if (has_modrm && (bits & 1) != 0) replace(raw.raw.modrm.offset, 0x38, bits >> 8);
  if (has_modrm && (bits & 2) != 0) replace(raw.raw.modrm.offset, 0x07, bits >> 16);
  if ((raw.attributes & ZYDIS_ATTRIB_HAS_SIB) != 0 && (bits & 4) != 0) {
    code[raw.raw.sib.offset] = static_cast<std::uint8_t>(bits >> 24);
  }
  if (opcode_holds_register(raw) && (bits & 8) != 0) {
    for (std::size_t at = 0; at < raw.length; ++at) {
      if (code[at] == raw.opcode) {
        replace(static_cast<std::uint8_t>(at), 0x07, bits >> 32);
        break;
      }
    }
  }
  if ((bits & 16) != 0) {
    switch (raw.encoding) {
      case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        if ((raw.attributes & ZYDIS_ATTRIB_HAS_REX) != 0) replace(raw.raw.rex.offset, 0x07, bits >> 36);
        break;
      case ZYDIS_INSTRUCTION_ENCODING_VEX: {
        const bool is_short = raw.raw.vex.size == 2;
        replace(static_cast<std::uint8_t>(raw.raw.vex.offset + 1), is_short ? 0xf8 : 0xe0, bits >> 40);
        if (!is_short) replace(static_cast<std::uint8_t>(raw.raw.vex.offset + 2), 0x78, bits >> 48);
        break;
      }
      case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        replace(static_cast<std::uint8_t>(raw.raw.evex.offset + 1), 0xf0, bits >> 40);
        replace(static_cast<std::uint8_t>(raw.raw.evex.offset + 2), 0x78, bits >> 48);
        replace(static_cast<std::uint8_t>(raw.raw.evex.offset + 3), 0x0f, bits >> 52);
        break;
      default: break;
    }
  }
  for (const auto& immediate : raw.raw.imm) {
    if (immediate.size != 0 && !immediate.is_relative) randomize(code, immediate.offset, immediate.size, random);
  }
  if (raw.raw.disp.size != 0) {
    randomize(code, raw.raw.disp.offset, raw.raw.disp.size, random);
    if (raw.raw.disp.size == 32 && (bits & 0x300000000000) != 0) {  // usually near, so that the stack stays in reach
      const auto near = static_cast<std::int32_t>(random.between(-512, 512));
      std::memcpy(code.data() + raw.raw.disp.offset, &near, 4);
    }
  }
}

}  // namespace

std::optional<Decoded> decode(std::span<const std::uint8_t> code) {
  Decoded result;
  if (ZYAN_FAILED(ZydisDecoderDecodeFull(&kDecoder, code.data(), code.size(), &result.raw, result.operands))) {
    return std::nullopt;
  }
  return result;
}

std::uint64_t encoding_key(const ZydisDecodedInstruction& raw) {
  const auto opcode = static_cast<std::uint64_t>(opcode_holds_register(raw) ? raw.opcode & 0xf8 : raw.opcode);
  std::uint64_t key = opcode | std::uint64_t{raw.opcode_map} << 8 | std::uint64_t{raw.encoding} << 13 |
                      static_cast<std::uint64_t>(raw.mnemonic) << 16 | memory_form(raw) << 32 | prefix_bits(raw) << 40 |
                      std::uint64_t{raw.address_width == 32} << 50;
  std::uint64_t extra = 0;
  switch (raw.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
      extra = raw.raw.rex.W;
      if (raw.raw.modrm.mod == 3 && raw.opcode_map == ZYDIS_OPCODE_MAP_0F && raw.opcode == 0x01) {
        extra |= std::uint64_t{raw.raw.modrm.reg} << 8 | std::uint64_t{raw.raw.modrm.rm} << 12;
      }
      break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      extra = raw.raw.vex.W | std::uint64_t{raw.raw.vex.L} << 1 | std::uint64_t{raw.raw.vex.pp} << 2 |
              std::uint64_t{raw.raw.vex.size} << 4;
      break;
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
      extra = raw.raw.xop.W | std::uint64_t{raw.raw.xop.L} << 1 | std::uint64_t{raw.raw.xop.pp} << 2;
      break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
      extra = raw.raw.evex.W | std::uint64_t{raw.raw.evex.L} << 1 | std::uint64_t{raw.raw.evex.L2} << 2 |
              std::uint64_t{raw.raw.evex.pp} << 3 | std::uint64_t{raw.raw.evex.z} << 5 |
              std::uint64_t{raw.raw.evex.b} << 6 | std::uint64_t{raw.raw.evex.aaa != 0} << 7;
      break;
    default: break;
  }
  return mix(key) ^ mix(extra + 0x1234567);
}

Code mutate(const Code& base, Random& random) {
  const auto original = decode({base.data(), base.size()});
  if (!original) return base;
  const std::uint64_t key = encoding_key(original->raw);
  const decoder::Instruction kind = decoder::classify({base.data(), base.size()});
  for (int attempt = 0; attempt < 6; ++attempt) {
    Code code = base;
    vary(code, original->raw, random);
    const auto varied = decode({code.data(), code.size()});
    if (!varied || varied->raw.length != original->raw.length || encoding_key(varied->raw) != key) continue;
    const decoder::Instruction now = decoder::classify({code.data(), code.size()});
    if (now.route == kind.route && now.refusal == kind.refusal) return code;
  }
  return base;
}

}  // namespace ubp::insn_diff
