// Loops, and blocks that are worth something.
#include <fmt/format.h>

#include <thread>

#include "compiled.h"
#include "runtime/helpers/helpers.h"

namespace ubp::program {

TEST_CASE("program: loops through ranges") {
  const std::pair<std::string, std::string> cases[] = {
      {"for ($i : 2..5) { print($i) }", "2\n3\n4\n"},
      {"for $i : -1..1 { print($i) }", "-1\n0\n"},
      {"for ($i : 3..3) { print($i) } for ($i : 3..-3) { print($i) }", ""},
      {"$n = 3; for ($i : 0..$n) { $n = 1; $i = 7; print($i) }", "7\n7\n7\n"},
      {"for ($i : 0..9) { if ($i == 1) { continue } if ($i == 3) { break } print($i) } print(\"over\")",
       "0\n2\nover\n"},
      {"for ($i : 0..3) { for ($j : 0..$i) { print(($i, $j)) } }", "(1, 0)\n(2, 0)\n(2, 1)\n"},
      {"for ($i : 0..3) { if ($i == 1) { return $i } print($i) } print(\"over\")", "0\n"},
      {"for ($i : 18446744073709551614..18446744073709551615) { print($i) }", "18446744073709551614\n"},
      {"for ($i : 9223372036854775806..9223372036854775807) { print($i) }", "9223372036854775806\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
}

TEST_CASE("program: loops through maps") {
  const std::pair<std::string, std::string> cases[] = {
      {"@[7] = 8; for ($e : @) { print($e); print($e.0 + $e.1) } clear(@)", "(7, 8)\n15\n"},
      {"@[1, \"a\"] = \"x\"; for ($e : @) { print($e.0.1); print($e.1) } clear(@)", "a\nx\n"},
      {"@c[1] = count(); @c[1] = count(); @a[2] = avg(7); for ($e : @c) { print($e) } for ($e : @a) { print($e) } "
       "clear(@c); clear(@a)",
       "(1, 2)\n(2, 7)\n"},
      {"for ($i : 0..100) { @[$i] = $i } $sum = 0; for ($e : @) { $sum += $e.1 } print($sum); clear(@)", "4950\n"},
      {"for ($i : 0..10) { @[$i] = 1 } for ($e : @) { delete(@, $e.0) } print(len(@))", "0\n"},
      {"for ($i : 0..10) { @[$i] = 1 } $n = 0; for ($e : @) { clear(@); $n++ } print($n)", "1\n"},
      // What is put in meanwhile makes the loop no longer.
      {"@[0] = 1; $n = 0; for ($e : @) { @[$e.0 + 1] = 1; $n++ } print($n); print(len(@)); clear(@)", "1\n2\n"},
      {"@[1] = 1; @[1] = 70000; for ($e : @) { print($e) } @[(int64)5] = 1; clear(@)", "(1, 70000)\n"},
      {"for ($e : @) { print($e) } if (0) { @[1] = 1 }", ""},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
  CHECK(messages_of("begin { @ = 1; for ($e : @) { } }") ==
        std::vector<std::string>{"26: @ has no keys, and a loop goes through a map's keys"});
  CHECK(messages_of("begin { @[1] = hist(1); for ($e : @) { } }").size() == 1);
}

TEST_CASE("program: no loop is for ever") {
  const auto program =
      compiled("begin { for ($i : 0..10) { for ($j : 0..1000000000) { @n++ } } } end { while (1) { @m++ } }");
  program->run(language::Probe::Event::kBegin);
  program->run(language::Probe::Event::kEnd);
  CHECK(program->maps() == fmt::format("@m: {}\n@n: {}\n", kMostTurns, kMostTurns - 1));
  const auto errors = run_time_errors(program->analysis(), program->place(), false);
  REQUIRE(errors.size() == 2);
  CHECK(errors[0].span.begin.column == 28);
}

// A thread changes the map that another one goes through: keys that stay are met, each once, with a value of theirs.
TEST_CASE("program: a loop through a map that is changed meanwhile") {
  const auto program = compiled(
      "begin { for ($i : 0..50) { @[$i] = ($i, $i) } for ($k : 0..200) { $n = 0; "
      "for ($e : @) { if ($e.0 < 50) { $n++ } if ($e.0 != $e.1.0 || $e.0 != $e.1.1) { @torn = 1 } } "
      "if ($n != 50) { @missed = $n } } } "
      "end { for ($k : 0..2000) { for ($i : 50..60) { @[$i] = ($i, $i); delete(@, $i) } } }");
  std::thread other([&] { program->run(language::Probe::Event::kEnd); });
  program->run(language::Probe::Event::kBegin);
  other.join();
  const std::string maps = program->maps();
  CHECK(maps.find("@torn") == std::string::npos);
  CHECK(maps.find("@missed") == std::string::npos);
}

TEST_CASE("program: blocks and choices as expressions") {
  const std::pair<std::string, std::string> cases[] = {
      {"$a = { let $b = 2; $b + 1 }; print($a)", "3\n"},
      {"print({ print(1); \"two\" })", "1\ntwo\n"},
      {"if ({ $x = 1; $x > 0 }) { print(\"yes\") }", "yes\n"},
      {"$x = 5; print(if ($x > 3) { \"more\" } else if ($x > 2) { \"three\" } else { \"x\" })", "more\n"},
      {"print(if (0) { 1 } else { if (1) { if (0) { 2 } else { 3 } } else { 4 } })", "3\n"},
      {"$t = { (1, { \"a\" }) }; print($t.1); _ = { print(2); 3 }", "a\n2\n"},
      {"for ($i : 0..4) { $x = { if ($i == 1) { continue } $i }; print($x) }", "0\n2\n3\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
  CHECK(output_of_program("begin /{ let $a = 1; $a == 1 }/ { print(1) }") == "1\n");
  CHECK(messages_of("begin { print(if (1) { 1 } else { \"a\" }) }").size() == 1);
  CHECK(messages_of("begin { { let $a = 1; } print($a) }") ==
        std::vector<std::string>{"31: Undefined or undeclared variable: $a"});
}

TEST_CASE("program: statements that are never come to, and loops that are out of use, are warnings") {
  const std::pair<std::string, std::string> cases[] = {
      {"begin { exit(); print(1); print(2) }", "17: Unreachable statement."},
      {"begin { for ($i : 0..2) { break; print($i) } }", "34: Unreachable statement."},
      {"begin { while (0) { } }", "9: While loops are deprecated and may be removed in the future."},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK(messages_of(text) == std::vector{message});
  }
  CHECK(messages_of("begin { if (1) { exit(); } print(1) }").empty());
}

}  // namespace ubp::program
