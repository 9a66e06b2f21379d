// Decoding and classification: the only translation unit that includes Zydis.
//
// classify() asks Zydis for the instruction's shape (length, opcode, ModRM, offsets; not its operands, which
// nobody needs), then decides from the opcode, as the manuals' opcode maps do. Load time only; no state.
//
// Zydis decodes for every CPU there ever was. Where that differs from the machines UBP runs on:
// - MPX mode is off: Linux removed MPX in 5.6 and AMD never had it, so 0f 1a and 0f 1b are nops whatever
//   their operands. They go to a slot all the same, where a CPU that still has MPX executes them.
// - Knights Corner encodings (MVEX, KNC) raise #UD on every x86-64 CPU with Linux: undecodable.
// - Near branches with 0x66: Intel ignores the prefix, AMD cuts the target and a rel32 to 16 bits; refused.
//   REX.W beats 0x66 on both, and compilers emit 66 66 48 e8 to call __tls_get_addr: an ordinary call.
// - f3 41 90 is pause for Zydis and `xchg r8,rax` for AMD: a slot serves both.
#include "decoder/classify.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <array>

namespace ubp::decoder {
namespace {

constexpr std::uint8_t kStackSegmentNumber = 2;

void refuse(Instruction& out, Refusal refusal) {
  out.route = Route::kRefused;
  out.refusal = refusal;
}

void emulate(Instruction& out, Effect effect) {
  out.route = Route::kEmulate;
  out.op.effect = effect;
}

bool has_operand_size_prefix(const ZydisDecodedInstruction& raw) {
  return std::any_of(raw.raw.prefixes, raw.raw.prefixes + raw.raw.prefix_count,
                     [](const auto& prefix) { return prefix.value == 0x66; });
}

// AMD executes loope and loopne behind f3 as loope, behind f2 as loopne.
bool has_repeat_prefix(const ZydisDecodedInstruction& raw) {
  return std::any_of(raw.raw.prefixes, raw.raw.prefixes + raw.raw.prefix_count,
                     [](const auto& prefix) { return prefix.value == 0xf2 || prefix.value == 0xf3; });
}

// Legacy encodings only: `rex` shares its storage with the VEX and EVEX fields.
bool vendors_disagree(const ZydisDecodedInstruction& raw) { return raw.raw.rex.W == 0 && has_operand_size_prefix(raw); }

// mov to and from control registers ignores `mod`, but never gets here: it is privileged.
bool is_rip_relative(const ZydisDecodedInstruction& raw) { return raw.raw.modrm.mod == 0 && raw.raw.modrm.rm == 5; }

// The sets of instructions that know general registers and memory alone. What is in no list here counts as one that may
// touch more.
bool is_general(const ZydisDecodedInstruction& raw) {
  switch (raw.meta.isa_set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_CET:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_RDTSCP: return true;
    default: return false;
  }
}

bool is_knights_corner(const ZydisDecodedInstruction& raw) {
  return raw.meta.isa_ext == ZYDIS_ISA_EXT_KNC || raw.meta.isa_ext == ZYDIS_ISA_EXT_KNCE ||
         raw.meta.isa_ext == ZYDIS_ISA_EXT_KNCV;
}

// Zydis 4.0 marks most of them; the list holds those that depend on IOPL, on a hypervisor, or that it forgot.
bool is_privileged(const ZydisDecodedInstruction& raw) {
  if ((raw.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) != 0) return true;
  switch (raw.mnemonic) {
    case ZYDIS_MNEMONIC_IN:
    case ZYDIS_MNEMONIC_INSB:
    case ZYDIS_MNEMONIC_INSW:
    case ZYDIS_MNEMONIC_INSD:
    case ZYDIS_MNEMONIC_OUT:
    case ZYDIS_MNEMONIC_OUTSB:
    case ZYDIS_MNEMONIC_OUTSW:
    case ZYDIS_MNEMONIC_OUTSD:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_LGDT:
    case ZYDIS_MNEMONIC_RSM:
    case ZYDIS_MNEMONIC_CLGI:
    case ZYDIS_MNEMONIC_STGI:
    case ZYDIS_MNEMONIC_SKINIT:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
    case ZYDIS_MNEMONIC_VMRUN:
    case ZYDIS_MNEMONIC_VMLOAD:
    case ZYDIS_MNEMONIC_VMSAVE:
    case ZYDIS_MNEMONIC_GETSEC:
    case ZYDIS_MNEMONIC_ENCLV:
    case ZYDIS_MNEMONIC_ENQCMDS: return true;
    default: return false;
  }
}

// Everything that runs unchanged from another address, but for a RIP-relative displacement.
void classify_plain(const ZydisDecodedInstruction& raw, Instruction& out) {
  if (is_privileged(raw)) return refuse(out, Refusal::kPrivileged);
  out.route = Route::kSlot;
  if (!is_rip_relative(raw)) return;
  if (raw.address_width == 32) return refuse(out, Refusal::kNarrowRip);
  out.rip_disp_offset = raw.raw.disp.offset;
}

// jmp, jcc, call, loop and jrcxz with a relative target. With 0x66 a rel8 keeps its length on every CPU.
void classify_relative(const ZydisDecodedInstruction& raw, Effect effect, Instruction& out) {
  const auto displacement = static_cast<std::int32_t>(raw.raw.imm[0].value.s);
  const bool refused = vendors_disagree(raw);
  if (refused && raw.raw.imm[0].size > 8) {
    out.length = 0;
    return refuse(out, Refusal::kOperandSizeBranch);
  }
  out.has_target = true;
  out.target = std::int64_t{out.length} + displacement;
  const bool repeats = (effect == Effect::kLoopEqual || effect == Effect::kLoopNotEqual) && has_repeat_prefix(raw);
  if (refused || repeats) return refuse(out, Refusal::kOperandSizeBranch);
  emulate(out, effect);
  out.op.displacement = displacement;
  if (effect == Effect::kJumpIf) out.op.condition = raw.opcode & 0xf;
  const bool counts = effect >= Effect::kLoop && effect <= Effect::kJumpRcxZero;
  out.op.narrow_address = counts && raw.address_width == 32;
}

void fill_memory_operand(const ZydisDecodedInstruction& raw, EmulateOp& op) {
  const auto& modrm = raw.raw.modrm;
  const auto& sib = raw.raw.sib;
  const auto& rex = raw.raw.rex;
  op.is_memory = true;
  op.narrow_address = raw.address_width == 32;
  op.displacement = static_cast<std::int32_t>(raw.raw.disp.value);
  if ((raw.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS) != 0) op.segment = 1;
  if ((raw.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS) != 0) op.segment = 2;
  if (is_rip_relative(raw)) {
    op.base = kRipRegister;
  } else if (modrm.rm != 4) {
    op.base = static_cast<std::uint8_t>(modrm.rm | rex.B << 3);
  } else {
    const auto index = static_cast<std::uint8_t>(sib.index | rex.X << 3);
    if (modrm.mod != 0 || sib.base != 5) op.base = static_cast<std::uint8_t>(sib.base | rex.B << 3);
    if (index != 4) {
      op.index = index;
      op.scale = sib.scale;
    }
  }
}

void classify_return(const ZydisDecodedInstruction& raw, Instruction& out) {
  out.ends_block = true;
  if (vendors_disagree(raw)) return refuse(out, Refusal::kOperandSizeBranch);
  emulate(out, Effect::kReturn);
  out.op.displacement = static_cast<std::int32_t>(raw.raw.imm[0].value.u);
}

void classify_push(const ZydisDecodedInstruction& raw, Instruction& out) {
  if (has_operand_size_prefix(raw)) return classify_plain(raw, out);
  emulate(out, Effect::kPush);
  out.op.base = static_cast<std::uint8_t>((raw.opcode & 7) | raw.raw.rex.B << 3);
}

// xbegin's rel32 is relocated like a RIP-relative displacement; with 0x66 it is a rel16.
void classify_xbegin(const ZydisDecodedInstruction& raw, Instruction& out) {
  out.has_target = true;
  out.target = out.length + raw.raw.imm[0].value.s;
  if (has_operand_size_prefix(raw)) return refuse(out, Refusal::kOperandSizeBranch);
  out.route = Route::kSlot;
  out.rip_disp_offset = raw.raw.imm[0].offset;
}

// A system call behind more prefixes than its record has room for (xol/displaced.h): nobody writes that.
void classify_system(Instruction& out) {
  if (out.length > 8) return refuse(out, Refusal::kUndecodable);
  out.route = Route::kSystem;
}

void classify_int(const ZydisDecodedInstruction& raw, Instruction& out) {
  switch (raw.raw.imm[0].value.u) {
    case 0x03: out.ends_block = true; return refuse(out, Refusal::kBreakpoint);
    case 0x80: return classify_system(out);
    default: return refuse(out, Refusal::kInterrupt);
  }
}

// Opcode ff: inc, dec, call, jmp, push by the reg field of ModRM.
void classify_group5(const ZydisDecodedInstruction& raw, Instruction& out) {
  const std::uint8_t reg = raw.raw.modrm.reg;
  out.is_call = reg == 2;
  out.ends_block = reg == 4 || reg == 5;
  switch (reg) {
    case 2:
      if (vendors_disagree(raw)) return refuse(out, Refusal::kOperandSizeBranch);
      emulate(out, Effect::kCallIndirect);
      if (raw.raw.modrm.mod != 3) return fill_memory_operand(raw, out.op);
      out.op.base = static_cast<std::uint8_t>(raw.raw.modrm.rm | raw.raw.rex.B << 3);
      return;
    case 4:
      if (vendors_disagree(raw)) return refuse(out, Refusal::kOperandSizeBranch);
      return classify_plain(raw, out);
    case 3:
    case 5: return refuse(out, Refusal::kFarTransfer);
    default: return classify_plain(raw, out);
  }
}

void classify_one_byte_map(const ZydisDecodedInstruction& raw, Instruction& out) {
  if ((raw.opcode & 0xf8) == 0x50) return classify_push(raw, out);
  if ((raw.opcode & 0xf0) == 0x70) return classify_relative(raw, Effect::kJumpIf, out);
  switch (raw.opcode) {
    case 0x8e:
      if (raw.raw.modrm.reg == kStackSegmentNumber) return refuse(out, Refusal::kStackSegment);
      break;
    case 0x90:
      if (raw.mnemonic == ZYDIS_MNEMONIC_NOP) return emulate(out, Effect::kNone);
      break;
    case 0xc2:
    case 0xc3: return classify_return(raw, out);
    case 0xc7:
      if (raw.mnemonic == ZYDIS_MNEMONIC_XBEGIN) return classify_xbegin(raw, out);
      break;
    case 0xca:
    case 0xcb:
    case 0xcf: out.ends_block = true; return refuse(out, Refusal::kFarTransfer);
    case 0xcc:
    case 0xf1: out.ends_block = true; return refuse(out, Refusal::kBreakpoint);
    case 0xcd: return classify_int(raw, out);
    case 0xe0: return classify_relative(raw, Effect::kLoopNotEqual, out);
    case 0xe1: return classify_relative(raw, Effect::kLoopEqual, out);
    case 0xe2: return classify_relative(raw, Effect::kLoop, out);
    case 0xe3: return classify_relative(raw, Effect::kJumpRcxZero, out);
    case 0xe8: out.is_call = true; return classify_relative(raw, Effect::kCall, out);
    case 0xe9:
    case 0xeb: out.ends_block = true; return classify_relative(raw, Effect::kJump, out);
    case 0xf4: out.ends_block = true; break;
    case 0xff: return classify_group5(raw, out);
    default: break;
  }
  classify_plain(raw, out);
}

void classify_two_byte_map(const ZydisDecodedInstruction& raw, Instruction& out) {
  if ((raw.opcode & 0xf0) == 0x80) return classify_relative(raw, Effect::kJumpIf, out);
  switch (raw.opcode) {
    case 0x01:
      if (raw.mnemonic == ZYDIS_MNEMONIC_ENCLU) return refuse(out, Refusal::kEnclave);
      out.ends_block = raw.mnemonic == ZYDIS_MNEMONIC_UIRET;
      if (out.ends_block) return refuse(out, Refusal::kFarTransfer);
      break;
    case 0x05: return classify_system(out);
    case 0x07: out.ends_block = true; break;
    case 0x34:
    case 0x35: out.ends_block = true; return refuse(out, Refusal::kSysenter);
    case 0xff:
      out.length = 0;  // Intel's ud0 has a ModRM byte, AMD's has none
      [[fallthrough]];
    case 0x0b:
    case 0xb9: out.ends_block = true; return refuse(out, Refusal::kUndefined);
    case 0x1e:
      if (raw.mnemonic == ZYDIS_MNEMONIC_ENDBR64) return emulate(out, Effect::kNone);
      break;
    case 0x1f: return emulate(out, Effect::kNone);
    case 0xb2: return refuse(out, Refusal::kStackSegment);
    default: break;
  }
  classify_plain(raw, out);
}

// Whether the five status flags that inc changes are read, and whether they are all written for certain. By what Zydis
// says of each instruction, but for those that leave flags alone when a count is zero: shifts, rotations, and repeated
// compares.
void note_flags(const ZydisDecodedInstruction& raw, Instruction& out) {
  constexpr ZydisAccessedFlagsMask kFive =
      ZYDIS_CPUFLAG_OF | ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_ZF | ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_PF;
  const bool is_plain = out.route == Route::kSlot || out.route == Route::kEmulate;
  out.reads_flags = !is_plain || raw.mnemonic == ZYDIS_MNEMONIC_PUSHFQ || raw.mnemonic == ZYDIS_MNEMONIC_PUSHF;
  if (raw.cpu_flags == nullptr) return;
  const ZydisAccessedFlags& flags = *raw.cpu_flags;
  out.reads_flags |= (flags.tested & kFive) != 0;
  constexpr ZydisInstructionAttributes kRepeated =
      ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
  const bool is_shift =
      raw.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
      (raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? (raw.opcode & 0xfe) == 0xc0 || (raw.opcode & 0xfc) == 0xd0
                                                  : (raw.opcode & 0xf6) == 0xa4);
  if (is_shift || (raw.attributes & kRepeated) != 0) return;
  out.writes_flags = ((flags.modified | flags.set_0 | flags.set_1 | flags.undefined) & kFive) == kFive;
}

ZydisDecoder make_decoder() {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  return decoder;
}

struct RefusalText {
  std::string_view code;
  std::string_view message;
};

// In the order of enum Refusal.
constexpr std::array<RefusalText, 13> kRefusalTexts{{
    {"none", "the instruction can be displaced"},
    {"undecodable", "the bytes are no instruction of this processor, or one longer than 15 bytes"},
    {"truncated", "the instruction runs past the end of the code"},
    {"breakpoint", "the instruction is a breakpoint of the application (int3 or int1)"},
    {"undefined", "the instruction raises an invalid-opcode exception on purpose (ud0, ud1 or ud2)"},
    {"privileged", "the instruction is privileged and faults in user mode"},
    {"far-transfer", "the instruction is a far call, jump or return, or an interrupt return"},
    {"stack-segment", "the instruction loads the stack segment and masks the trap that follows it"},
    {"operand-size-branch", "the branch has an operand-size prefix, which Intel and AMD execute differently"},
    {"sysenter", "sysenter and sysexit continue at an address that the kernel fixes"},
    {"interrupt", "the instruction is a software interrupt other than int 3 and int 0x80"},
    {"narrow-rip", "the RIP-relative operand has an address-size prefix and cannot be moved"},
    {"enclave", "enclu hands the address of the next instruction to the enclave"},
}};
static_assert(kRefusalTexts.size() == static_cast<std::size_t>(Refusal::kEnclave) + 1);

}  // namespace

Instruction classify(std::span<const std::uint8_t> code) {
  Instruction out;
  if (code.empty()) {
    refuse(out, Refusal::kTruncated);
    return out;
  }
  const ZydisDecoder decoder = make_decoder();
  ZydisDecodedInstruction raw;
  const ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder, nullptr, code.data(), code.size(), &raw);
  if (ZYAN_FAILED(status)) {
    const bool is_short = status == ZYDIS_STATUS_NO_MORE_DATA;
    refuse(out, is_short ? Refusal::kTruncated : Refusal::kUndecodable);
    return out;
  }
  if (is_knights_corner(raw)) {
    refuse(out, Refusal::kUndecodable);
    return out;
  }
  out.length = raw.length;
  out.is_general = is_general(raw);
  const bool is_legacy = raw.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
  if (is_legacy && raw.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
    classify_one_byte_map(raw, out);
  } else if (is_legacy && raw.opcode_map == ZYDIS_OPCODE_MAP_0F) {
    classify_two_byte_map(raw, out);
  } else {
    classify_plain(raw, out);
  }
  note_flags(raw, out);
  return out;
}

std::uint8_t length_of(std::span<const std::uint8_t> code) {
  ZydisDecoder decoder = make_decoder();
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MINIMAL, ZYAN_TRUE);
  ZydisDecodedInstruction raw;
  return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, nullptr, code.data(), code.size(), &raw)) ? raw.length
                                                                                                        : 0;
}

std::string_view refusal_code(Refusal refusal) { return kRefusalTexts[static_cast<std::size_t>(refusal)].code; }

std::string_view refusal_message(Refusal refusal) { return kRefusalTexts[static_cast<std::size_t>(refusal)].message; }

}  // namespace ubp::decoder
