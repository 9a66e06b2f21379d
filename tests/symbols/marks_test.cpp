// Static marks: the forms of their arguments. Whole files: tests/preload/marks_test.cpp.
#include "runtime/symbols/marks.h"

#include <doctest/doctest.h>

#include <string>

using namespace ubp::symbols;
using Kind = ValuePlace::Kind;

namespace {

constexpr std::int8_t kAx = 0, kCx = 1, kDx = 2, kBx = 3, kSp = 4, kBp = 5, kSi = 6, kDi = 7;

std::vector<MarkArgument> parse(std::string_view text) {
  return parse_mark_arguments(text, [](std::string_view name) -> std::optional<std::uint64_t> {
    if (name == "counter.0") return 0x4010;
    return std::nullopt;
  });
}

MarkArgument one(std::string_view text) {
  const std::vector<MarkArgument> all = parse(text);
  CAPTURE(text);
  REQUIRE(all.size() == 1);
  return all.front();
}

ValuePlace in_register(std::uint8_t bytes, bool is_signed, std::int8_t number, std::uint8_t shift = 0) {
  return {Kind::kRegister, bytes, is_signed, shift, number};
}
ValuePlace in_memory(std::uint8_t bytes, bool is_signed, std::int8_t base, std::int64_t offset,
                     std::int8_t index = kNoRegister, std::uint8_t scale = 1) {
  return {Kind::kMemory, bytes, is_signed, 0, base, index, scale, offset};
}
ValuePlace constant(std::uint8_t bytes, bool is_signed, std::int64_t value) {
  return {Kind::kConstant, bytes, is_signed, 0, kNoRegister, kNoRegister, 1, value};
}

}  // namespace

TEST_CASE("mark_arguments: every form, size and sign") {
  struct Case {
    std::string_view text;
    ValuePlace place;
  };
  const Case cases[] = {
      {"-4@%eax", in_register(4, true, kAx)},
      {"8@%rdi", in_register(8, false, kDi)},
      {"2@%cx", in_register(2, false, kCx)},
      {"-1@%bl", in_register(1, true, kBx)},
      {"1@%dh", in_register(1, false, kDx, 8)},
      {"1@%sil", in_register(1, false, kSi)},
      {"1@%bpl", in_register(1, false, kBp)},
      {"-8@%r12", in_register(8, true, 12)},
      {"4@%r9d", in_register(4, false, 9)},
      {"2@%r15w", in_register(2, false, 15)},
      {"1@%r8b", in_register(1, false, 8)},
      {"%ebx", in_register(4, false, kBx)},
      {"%r10w", in_register(2, false, 10)},
      {"-4@$5", constant(4, true, 5)},
      {"-4@$-5", constant(4, true, -5)},
      {"8@$0x10", constant(8, false, 16)},
      {"$010", constant(8, false, 8)},
      {"8@$18446744073709551615", constant(8, false, -1)},
      {"-8@$-9223372036854775808", constant(8, true, INT64_MIN)},
      {"-4@-20(%rbp)", in_memory(4, true, kBp, -20)},
      {"8@(%rsp)", in_memory(8, false, kSp, 0)},
      {"8@0x18(%r13)", in_memory(8, false, 13, 24)},
      {"-2@-8(%rax,%rdx,4)", in_memory(2, true, kAx, -8, kDx, 4)},
      {"1@(%rax,%rdx)", in_memory(1, false, kAx, 0, kDx, 1)},
      {"8@16(,%rcx,8)", in_memory(8, false, kNoRegister, 16, kCx, 8)},
      {"8@8+16(%rax)", in_memory(8, false, kAx, 24)},
      {"-4@counter.0(%rip)", in_memory(4, true, kModuleBase, 0x4010)},
      {"-4@counter.0+8(%rip)", in_memory(4, true, kModuleBase, 0x4018)},
      {"-4@-16+counter.0(%rip)", in_memory(4, true, kModuleBase, 0x4000)},
      {"4@counter.0", in_memory(4, false, kModuleBase, 0x4010)},
      {"4@counter.0(,%rax,4)", in_memory(4, false, kModuleBase, 0x4010, kAx, 4)},
      {"4@counter.0(%rax)", in_memory(4, false, kModuleBase, 0x4010, kAx, 1)},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const MarkArgument argument = one(c.text);
    CHECK(argument.problem == "");
    CHECK(argument.place == c.place);
    CHECK(argument.text == c.text);
  }
  CHECK(one("4@counter.0(%rip)").place.at(0x1000) == in_memory(4, false, kNoRegister, 0x5010));
  CHECK(in_register(8, false, kDi).at(0x1000) == in_register(8, false, kDi));
}

TEST_CASE("mark_arguments: several, and none") {
  CHECK(parse("").empty());
  CHECK(parse("  ").empty());
  const std::vector<MarkArgument> all = parse("8@%rdi -4@-4(%rax, %rdx, 8)  $1");
  REQUIRE(all.size() == 3);
  CHECK(all[0].place == in_register(8, false, kDi));
  CHECK(all[1].place == in_memory(4, true, kAx, -4, kDx, 8));
  CHECK(all[2].place == constant(8, false, 1));
}

TEST_CASE("mark_arguments: what programs cannot read has a reason, and its place among the others") {
  struct Case {
    std::string_view text, problem;
  };
  constexpr Case kCases[] = {
      {"8f@%xmm0", "is a floating-point value"},
      {"-4f@-16(%rbp)", "is a floating-point value"},
      {"8@%xmm3", "is a floating-point value"},
      {"8@%st(0)", "is a floating-point value"},
      {"16@-16(%rbp)", "is not of 1, 2, 4 or 8 bytes"},
      {"0@%rax", "is not of 1, 2, 4 or 8 bytes"},
      {"-4@nowhere(%rip)", "names a variable that is in no symbol table: nowhere"},
      {"4@%fs:counter.0@tpoff", "is thread-local, or in another segment"},
      {"4@counter.0@gotpcrel(%rip)", "is thread-local, or another module's"},
      {"4@8(%rip)", "is at an address that counts from the instruction's"},
      {"4@4096", "is at an address that is not the module's"},
      {"4@%rzx", "is in no form that is known"},
      {"4@%ripl", "is in no form that is known"},
      {"4@$x", "is in no form that is known"},
      {"4@(%eax)", "is in no form that is known"},
      {"4@(%rax,%rdx,3)", "is in no form that is known"},
      {"4@(%rax", "is in no form that is known"},
      {"4@", "is at an address that is not the module's"},
      {"x@%eax", "names a variable that is in no symbol table: x"},
      {"%r16", "is in no form that is known"},
  };
  for (const Case& c : kCases) {
    CAPTURE(c.text);
    CHECK(one(c.text).problem == c.problem);
  }
  CHECK(parse("8f@%xmm0 -4@%eax")[1].place == in_register(4, true, kAx));
}

TEST_CASE("nearest_marks: a wrong provider, a misspelt name") {
  const std::vector<Mark> marks = {
      {0, 0, "libc", "setjmp", {}}, {0, 0, "libc", "setjmp", {}}, {0, 0, "rtld", "map_start", {}}};
  CHECK(nearest_marks(marks, "", "setjump") == std::vector<std::string>{"libc:setjmp"});
  CHECK(nearest_marks(marks, "glibc", "setjmp") == std::vector<std::string>{"libc:setjmp"});
  CHECK(nearest_marks(marks, "rtld", "map_strat") == std::vector<std::string>{"rtld:map_start"});
  CHECK(nearest_marks(marks, "", "unlike").empty());
}
