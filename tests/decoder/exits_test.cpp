// Exits: where a function is left, and when nothing can be said.
#include "decoder/exits.h"

#include <doctest/doctest.h>

namespace ubp::decoder {
namespace {

using Code = std::vector<std::uint8_t>;
constexpr std::uint64_t kAddress = 0x1000;

std::optional<std::vector<Exit>> exits_of(const Code& code, bool has_end = true) {
  return find_exits(code, kAddress, has_end);
}

}  // namespace

TEST_CASE("exits: every return, with its prefixes and what it pops") {
  // test %edi,%edi; je 7; ret; repz ret; ret $8
  const auto exits = exits_of({0x85, 0xff, 0x74, 0x01, 0xc3, 0xf3, 0xc3, 0xc2, 0x08, 0x00});
  REQUIRE(exits);
  REQUIRE(exits->size() == 3);
  CHECK((*exits)[0].offset == 4);
  CHECK((*exits)[1].offset == 5);
  CHECK((*exits)[2].offset == 7);
  for (const Exit& exit : *exits) CHECK(exit.kind == Exit::Kind::kReturn);
}

TEST_CASE("exits: jumps out of it, and not those inside") {
  // je +0x10 (out); jmp -2 (itself); then jmp rel32 to 0x900
  const auto exits = exits_of({0x74, 0x10, 0x75, 0xfe, 0xe9, 0xf7, 0xf8, 0xff, 0xff});
  REQUIRE(exits);
  REQUIRE(exits->size() == 2);
  CHECK((*exits)[0].kind == Exit::Kind::kJump);
  CHECK((*exits)[0].condition == 4);  // e
  CHECK((*exits)[0].target == kAddress + 0x12);
  CHECK((*exits)[1].condition == Exit::kAlways);
  CHECK((*exits)[1].target == 0x900);
}

TEST_CASE("exits: indirect jumps, with what they go through") {
  const auto by_register = exits_of({0xff, 0xe0});                        // jmp *%rax
  const auto by_high_register = exits_of({0x41, 0xff, 0xe3});             // jmp *%r11
  const auto by_table = exits_of({0x3e, 0xff, 0x24, 0xc2});               // notrack jmp *(%rdx,%rax,8)
  const auto by_place = exits_of({0xff, 0x25, 0x10, 0x00, 0x00, 0x00});   // jmp *0x10(%rip)
  const auto by_member = exits_of({0xff, 0xa7, 0x00, 0x01, 0x00, 0x00});  // jmp *0x100(%rdi)
  for (const auto& exits : {by_register, by_high_register, by_table, by_place, by_member}) {
    REQUIRE(exits);
    REQUIRE(exits->size() == 1);
    CHECK(exits->front().kind == Exit::Kind::kIndirect);
  }
  CHECK(by_register->front().operand.base == 0);
  CHECK_FALSE(by_register->front().operand.is_memory);
  CHECK(by_high_register->front().operand.base == 11);
  CHECK(by_table->front().operand.is_memory);
  CHECK(by_table->front().operand.base == 2);
  CHECK(by_table->front().operand.index == 0);
  CHECK(by_table->front().operand.scale == 3);
  CHECK(by_place->front().operand.base == kRipRegister);
  CHECK(by_place->front().operand.displacement == 0x10);
  CHECK(by_member->front().operand.base == 7);
  CHECK(by_member->front().operand.displacement == 0x100);
}

TEST_CASE("exits: a call through a register is none") {
  CHECK_FALSE(operand_of_jump(Code{0xff, 0xd0}));
  const auto exits = exits_of({0xff, 0xd0, 0xc3});
  REQUIRE(exits);
  CHECK(exits->size() == 1);
}

TEST_CASE("exits: a function that never returns has none") {
  const auto exits = exits_of({0xe8, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x0b});  // call; ud2
  REQUIRE(exits);
  CHECK(exits->empty());
}

TEST_CASE("exits: what only an indirect jump reaches counts, data does not pass for code") {
  // jmp *%rax; then the case: xor %eax,%eax; ret
  const auto exits = exits_of({0xff, 0xe0, 0x31, 0xc0, 0xc3});
  REQUIRE(exits);
  CHECK(exits->size() == 2);
  // ret, then a table of zeros; ret, then a truncated instruction
  CHECK_FALSE(exits_of({0xc3, 0x00, 0x00, 0x00, 0x00}));
  CHECK_FALSE(exits_of({0xc3, 0xe8, 0x00}));
  // lea 1(%rip),%rax names the byte behind the return.
  CHECK_FALSE(exits_of({0x48, 0x8d, 0x05, 0x01, 0x00, 0x00, 0x00, 0xc3, 0x90, 0x90}));
}

TEST_CASE("exits: where no table says how long it is, what lies behind is not its") {
  const auto exits = exits_of({0x74, 0x01, 0xc3, 0xc3, 0x00, 0x00, 0x00}, false);
  REQUIRE(exits);
  CHECK(exits->size() == 2);
  CHECK_FALSE(exits_of({0x74, 0x03, 0xff, 0xe0, 0x00, 0xc3}, false));  // between its instructions it may be
}

TEST_CASE("exits: ways out that are not known") {
  CHECK_FALSE(exits_of({0xcb}));              // far return
  CHECK_FALSE(exits_of({0x48, 0xcf}));        // iretq
  CHECK_FALSE(exits_of({0xe2, 0x10, 0xc3}));  // loop to outside
}

}  // namespace ubp::decoder
