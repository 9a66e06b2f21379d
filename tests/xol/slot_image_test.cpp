// Slot images: relocation in both directions of the reach, and the way back from every byte of a slot.
#include <doctest/doctest.h>

#include <Zydis/Zydis.h>

#include <array>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

#include "decoder/classify.h"
#include "xol/slot_image.h"

using namespace ubp::xol;
using ubp::decoder::Route;

namespace {

Displaced displaced(std::uint64_t address, std::initializer_list<std::uint8_t> bytes) {
  std::array<std::uint8_t, 15> code{};
  std::copy(bytes.begin(), bytes.end(), code.begin());
  const auto instruction = ubp::decoder::classify({code.data(), bytes.size()});
  REQUIRE(instruction.length == bytes.size());
  return {address, instruction, code.data()};
}

struct Decoded {
  ZydisDecodedInstruction instruction;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

Decoded decode(const std::uint8_t* bytes, std::size_t size) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  Decoded result{};
  REQUIRE(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, size, &result.instruction, result.operands)));
  return result;
}

// The absolute address of the operand that depends on RIP, when the bytes run at `address`.
std::uint64_t target_of(const Decoded& decoded, std::uint64_t address) {
  for (int i = 0; i < decoded.instruction.operand_count; ++i) {
    ZyanU64 target = 0;
    if (ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&decoded.instruction, &decoded.operands[i], address, &target)))
      return target;
  }
  FAIL("no relative operand");
  return 0;
}

struct Case {
  const char* name;
  std::initializer_list<std::uint8_t> bytes;
};

const Case kRelative[] = {
    {"mov 0x10(%rip), %rax", {0x48, 0x8b, 0x05, 0x10, 0, 0, 0}},
    {"movl $1, -0x40(%rip)", {0xc7, 0x05, 0xc0, 0xff, 0xff, 0xff, 1, 0, 0, 0}},
    {"imul $5, 0x20(%rip), %ecx", {0x6b, 0x0d, 0x20, 0, 0, 0, 5}},
    {"vmovaps 0x100(%rip), %ymm1", {0xc5, 0xfc, 0x28, 0x0d, 0, 1, 0, 0}},
    {"vpalignr $3, 0x40(%rip), %xmm1, %xmm2", {0xc4, 0xe3, 0x71, 0x0f, 0x15, 0x40, 0, 0, 0, 3}},
    {"vmovups 0x40(%rip), %zmm1", {0x62, 0xf1, 0x7c, 0x48, 0x10, 0x0d, 0x40, 0, 0, 0}},
    {"jmp *0x30(%rip)", {0xff, 0x25, 0x30, 0, 0, 0}},
    {"lea 0(%rip), %rdi", {0x48, 0x8d, 0x3d, 0, 0, 0, 0}},
    {"xbegin +0x50", {0xc7, 0xf8, 0x50, 0, 0, 0}},
};

}  // namespace

TEST_CASE("relocated copies mean the same address, all over the reach") {
  constexpr std::uint64_t kCode = 0x7f0000000000;
  std::mt19937_64 random(7);
  for (const Case& c : kRelative) {
    CAPTURE(c.name);
    const Displaced point = displaced(kCode, c.bytes);
    REQUIRE(point.route == Route::kSlot);
    REQUIRE(point.rip_disp_offset != 0);
    const Decoded original = decode(point.bytes, point.length);
    const std::uint64_t target = target_of(original, kCode);
    std::vector<std::uint64_t> slots = {kCode + 0x7fff0000, kCode - 0x7fff0000, kCode + 64, kCode - 64};
    for (int i = 0; i < 1000; ++i) slots.push_back(kCode - 0x7ff00000 + random() % 0xffe00000);
    for (const std::uint64_t slot : slots) {
      std::array<std::uint8_t, kSlotBytes> image{};
      write_slot(image.data(), SlotAddress{slot}, point);
      const Decoded copy = decode(image.data(), image.size());
      REQUIRE(copy.instruction.mnemonic == original.instruction.mnemonic);
      REQUIRE(copy.instruction.length == original.instruction.length);
      REQUIRE(target_of(copy, slot) == target);
      const Decoded jump = decode(image.data() + point.length, image.size() - point.length);
      REQUIRE(jump.instruction.mnemonic == ZYDIS_MNEMONIC_JMP);
      REQUIRE(target_of(jump, slot + point.length) == point.next());
    }
  }
}

TEST_CASE("the reach ends before rel32 does, in both directions") {
  constexpr std::uint64_t kCode = 0x7f0000000000, kArea = 0x100000;
  CHECK(in_reach(kCode + 0x7fe00000, kArea, kCode, kCode));
  CHECK(in_reach(kCode - 0x7ff00000, kArea, kCode, kCode));
  CHECK_FALSE(in_reach(kCode + 0x7ff00000, kArea, kCode, kCode));
  CHECK_FALSE(in_reach(kCode - 0x80000000, kArea, kCode, kCode));
  CHECK_FALSE(in_reach(kCode - 0x7ff00000, kArea, kCode, kCode + 0x200000));  // the operand's target is too far
}

TEST_CASE("an instruction without relative operand is copied as it is, whatever its length") {
  for (const auto& bytes : std::initializer_list<std::initializer_list<std::uint8_t>>{
           {0xc9},
           {0x48, 0x89, 0xf8},
           {0xf3, 0xaa},
           {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8},
           {0x66, 0x66, 0x66, 0x66, 0x66, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}}) {
    const Displaced point = displaced(0x555555554000, bytes);
    std::array<std::uint8_t, kSlotBytes> image{};
    image.fill(0x5a);
    write_slot(image.data(), SlotAddress{0x555540000000}, point);
    CHECK(std::equal(bytes.begin(), bytes.end(), image.begin()));
    CHECK(image[bytes.size()] == 0xe9);
    CHECK(image[kSlotBytes - 1] == 0x5a);
  }
}

TEST_CASE("a permanent slot restores rcx, jumps on and names its probepoint") {
  constexpr std::uint64_t kCode = 0x7f0000001000, kSlot = 0x7effff000040;
  const Displaced point = displaced(kCode, {0x0f, 0x05});
  REQUIRE(point.route == Route::kSystem);
  alignas(8) std::array<std::uint8_t, kSlotBytes> image{};
  write_permanent_slot(image.data(), SlotAddress{kSlot}, point);
  CHECK(image[0] == 0x0f);
  CHECK(image[1] == 0x05);
  const Decoded load = decode(image.data() + 2, 20);
  CHECK(load.instruction.mnemonic == ZYDIS_MNEMONIC_MOV);
  CHECK(load.operands[0].reg.value == ZYDIS_REGISTER_RCX);
  CHECK(load.operands[1].imm.value.u == kCode + 2);
  const Decoded jump = decode(image.data() + 12, 20);
  CHECK(target_of(jump, kSlot + 12) == kCode + 2);
  CHECK(shared_origin(reinterpret_cast<std::uint64_t>(image.data())) == OriginalAddress{kCode});

  CHECK_FALSE(position_in_slot(point, 0).executed);
  CHECK(position_in_slot(point, 2).executed);
  CHECK(position_in_slot(point, 2).sets_rcx);
  CHECK_FALSE(position_in_slot(point, 12).sets_rcx);
  CHECK(position_in_slot(point, 12).address == OriginalAddress{kCode + 2});
}

TEST_CASE("a gate's permanent slot holds its syscall once more, with an int3 behind it") {
  constexpr std::uint64_t kCode = 0x7f0000001000;
  Displaced point = displaced(kCode, {0x0f, 0x05});
  point.is_gate = true;
  std::array<std::uint8_t, kSlotBytes> image{};
  write_permanent_slot(image.data(), SlotAddress{0x7effff000040}, point);
  CHECK(image[kCloneOffset] == 0x0f);
  CHECK(image[kCloneOffset + 1] == 0x05);
  CHECK(image[kCloneOffset + 2] == 0xcc);
  CHECK(shared_origin(reinterpret_cast<std::uint64_t>(image.data())) == OriginalAddress{kCode});
  CHECK_FALSE(position_in_slot(point, 2).is_cloning);
  CHECK(position_in_slot(point, kCloneOffset).is_cloning);
  CHECK_FALSE(position_in_slot(point, kCloneOffset).executed);
  CHECK(position_in_slot(point, kCloneOffset + 2).is_cloning);
  CHECK(position_in_slot(point, kCloneOffset + 2).executed);
}

TEST_CASE(
    "a permanent slot holds the call once more, after which a thread that it has made traps, and its maker does not") {
  constexpr std::uint64_t kCode = 0x7f0000001000, kSlot = 0x7effff000040;
  const Displaced point = displaced(kCode, {0x0f, 0x05});
  std::array<std::uint8_t, kSlotBytes> image{};
  write_permanent_slot(image.data(), SlotAddress{kSlot}, point);
  CHECK(decode(image.data() + kBirthOffset, 20).instruction.mnemonic == ZYDIS_MNEMONIC_SYSCALL);
  const Decoded copy = decode(image.data() + kBirthOffset + 2, 20);
  CHECK(copy.instruction.mnemonic == ZYDIS_MNEMONIC_MOV);
  CHECK(copy.operands[0].reg.value == ZYDIS_REGISTER_RCX);
  CHECK(copy.operands[1].reg.value == ZYDIS_REGISTER_RAX);
  const Decoded branch = decode(image.data() + kBirthOffset + 5, 20);
  CHECK(branch.instruction.mnemonic == ZYDIS_MNEMONIC_JRCXZ);
  CHECK(target_of(branch, kSlot + kBirthOffset + 5) == kSlot + kBirthTrap);
  CHECK(image[kBirthTrap] == 0xcc);
  const Decoded maker = decode(image.data() + kBirthOffset + 7, 20);
  CHECK(maker.instruction.mnemonic == ZYDIS_MNEMONIC_JMP);
  CHECK(target_of(maker, kSlot + kBirthOffset + 7) == kSlot + 2);  // where rcx is set

  CHECK_FALSE(position_in_slot(point, kBirthOffset).executed);
  CHECK(position_in_slot(point, kBirthOffset).address == OriginalAddress{kCode});
  for (std::uint64_t offset = kBirthOffset + 2; offset <= kBirthTrap; ++offset) {
    CHECK(position_in_slot(point, offset).executed);
    CHECK(position_in_slot(point, offset).sets_rcx);
    CHECK(position_in_slot(point, offset).address == OriginalAddress{kCode + 2});
  }
}

TEST_CASE("int 0x80 leaves rcx alone") {
  const Displaced point = displaced(0x401000, {0xcd, 0x80});
  REQUIRE(point.route == Route::kSystem);
  std::array<std::uint8_t, kSlotBytes> image{};
  write_permanent_slot(image.data(), SlotAddress{0x10000000}, point);
  CHECK(image[2] == 0xe9);
  CHECK_FALSE(position_in_slot(point, 2).sets_rcx);
}

TEST_CASE("every address in a slot maps back") {
  const Displaced point = displaced(0x401000, {0x48, 0x89, 0xf8});
  CHECK_FALSE(position_in_slot(point, 0).executed);
  CHECK(position_in_slot(point, 0).address == OriginalAddress{0x401000});
  CHECK(position_in_slot(point, 3).executed);
  CHECK(position_in_slot(point, 3).address == OriginalAddress{0x401003});
}
