// Pointers, arrays and structs: as the C++ compiler that made this test lays them out and reads them.
#include <fmt/format.h>

#include <cstddef>
#include <cstring>

#include "compiled.h"

using namespace ubp::program;

namespace {

// Every test that follows has the same definitions, here as the compiler has them and in kDefinitions as programs do.
struct Inner {
  signed char tag;
  short pair[2];
};
struct Outer {
  char text[6];
  int number;
  Inner inner;
  unsigned char grid[2][3];
  struct Outer* next;
  union {
    long wide;
    unsigned short narrow;
  };
  unsigned low : 3;
  int high : 5;
  unsigned long long far : 33;
  double ignored;
  enum Colour { kRed, kGreen = 7, kBlue } colour;
};
struct __attribute__((packed)) Packed {
  char a;
  long b;
};
constexpr std::string_view kDefinitions =
    "struct Inner { signed char tag; short pair[2]; };\n"
    "enum Colour { kRed, kGreen = 7, kBlue }\n"
    "struct Outer { char text[6]; int number; struct Inner inner; uint8_t grid[2][3]; struct Outer *next;\n"
    "  union { long wide; unsigned short narrow; }; unsigned low : 3; int high : 5; unsigned long long far : 33;\n"
    "  double ignored; enum Colour colour; }\n"
    "struct Packed { char a; long b; } __attribute__((packed))\n";

Outer other{"other", 3, {1, {2, 3}}, {}, nullptr, {4}, 0, 0, 0, 0, Outer::kRed};
Outer outer{"hello",     -5,  {-7, {300, -300}}, {{1, 2, 3}, {4, 5, 255}}, &other, {-1}, 5, -9,
            0x1ffffffff, 1.5, Outer::kGreen};

std::string printed(const std::string& block) {
  const auto program = compiled(std::string(kDefinitions) + "begin { $o = (struct Outer*)" +
                                fmt::format("{}", reinterpret_cast<std::uintptr_t>(&outer)) + "; " + block + " }");
  program->run(ubp::language::Probe::Event::kBegin);
  return program->printed() + program->maps();
}

}  // namespace

TEST_CASE("memory: sizes and offsets are the compiler's") {
  CHECK(printed("print(sizeof(struct Inner))") == fmt::format("{}\n", sizeof(Inner)));
  CHECK(printed("print(sizeof(struct Outer))") == fmt::format("{}\n", sizeof(Outer)));
  CHECK(printed("print(sizeof(struct Packed))") == fmt::format("{}\n", sizeof(Packed)));
  CHECK(printed("print(offsetof(struct Outer, inner.pair))") ==
        fmt::format("{}\n", offsetof(Outer, inner) + offsetof(Inner, pair)));
  CHECK(printed("print(offsetof(struct Outer, next))") == fmt::format("{}\n", offsetof(Outer, next)));
  CHECK(printed("print(offsetof(struct Outer, narrow))") == fmt::format("{}\n", offsetof(Outer, wide)));
  CHECK(printed("print(offsetof(struct Outer, colour))") == fmt::format("{}\n", offsetof(Outer, colour)));
  CHECK(printed("print((sizeof(int8), sizeof(uint64), sizeof(int32[5]), sizeof(void*), sizeof($o)))") ==
        "(1, 8, 20, 8, 8)\n");
}

TEST_CASE("memory: members, elements and what pointers lead to") {
  const std::pair<const char*, std::string> cases[] = {
      {"print($o->text)", "hello\n"},
      {"print($o.number)", "-5\n"},
      {"print($o->inner.tag)", "-7\n"},
      {"print(($o->inner.pair[0], $o->inner.pair[1]))", "(300, -300)\n"},
      {"print($o->inner.pair)", "[300,-300]\n"},
      {"print($o->grid)", "[[1,2,3],[4,5,255]]\n"},
      {"print($o->grid[1][2])", "255\n"},
      {"$g = $o->grid; print($g[1]); print($g[1][0])", "[4,5,255]\n4\n"},
      {"print($o->next->text); print($o->next->next)", "other\n0x0\n"},
      {"print($o->wide); print($o->narrow)", "-1\n65535\n"},
      {"print(($o->low, $o->high, $o->far))", fmt::format("(5, {}, {})\n", -9 & 31, 0x1ffffffffULL)},
      {"print($o->colour); printf(\"%d\\n\", $o->colour); print($o->colour + 1)", "kGreen\n7\n8\n"},
      {"print($o->inner)", "{ .tag = -7, .pair = [300,-300] }\n"},
      {"$i = $o->inner; print($i.pair[1]); @ = $i", "-300\n@: { .tag = -7, .pair = [300,-300] }\n"},
      {"@[$o->inner, 1] = 2", "@[{ .tag = -7, .pair = [300,-300] }, 1]: 2\n"},
      {"print($o->inner == $o->next->inner); print($o->inner == $o->inner)", "false\ntrue\n"},
      {"$t = (1, \"abc\", (int16)2); print(*&$t); print(sizeof($t)); print($t[2])", "(1, abc, 2)\n8\n2\n"},
      {"print(kBlue); print((enum Colour)7)", "kBlue\nkGreen\n"},
      {"print(((int8[8])258)[1]); print((uint16)((int8[2])513)); print((int8[])\"ab\")", "1\n513\n[97,98,0]\n"},
      {"printf(\"%r %rh %rx\\n\", buf($o->text, 3), buf(\"\\n!\", 2), buf(\"a\", 1))", "hel 0a 21 \\x61\n"},
      {"@[buf($o->text, 2)] = buf($o->inner.pair); print(buf($o, 5) == buf($o->text, 5))",
       "true\n@[he]: ,\\x01\\xd4\\xfe\n"},
  };
  for (const auto& [block, wanted] : cases) {
    CAPTURE(block);
    CHECK(printed(block) == wanted);
  }
}

TEST_CASE("memory: pointers count in what they point to") {
  const auto at = reinterpret_cast<std::uintptr_t>(&outer);
  CHECK(printed("print((uint64)($o + 2)); print((uint64)($o - 1))") ==
        fmt::format("{}\n{}\n", at + 2 * sizeof(Outer), at - sizeof(Outer)));
  CHECK(printed("$p = (int16*)100; $p++; $p += 3; --$p; print($p); @p = $p; @p++; @p -= 2") == "0x6a\n@p: 0x68\n");
  CHECK(printed("$x = 513; print(*(int8*)&$x); print(*((int8*)&$x + 1))") == "1\n2\n");
  CHECK(printed("print($o == 0); print($o != 0); if ($o && true) { print(1) }") == "false\ntrue\n1\n");
}

TEST_CASE("memory: what cannot be read is 0, and counted where it is read") {
  const auto program = compiled(std::string(kDefinitions) +
                                "begin { $o = (struct Outer*)8; print($o->number); print($o->text); print($o->inner);\n"
                                "  $a = *(int32[2]*)8; $i = rand % 2 + 2; print($a[$i]) }");
  program->run(ubp::language::Probe::Event::kBegin);
  CHECK(program->printed() == "0\n\n{ .tag = 0, .pair = [0,0] }\n0\n");
  const auto errors = run_time_errors(program->analysis(), program->place(), true);
  REQUIRE(errors.size() == 5);
  for (const Diagnostic& error : errors) CHECK(error.message.find("times") == std::string::npos);  // once
  CHECK(run_time_errors(program->analysis(), program->place(), false).size() == 1);
}

TEST_CASE("memory: a read's place begins where its operand does, within the parentheses") {
  const auto program = compiled("struct F { int a; } begin { print(((struct F*)8).a) }");
  program->run(ubp::language::Probe::Event::kBegin);
  const auto errors = run_time_errors(program->analysis(), program->place(), true);
  REQUIRE(errors.size() == 1);
  CHECK(errors[0].span.begin.column == 36);
}

TEST_CASE("memory: mistakes are said") {
  const std::pair<const char*, const char*> cases[] = {
      {"print($o->inner.pair[2])", "the index 2 is out of bounds for array of size 2"},
      {"print($o->nothing)", "Struct/union of type 'struct Outer' does not contain a field named 'nothing'"},
      {"print($o->ignored)", "'ignored' is of a type that programs have no values of"},
      {"print(*5)", "Can not dereference type 'int8'"},
      {"print(((struct Unknown*)5)->x)", "Cannot resolve unknown type \"struct Unknown\""},
      {"$x = (struct Inner)5", "Cannot cast to 'struct Inner'"},
      {"print((int8[3])(uint16)5)", "Cannot cast from 'uint16' to 'int8[3]'"},
      {"$x = 5; print($x[0])", "The array index operator [] can not be used on 'int8'"},
  };
  for (const auto& [block, wanted] : cases) {
    CAPTURE(block);
    std::vector<Diagnostic> diagnostics;
    const auto program = Program::compile(
        tree_of(std::string(kDefinitions) + "begin { $o = (struct Outer*)0; " + block + " }"), diagnostics);
    CHECK(program == nullptr);
    REQUIRE(!diagnostics.empty());
    CHECK(diagnostics.front().message == wanted);
  }
}
