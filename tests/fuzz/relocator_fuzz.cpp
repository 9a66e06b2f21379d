// The relocator: whatever classify() sends to a slot means there what it meant in its place.
//
// Input: machine code. Every instruction of it is displaced to slots all over the reach; copy and original are decoded
// with Zydis and must agree in everything but where they stand, and the slot must lead on to the next instruction.
#include <array>

#include "oracle.h"
#include "xol/slot_image.h"

namespace ubp::fuzz {
namespace {

using decoder::Instruction;
using decoder::Route;

using Slot = std::array<std::uint8_t, xol::kSlotBytes>;
constexpr std::uint8_t kUntouched = 0x5a;

// An address where application code may lie, with room for a slot on both sides.
std::uint64_t code_address(Numbers& numbers) {
  return numbers.between(std::uint64_t{1} << 33, (std::uint64_t{1} << 47) - (std::uint64_t{1} << 33));
}

// A slot within reach of the instruction and of what its RIP-relative operand names.
std::uint64_t slot_address(Numbers& numbers, std::uint64_t address, std::uint64_t target) {
  constexpr std::uint64_t kRoom = xol::kReach - xol::kReachMargin - 2 * xol::kSlotBytes;
  const std::uint64_t low = std::max(address, target) - kRoom;
  const std::uint64_t high = std::min(address, target) + kRoom;
  const std::uint64_t slot = (numbers.between(low, high) + xol::kSlotBytes - 1) & ~(xol::kSlotBytes - 1);
  FUZZ_CHECK(xol::in_reach(slot, xol::kSlotBytes, address, target), "slot %#lx address %#lx target %#lx", slot, address,
             target);
  return slot;
}

void check_same_operand(const Decoded& a, std::uint64_t a_at, const Decoded& b, std::uint64_t b_at, std::size_t i) {
  const ZydisDecodedOperand& left = a.operands[i];
  const ZydisDecodedOperand& right = b.operands[i];
  FUZZ_CHECK(left.type == right.type && left.visibility == right.visibility && left.actions == right.actions &&
             left.encoding == right.encoding && left.size == right.size && left.element_type == right.element_type &&
             left.element_count == right.element_count && left.attributes == right.attributes);
  if (is_relative(left)) {
    FUZZ_CHECK(is_relative(right));
    FUZZ_CHECK(absolute(a, left, a_at) == absolute(b, right, b_at), "%#lx here, %#lx in the slot",
               absolute(a, left, a_at), absolute(b, right, b_at));
  }
  switch (left.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER: FUZZ_CHECK(left.reg.value == right.reg.value); break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
      FUZZ_CHECK(left.mem.type == right.mem.type && left.mem.segment == right.mem.segment &&
                 left.mem.base == right.mem.base && left.mem.index == right.mem.index &&
                 left.mem.scale == right.mem.scale &&
                 left.mem.disp.has_displacement == right.mem.disp.has_displacement);
      FUZZ_CHECK(is_rip_based(left) || left.mem.disp.value == right.mem.disp.value);
      break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
      FUZZ_CHECK(left.imm.is_signed == right.imm.is_signed);
      FUZZ_CHECK(left.imm.is_relative || left.imm.value.u == right.imm.value.u);
      break;
    default: FUZZ_CHECK(false, "a far pointer in a slot");
  }
}

// The jump at `offset` of a slot goes to `target`.
void check_jump(const Slot& slot, std::uint64_t slot_at, std::size_t offset, std::uint64_t target) {
  const auto jump = zydis_decode(std::span(slot).subspan(offset));
  FUZZ_CHECK(jump && jump->instruction.mnemonic == ZYDIS_MNEMONIC_JMP && jump->instruction.length == 5);
  FUZZ_CHECK(absolute(*jump, jump->operands[0], slot_at + offset) == target);
}

// classify() may only send there what does not depend on its place, but for the field that it names.
void check_may_move(const Decoded& original, const Instruction& instruction) {
  bool names_field = false;
  for (const ZydisDecodedOperand& operand : original.all_operands()) {
    const bool writes_rip = operand.type == ZYDIS_OPERAND_TYPE_REGISTER && operand.reg.value == ZYDIS_REGISTER_RIP &&
                            (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    const ZydisMnemonic mnemonic = original.instruction.mnemonic;
    FUZZ_CHECK(!writes_rip || mnemonic == ZYDIS_MNEMONIC_JMP || mnemonic == ZYDIS_MNEMONIC_XBEGIN,
               "%s writes rip in a slot", ZydisMnemonicGetString(mnemonic));
    if (!is_relative(operand)) continue;
    const bool is_branch = operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    FUZZ_CHECK(is_branch ? mnemonic == ZYDIS_MNEMONIC_XBEGIN : original.instruction.address_width == 64);
    const auto& raw = original.instruction.raw;
    FUZZ_CHECK(instruction.rip_disp_offset == (is_branch ? raw.imm[0].offset : raw.disp.offset));
    FUZZ_CHECK((is_branch ? raw.imm[0].size : raw.disp.size) == 32);
    names_field = true;
  }
  FUZZ_CHECK(names_field == (instruction.rip_disp_offset != 0));
}

void check_slot(Numbers& numbers, std::span<const std::uint8_t> code, const Instruction& instruction) {
  const auto original = zydis_decode(code);
  FUZZ_CHECK(original && original->instruction.length == instruction.length);
  check_may_move(*original, instruction);

  const std::uint64_t address = code_address(numbers);
  std::uint64_t target = address;
  for (const ZydisDecodedOperand& operand : original->all_operands()) {
    if (is_relative(operand)) target = absolute(*original, operand, address);
  }
  const std::uint64_t slot_at = slot_address(numbers, address, target);
  const xol::Displaced point = make_displaced(address, code, instruction);
  Slot slot;
  slot.fill(kUntouched);
  xol::write_slot(slot.data(), xol::SlotAddress{slot_at}, point);

  const auto copy = zydis_decode(slot);
  FUZZ_CHECK(copy && copy->instruction.mnemonic == original->instruction.mnemonic &&
             copy->instruction.length == original->instruction.length &&
             copy->instruction.operand_count == original->instruction.operand_count &&
             copy->instruction.attributes == original->instruction.attributes);
  for (std::size_t i = 0; i < original->instruction.operand_count; ++i) {
    check_same_operand(*original, address, *copy, slot_at, i);
  }
  for (std::size_t i = 0; i < instruction.length; ++i) {
    const bool relocated = instruction.rip_disp_offset != 0 && i - instruction.rip_disp_offset < 4;
    FUZZ_CHECK(relocated || slot[i] == code[i]);
  }
  check_jump(slot, slot_at, instruction.length, address + instruction.length);
  for (std::size_t i = std::max<std::size_t>(instruction.length + 5u, 16); i < slot.size(); ++i) {
    FUZZ_CHECK(slot[i] == kUntouched, "byte %zu", i);
  }
  for (std::size_t i = 0; i <= instruction.length; ++i) {
    const xol::SlotPosition position = xol::position_in_slot(point, i);
    FUZZ_CHECK(position.executed == (i == instruction.length) && !position.sets_rcx);
    FUZZ_CHECK(position.address == xol::OriginalAddress{i == instruction.length ? address + i : address});
  }
}

void check_system(Numbers& numbers, std::span<const std::uint8_t> code, const Instruction& instruction) {
  const auto original = zydis_decode(code);
  FUZZ_CHECK(original && original->instruction.length == instruction.length);
  const bool is_syscall = original->instruction.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
  FUZZ_CHECK(is_syscall ||
             (original->instruction.mnemonic == ZYDIS_MNEMONIC_INT && original->operands[0].imm.value.u == 0x80));
  const std::uint64_t address = code_address(numbers);
  const std::uint64_t slot_at = slot_address(numbers, address, address);
  const xol::Displaced point = make_displaced(address, code, instruction);
  alignas(8) Slot slot;
  slot.fill(kUntouched);
  xol::write_permanent_slot(slot.data(), xol::SlotAddress{slot_at}, point);
  std::size_t used = instruction.length;
  FUZZ_CHECK(std::equal(slot.begin(), slot.begin() + instruction.length, code.begin()));
  if (is_syscall) {
    const auto load = zydis_decode(std::span(slot).subspan(used));
    FUZZ_CHECK(load && load->instruction.mnemonic == ZYDIS_MNEMONIC_MOV &&
                   load->operands[0].reg.value == ZYDIS_REGISTER_RCX &&
                   load->operands[1].imm.value.u == address + instruction.length,
               "%s does not leave rcx right", hex(code.first(instruction.length)).c_str());
    FUZZ_CHECK(xol::position_in_slot(point, used).sets_rcx);
    used += load->instruction.length;
  }
  check_jump(slot, slot_at, used, address + instruction.length);
  FUZZ_CHECK(!xol::position_in_slot(point, instruction.length - 1u).executed);
  FUZZ_CHECK(xol::position_in_slot(point, used).executed && !xol::position_in_slot(point, used).sets_rcx);
  FUZZ_CHECK(xol::shared_origin(reinterpret_cast<std::uint64_t>(slot.data())) == xol::OriginalAddress{address});
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  Numbers numbers(bytes, size);
  for_each_instruction({bytes, size}, [&](auto code, const Instruction& instruction) {
    if (instruction.route == Route::kSlot) {
      for (int i = 0; i < 4; ++i) check_slot(numbers, code, instruction);
    } else if (instruction.route == Route::kSystem) {
      check_system(numbers, code, instruction);
    }
  });
  return 0;
}
