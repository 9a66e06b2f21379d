// What blocks do: variables, loops, maps, strings, events.
#include "compiled.h"

namespace ubp::program {

TEST_CASE("program: statements do what C's would") {
  const std::pair<std::string, std::string> cases[] = {
      {"$x = 1; $x += 4; $x <<= 2; $x -= 1; print($x)", "19\n"},
      {"$x = 5; print($x++); print(++$x); print($x--); print(--$x)", "5\n7\n7\n5\n"},
      {"let $x; print($x); let $y: uint8 = 7; print($y)", "0\n7\n"},
      {"$i = 0; while ($i < 10) { $i++; if ($i % 2) { continue } if ($i > 6) { break } print($i) }", "2\n4\n6\n"},
      {"$n = 0; unroll(7) { $n += 2 } print($n)", "14\n"},
      {"if (1 > 2) { print(1) } else if (2 > 1) { print(2) } else { print(3) }", "2\n"},
      {"if (1) { $x = 1; print($x) } if (1) { $x = \"a\"; print($x) }", "1\na\n"},
      {"print(1 ? \"yes\" : \"no\"); print(0 ?: 7)", "yes\n7\n"},
      {"return; print(1)", ""},
      {"print(1); exit(); print(2)", "1\n"},
      {"$t = (1, (\"ab\", true)); print($t); print($t.1.0); print(($t.0, $t.1).1)",
       "(1, (ab, true))\nab\n(ab, true)\n"},
      {"$s = \"a\"; $s = \"longer\"; print($s); print($s == \"longer\"); print($s != \"long\")",
       "longer\ntrue\ntrue\n"},
      {"print(\"\" == \"a\"); print((bool)\"a\"); print((bool)\"\")", "false\ntrue\nfalse\n"},
      {"1 ? print(1) : print(2)", "1\n"},
      {"print(str(0)); print(probe)", "\nbegin\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
}

TEST_CASE("program: maps keep what is assigned") {
  const std::pair<std::string, std::string> cases[] = {
      {"@x = 1; @x = 5; @y++; ++@y; @z = @x + @y; @z *= 3", "@x: 5\n@y: 2\n@z: 21\n"},
      {"@[1] = 2; @[2] = 1; @[1] += 5; @[3]--", "@[3]: -1\n@[2]: 1\n@[1]: 7\n"},
      {"@[\"b\"] = \"x\"; @[\"a\"] = \"longer\"; @[\"b\"] = \"y\"", "@[a]: longer\n@[b]: y\n"},
      {"@[1, \"b\"] = (1, 2); @[1, \"a\"] = (3, 4)", "@[1, a]: (3, 4)\n@[1, b]: (1, 2)\n"},
      {"@[\"abc\"] = 1; @[\"b\"] = 2; print(@[\"b\"])", "2\n@[abc]: 1\n@[b]: 2\n"},
      {"@x = 1; delete(@x); @y[1] = 2; @y[2] = 3; delete(@y, 1); print(has_key(@y, 1)); print(delete(@y[7]))",
       "false\nfalse\n@y[2]: 3\n"},
      {"@x[1] = 1; @x[2] = 2; print(len(@x)); clear(@x); print(len(@x)); @x[3] = 3", "2\n0\n@x[3]: 3\n"},
      {"@x[1] = 5; @y = count(); zero(@x); zero(@y); @s[1] = \"a\"; zero(@s)", "@s[1]: \n@x[1]: 0\n@y: 0\n"},
      {"@x[1] = 5; print(@x); @x[1] = 6; print(@x, 1, 2); clear(@x)", "@x[1]: 5\n@x[1]: 3\n"},
      {"@ = 5; print(@); print(@unset); @unset = 1; delete(@unset)", "@: 5\n@unset: 0\n@: 5\n"},
      {"$k = (1, \"a\"); @[$k] = 1; print(@[1, \"a\"])", "1\n@[1, a]: 1\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
}

TEST_CASE("program: aggregations") {
  const std::pair<std::string, std::string> cases[] = {
      {"@c = count(); @c = count(); @s = sum(5); @s = sum(-7); print(@c + 1)", "3\n@c: 2\n@s: -2\n"},
      {"@a = min(-5); @a = min(3); @b = max(-5); @b = max(-9); @c = max((uint64)3)", "@a: -5\n@b: -5\n@c: 3\n"},
      {"@a = avg(1); @a = avg(4); @a = avg(-11); @b = stats(5); @b = stats(2)",
       "@a: -2\n@b: { .count = 2, .average = 3, .total = 7 }\n"},
      {"@[\"x\"] = count(); @[\"y\"] = count(); @[\"y\"] = count(); delete(@, \"x\"); @[\"z\"] = count()",
       "@[z]: 1\n@[y]: 2\n"},
      {"@h = hist(-1); @h = hist(0); @h = hist(1); @h = hist(3); @h = hist(3)",
       "@h:\n"
       "(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
       "[0]                    1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
       "[1]                    1 |@@@@@@@@@@@@@@@@@@@@@@@@@@                          |\n"
       "[2, 4)                 2 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n\n"},
      {"@[7] = lhist(5, 0, 20, 10); @[7] = lhist(-1, 0, 20, 10); @[7] = lhist(20, 0, 20, 10)",
       "@[7]:\n"
       "(..., 0)               1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n"
       "[0, 10)                1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n"
       "[10, 20)               0 |                                                    |\n"
       "[20, ...)              1 |@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@|\n\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
}

TEST_CASE("program: printf") {
  const std::pair<std::string, std::string> cases[] = {
      {"printf(\"%d %u %x %X %o\", -1, -1, -1, 255, 8)", "-1 4294967295 ffffffff FF 10"},
      {"printf(\"%ld %lu %hhd %hx\", -1, -1, 300, 65537)", "-1 18446744073709551615 44 1"},
      {"printf(\"[%5d][%-5d][%05d][%+d][% d][%#x]\", 42, 42, -3, 7, 7, 255)", "[   42][42   ][000-3][+7][ 7][0xff]"},
      {"printf(\"%s|%8s|%-8s|%c|%p|%%\", \"a\", \"b\", \"c\", 65, 4096)", "a|       b|c       |A|0x1000|%"},
      {"printf(\"%s %s %s\", 5, (1, \"x\"), true)", "5 (1, x) true"},
      {"printf(\"plain\")", "plain"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
}

TEST_CASE("program: str() reads up to the NUL, never past what is there") {
  const char text[] = "hello";
  const std::string address = std::to_string(reinterpret_cast<std::uint64_t>(text));
  CHECK(output_of("print(str(" + address + ")); print(str(" + address + ", 3)); $n = 4; print(str(" + address +
                  ", $n))") == "hello\nhe\nhel\n");
  const auto program = compiled("begin { print(str(8)); @[str(16)] = count() }");
  program->run(language::Probe::Event::kBegin);
  CHECK(program->printed() + program->maps() == "\n@[]: 1\n");
  CHECK(run_time_errors(program->analysis(), program->place(), true).size() == 2);
}

TEST_CASE("program: a text of a length that is known when it runs has nothing of an earlier one behind it") {
  const std::string address = std::to_string(reinterpret_cast<std::uintptr_t>("a text that is rather long"));
  CHECK(output_of("for ($n : 1..40) { $m = 2 + ($n & 1) * 30; @[str(" + address + ", $m)] = count() }") ==
        "@[a]: 19\n@[a text that is rather long]: 20\n");
  CHECK(output_of("$s = str(" + address + "); $n = 3; $s = str(" + address + ", $n); @[$s] = 1; @[str(" + address +
                  ", 3)] += 2; print($s)") == "a \n@[a ]: 3\n");
}

TEST_CASE("program: a loop without end is ended, and that is said") {
  const auto program = compiled("begin { while (1) { @n++ } print(\"not here\") }");
  program->run(language::Probe::Event::kBegin);
  CHECK(program->maps() == "@n: 1048576\n");
  CHECK(program->printed().empty());
  REQUIRE(run_time_errors(program->analysis(), program->place(), true).size() == 1);
}

TEST_CASE("program: begin and end run in the order of the text, and exit() ends begin") {
  const auto program =
      compiled("begin { print(1) } end { print(4) } begin { print(2); exit(3) } begin { print(3) } end { print(5) }");
  program->run(language::Probe::Event::kBegin);
  CHECK(program->is_closed());
  program->run(language::Probe::Event::kEnd);
  CHECK(program->printed() == "1\n2\n4\n5\n");
}

}  // namespace ubp::program
