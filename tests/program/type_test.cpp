// typeof(), container_of(), find(); texts that are longer than their room; maps that make room.
#include <cstddef>
#include <cstring>

#include "compiled.h"

namespace ubp::program {
namespace {

struct Pair {
  int first, second;
  Pair* next;
};
constexpr std::string_view kPair = "struct Pair { int first; int second; struct Pair *next; }\n";

std::string address_of(const void* object) { return std::to_string(reinterpret_cast<std::uintptr_t>(object)); }

}  // namespace

TEST_CASE("program: typeof() is a type wherever one stands") {
  const std::pair<std::string, std::string> cases[] = {
      {"begin { let $a: typeof(uint16) = (uint16)7; print((sizeof($a), $a)) }", "(2, 7)\n"},
      {"begin { $x = (int8)-1; let $y: typeof($x); print(sizeof($y)); print((typeof($x))300) }", "1\n44\n"},
      {"begin { $p = (uint32*)0; print(sizeof(typeof(*$p))); print(sizeof(typeof($p)[3])) }", "4\n24\n"},
      {"begin { @m[(int16)1, \"ab\"] = (uint8)2; print(sizeof(typeof(@m))); print(sizeof(typeof(@m[(int16)1, \"ab\"]))); "
       "clear(@m) }",
       "6\n1\n"},
      {"macro width(T) { sizeof(T) } begin { print(width(typeof(uint32))); print(width((int16)1)) }", "4\n2\n"},
      {"macro all(T, U) { sizeof(T[3]) + sizeof(U*) } begin { print(all(typeof(int16), typeof(int8))) }", "14\n"},
      {"macro low(T, x) { (T*)x } begin { print(low(typeof(int8), 16) + 1) }", "0x11\n"},
      {"macro m(T) { let $v: typeof(T) = (typeof(T))1; sizeof($v) } macro n(x) { m(typeof(x)) } begin { print(n((uint16)3)) }",
       "2\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of_program(text) == printed);
  }
  CHECK(messages_of("begin { print(typeof(int8)) }") == std::vector<std::string>{"15: a type is no value"});
  CHECK(messages_of("begin { print(sizeof(typeof($no))) }") ==
        std::vector<std::string>{"29: Undefined or undeclared variable: $no"});
}

TEST_CASE("program: container_of() finds what a member is in") {
  Pair inner{1, 2, nullptr}, pair{3, 4, &inner};
  const std::string block = "$p = (int32*)" + address_of(&pair.second) + "; ";
  CHECK(output_of_program(std::string(kPair) + "begin { " + block +
                          "print(container_of($p, struct Pair, second)->first) }") == "3\n");
  CHECK(output_of_program(std::string(kPair) + "begin { " + block +
                          "print(container_of($p, typeof(struct Pair), second)->next->second) }") == "2\n");
}

TEST_CASE("program: constant expressions index tuples, and a block may end in an aggregation") {
  CHECK(output_of("$a = (1, \"b\", 3); print($a[1 + 1]); print($a[2 * 2 - 3])") == "3\nb\n");
  check_mistake("$a = (1, 2); print($a[1 + 1])", "Invalid tuple index: 2. Found 2 elements in tuple.");
  check_mistake("$a = (1, 2); $n = 0; print($a[$n])", "Invalid tuple index: 0. Found 2 elements in tuple.");
  CHECK(output_of("@ = { let $a = 100; avg($a) }; @c = { @n = 3; { print(1); count() } }") ==
        "1\n@: 100\n@c: 1\n@n: 3\n");
  check_mistake("@ = { let $a = 1; $b = count(); avg($a) }", "count() should be assigned to a map");
}

TEST_CASE("program: find() sets its variable where the key is there") {
  CHECK(output_of("@m[2] = (1, \"hello\"); let $v; if (find(@m, 2, $v)) { print($v) } clear(@m)") == "(1, hello)\n");
  CHECK(output_of(
            "@m[2] = 7; let $v = 5; print(find(@m, 3, $v)); print($v); print(find(@m, 2, $v)); print($v); clear(@m)") ==
        "false\n5\ntrue\n7\n");
  CHECK(output_of("@c[1] = count(); @c[1] = count(); let $n; find(@c, 1, $n); print($n); clear(@c)") == "2\n");
  check_mistake("@m[1] = 1; find(@m, 1, 2)", "find() expects a variable for the value");
  check_mistake("@m[1] = 1; find(@m, 1, $v)", "Undefined or undeclared variable: $v");
  check_mistake("@m = 1; let $v; find(@m, 1, $v)", "call to find() expects a map with explicit keys (non-scalar map)");
}

TEST_CASE("program: a text that is cut says so") {
  const char text[] = "0123456789";
  const std::string address = address_of(text);
  const std::string cut = "config = { max_strlen = 8 } begin { $s = str(" + address + "); ";
  CHECK(output_of_program(cut + "print($s); print(strlen($s)); @[$s] = 1 }") == "01234567..\n8\n@[01234567..]: 1\n");
  CHECK(output_of_program("config = { max_strlen = 8 } begin { print(str(" + address + ", 5)) }") == "0123\n");
  CHECK(output_of_program("config = { max_strlen = 10; str_trunc_trailer = \"\" } begin { print(str(" + address +
                          ")) }") == "0123456789\n");
  CHECK(output_of_program("config = { max_strlen = 11; str_trunc_trailer = \"!\" } begin { print(str(" + address +
                          ")) }") == "0123456789\n");
  for (int bytes = 1; bytes <= 24; ++bytes) {  // whatever the number of words, nothing is left behind the text
    CAPTURE(bytes);
    const std::string length = std::to_string(bytes);
    CHECK(output_of("$s = str(" + address + ", " + length + "); print(strlen($s)); print($s == \"" +
                    std::string(text).substr(0, static_cast<std::size_t>(bytes - 1)) + "\")") ==
          std::to_string(std::min(bytes - 1, 10)) + "\ntrue\n");
  }
}

TEST_CASE("program: to go through a map costs a loop its turns") {
  const auto program = compiled("begin { for ($i : 0..4000) { @m[$i] = 1 } while (1) { @n++; len(@m) } }");
  program->run(language::Probe::Event::kBegin);
  const std::string maps = program->maps();
  const std::size_t at = maps.find("@n: ");
  REQUIRE(at != std::string::npos);
  CHECK(std::stoul(maps.substr(at + 4)) < kMostTurns / 400);
  CHECK(run_time_errors(program->analysis(), program->place(), true).size() == 1);
}

TEST_CASE("program: aggregations make room, too") {
  const std::pair<std::string, std::string> cases[] = {
      {"count()", "@m[2]: 1\n"}, {"sum(5)", "@m[2]: 5\n"},
      {"min(5)", "@m[2]: 5\n"},  {"max(-5)", "@m[2]: -5\n"},
      {"avg(6)", "@m[2]: 6\n"},  {"stats(6)", "@m[2]: { .count = 1, .average = 6, .total = 6 }\n"}};
  for (const auto& [value, printed] : cases) {
    CAPTURE(value);
    const auto program = compiled("let @m = percpulruhash(1); begin { @m[1] = " + value + "; @m[1] = " + value +
                                  "; @m[2] = " + value + " }");
    program->run(language::Probe::Event::kBegin);
    CHECK(program->maps() == printed);
    CHECK(run_time_errors(program->analysis(), program->place(), false).empty());
  }
  CHECK(output_of_program("let @m = lruhash(4); begin { for ($i : 0..100) { @m[$i] = hist($i) } print(len(@m)); "
                          "zero(@m); print(len(@m)); clear(@m) }") == "4\n4\n");
}

TEST_CASE("program: intervals run at hits, when their time has come") {
  const auto program =
      compiled("interval:us:200 { @n++ } i:s:3600 { @never++ } uprobe:x:f { @hits++; if (@n >= 3) { exit() } }");
  const ubp_context nowhere{nullptr, nullptr, nullptr, nullptr};
  std::uint64_t hits = 0;
  for (; !program->is_closed(); ++hits) program->function(2)(&nowhere, nullptr);
  const std::string maps = program->maps();
  CHECK(maps.find("@n: 3\n") != std::string::npos);
  CHECK(maps.find("@hits: " + std::to_string(hits) + "\n") != std::string::npos);
  CHECK(maps.find("@never") == std::string::npos);
}

TEST_CASE("program: what intervals are called") {
  const language::Program tree = tree_of("i:ms:10 { } interval:1s, begin { } interval:hz:50 { }");
  REQUIRE(tree.probes.size() == 4);
  CHECK(tree.probes[0].name == "interval:ms:10");
  CHECK(tree.probes[0].period == 10'000'000);
  CHECK(tree.probes[1].name == "interval:1s");
  CHECK(tree.probes[1].period == 1'000'000'000);
  CHECK(tree.probes[2].event == language::Probe::Event::kBegin);
  CHECK(tree.probes[3].period == 20'000'000);
  CHECK(messages_of("interval:1s { print(arg0) }") ==
        std::vector<std::string>{"21: The arg0 builtin can not be used with 'interval' probes"});
}

}  // namespace ubp::program
