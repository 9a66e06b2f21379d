// What all of a detour's code is made of: stages, the thread's storage, copies of instructions. See detour_assembler.h.
#include "runtime/jump/detour_assembler.h"

#include <stdexcept>

namespace ubp::runtime {

using decoder::Effect;
using decoder::Instruction;
using Xbyak::Reg64;

void DetourAssembler::start_block() {
  reset();
  code_ = {};
  holds_ = 0;
}

BlockCode DetourAssembler::finish_block() {
  if (hasUndefinedLabel()) throw Xbyak::Error(Xbyak::ERR_LABEL_IS_NOT_FOUND);
  const std::span<const std::uint8_t> code = written();
  DetourBlock& block = code_.block;
  block.bytes = static_cast<std::uint16_t>(code.size());
  if (block.count != 0 && block.stages[block.count - 1].begin == block.bytes) --block.count;  // nothing is left of it
  code_.bytes.assign(code.begin(), code.end());
  return std::move(code_);
}

void DetourAssembler::note(std::uint32_t now) {
  holds_ = now;
  DetourBlock& block = code_.block;
  const auto here = static_cast<std::uint16_t>(getSize());
  const bool is_same_place = block.count != 0 && block.stages[block.count - 1].begin == here;
  if (!is_same_place && block.count == kMostStages)
    throw std::length_error("a detour's block has more stages than there is room for");
  block.stages[is_same_place ? block.count - 1 : block.count++] = {here, now};
}

Xbyak::Address DetourAssembler::thread(std::int32_t offset, const Xbyak::AddressFrame* size) {
  putSeg(fs);
  return (size != nullptr ? *size : ptr)[reinterpret_cast<const void*>(std::intptr_t{offset})];
}

std::int32_t DetourAssembler::spilled_at(const Reg64& reg) const {
  return reg == rcx ? storage_.rcx : reg == rax ? storage_.rax : storage_.rdx;
}

namespace {

Holds spilled(const Reg64& reg) {
  return reg.getIdx() == Xbyak::Operand::RCX   ? kRcxSpilled
         : reg.getIdx() == Xbyak::Operand::RAX ? kRaxSpilled
                                               : kRdxSpilled;
}

}  // namespace

void DetourAssembler::spill(const Reg64& reg) {
  mov(thread(spilled_at(reg)), reg);
  holds(spilled(reg));
}

void DetourAssembler::unspill(const Reg64& reg) {
  mov(reg, thread(spilled_at(reg)));
  holds_no_longer(spilled(reg));
}

void DetourAssembler::start_at(std::uint64_t address) {
  resetSize();  // no label is left
  address_ = address;
}

void DetourAssembler::copy_of(const Instruction& instruction, std::uint64_t address,
                              std::span<const std::uint8_t> code) {
  using JumpIf = void (CodeGenerator::*)(const void*);
  static constexpr JumpIf kJumpIf[16] = {
      &CodeGenerator::jo, &CodeGenerator::jno, &CodeGenerator::jb,  &CodeGenerator::jae,
      &CodeGenerator::je, &CodeGenerator::jne, &CodeGenerator::jbe, &CodeGenerator::ja,
      &CodeGenerator::js, &CodeGenerator::jns, &CodeGenerator::jp,  &CodeGenerator::jnp,
      &CodeGenerator::jl, &CodeGenerator::jge, &CodeGenerator::jle, &CodeGenerator::jg};
  const std::uint64_t target = address + static_cast<std::uint64_t>(instruction.target);
  const std::uint32_t field = instruction.rip_disp_offset;
  if (instruction.route == decoder::Route::kSlot && field != 0) {
    const std::uint64_t at = here();
    put(code.first(field));
    dd(static_cast<std::uint32_t>(xol::load32(&code[field]) + (address - at)));
    put(code.first(instruction.length).subspan(field + 4));
    return;
  }
  if (instruction.route == decoder::Route::kSlot) return put(code.first(instruction.length));
  switch (instruction.op.effect) {
    case Effect::kJump: return jump_to(target);
    case Effect::kJumpIf: return (this->*kJumpIf[instruction.op.condition])(known_as(target));
    case Effect::kCall: {  // pushes the original return address, which stands behind the jump; aligned: RFLAGS.AC may
                           // be set
      const auto gap = static_cast<std::uint32_t>(-(here() + kPushBytes + decoder::kJumpBytes) & 7);
      push(qword[rip + static_cast<int>(decoder::kJumpBytes + gap)]);
      jump_to(target);
      for (std::uint32_t i = 0; i < gap; ++i) int3();
      dq(address + instruction.length);
      for (std::uint32_t i = gap; i < 7; ++i) int3();
      return;
    }
    case Effect::kLoop:
    case Effect::kLoopEqual:
    case Effect::kLoopNotEqual:
    case Effect::kJumpRcxZero:  // as it is, prefixes and all; taken: over the next jump
      put(code.first(instruction.length - 1U));
      db(kHopBytes);
      jmp(getCurr() + kHopBytes + decoder::kJumpBytes, T_SHORT);
      return jump_to(target);
    default: return put(code.first(instruction.length));
  }
}

std::uint32_t DetourAssembler::copy_bytes(const Instruction& instruction) {
  if (instruction.route == decoder::Route::kSlot) return instruction.length;
  switch (instruction.op.effect) {
    case Effect::kJump: return decoder::kJumpBytes;
    case Effect::kJumpIf: return decoder::kJumpBytes + 1;
    case Effect::kCall: return kPushBytes + decoder::kJumpBytes + 7 + sizeof(std::uint64_t);
    case Effect::kLoop:
    case Effect::kLoopEqual:
    case Effect::kLoopNotEqual:
    case Effect::kJumpRcxZero: return instruction.length + kHopBytes + decoder::kJumpBytes;
    default: return instruction.length;
  }
}

}  // namespace ubp::runtime
