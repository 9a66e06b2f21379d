// Arguments by their names and source lines, by debug information: with and without optimisation, under `ubp run` and
// preloaded alone, and what is said where there is none.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::source_test {

namespace {

constexpr const char* kLevels[] = {"fx_source0", "fx_source2"};

Outcome ubp_run(const std::string& program, const std::string& command) {
  const std::string ubp = command_path();
  return run({.argv = {ubp, "run", "-e", program, "--", command}, .env = {}, .preload = false, .timeout_s = 60});
}

}  // namespace

TEST_CASE("args_values: of every kind, with and without optimisation") {
  for (const std::string level : kLevels) {
    CAPTURE(level);
    const std::string at = "uprobe:" + fixture(level) + ":";
    const Outcome outcome =
        ubp_run(at +
                    "numbers { printf(\"%d %d %d %lu %s %p %d %d\\n\", args.a, args.b, args.c, args.d, str(args.text), "
                    "args.nothing, args.g, args.h); if (args.a < 0 && args.h < -7) { print(\"signed\") } }" +
                    at +
                    "by_value { print(args.p); print(args.t); print(args.b.values); print(args.b.name); "
                    "print(args.b.inside); print(args.b.colour); print(args.b.next->values[4]); print(args.colour); "
                    "$b = args.b; print($b.inside.tiny); print(sizeof(args.b)) }" +
                    at +
                    "by_pointer { print(*args.packed); print(args.packed->i); print(args.bits->five); "
                    "print(args.bits->forty); print(args->bits.tail); print(args.aligned->i); "
                    "print((args.anonymous->low, args.anonymous->high, args.anonymous->kind)) }" +
                    at + "beside_floats { print((args.i, args.j)) }" + at + "in_registers { print(args) }",
                fixture(level));
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(outcome.end() == "exit 0");
    for (const std::string line :
         {"-1 65535 -100000 9223372036854775808 text 0 -6 -8",
          "signed",
          "{ .x = 1, .y = -2 }",
          "{ .whole = 3, .half = -4 }",
          "[10,20,30,40,-50]",
          "hello",
          "{ .small = -7, .tiny = 200 }",
          "kGreen",
          "-50",
          "kBlue",
          "200",
          "72",
          "{ .c = 111, .i = -77 }",
          "-77",
          "7",
          "11259375",
          "116",
          "-88",
          "(9, 7, 2)",
          "(7, -9)",
          "{ .a = -1, .t = { .whole = 3, .half = -4 }, .e = { .i = 99, .f = null }, .flag = true }"}) {
      CAPTURE(line);
      CHECK(has_line(outcome.out, line));
    }
  }
}

TEST_CASE("args_layouts: structs lie as the compiler has laid them out") {
  for (const std::string level : kLevels) {
    const Outcome plain = run_plain({fixture(level)});
    std::string program = "uprobe:" + fixture(level) + ":numbers { ";
    int count = 0;
    for (const std::string& line : lines(plain.out)) {
      if (line.rfind("sizeof(", 0) != 0 && line.rfind("offsetof(", 0) != 0) continue;
      const std::string what = line.substr(0, line.rfind(' '));
      program +=
          "if (" + what + " == " + line.substr(line.rfind(' ') + 1) + ") { @good++ } else { print(\"" + what + "\") } ";
      ++count;
    }
    REQUIRE(count == 12);
    const Outcome outcome = ubp_run(program + "}", fixture(level));
    CAPTURE(outcome.out);
    CHECK(has_line(outcome.out, "@good: " + std::to_string(count)));
  }
}

TEST_CASE("args_lines: statements of a line, and the arguments there") {
  for (const std::string level : kLevels) {
    CAPTURE(level);
    const auto said = numbers(run_plain({fixture(level)}).out);
    const std::string in = std::to_string(said.at("in_loop")), behind = std::to_string(said.at("behind"));
    const std::string at = "uprobe:" + fixture(level) + "@";
    const Outcome outcome = ubp_run(at + "fx_source.c:" + in + " { @in = count(); @left = sum(args.count) }" + at +
                                        "fixtures/fx_source.c:" + behind + " { @behind = count() }",
                                    fixture(level));
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(has_line(outcome.out, "@in: 5"));
    CHECK(has_line(outcome.out, "@left: 15"));
    CHECK(has_line(outcome.out, "@behind: 1"));
  }
}

TEST_CASE("args_alone: preloaded without a command, and nothing of what reads it is in the process") {
  for (const std::string level : kLevels) {
    CAPTURE(level);
    const Outcome plain = run_plain({fixture(level)});
    const std::string line = "fx_source.c:" + std::to_string(numbers(plain.out).at("behind"));
    const Outcome probed =
        run_probed({fixture(level)}, "numbers { @c = args.c } " + level + "@" + line + " { @t = str(args.text) } " +
                                         "by_pointer { @i = ((struct packed*)arg0)->i }");
    CAPTURE(probed.err);
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == plain.out);
    CHECK(numbers(probed.out).at("libraries") == 0);
    CHECK(has_line(probed.err, "@c: -100000"));
    CHECK(has_line(probed.err, "@i: -77"));
    CHECK(total(probed.summary(), "hits") == 3);
  }
}

TEST_CASE("args_refused: what is not there, and why") {
  const auto message = [](const std::string& program, const std::string& command) {
    const Outcome outcome = ubp_run(program, fixture(command));
    CHECK(outcome.end() != "exit 0");
    return outcome.err;
  };
  const std::string at = "uprobe:" + fixture("fx_source2");
  const std::string unknown = message(at + ":numbers { print(args.zz) }", "fx_source2");
  CHECK(unknown.find("Can't find function parameter zz") != std::string::npos);
  CHECK(unknown.find("there is a, b, c, d, text, nothing, g, h") != std::string::npos);
  CHECK(message(at + ":beside_floats { print(args.d) }", "fx_source2")
            .find("of a type that programs have no values of") != std::string::npos);
  CHECK(message("uprobe:" + fixture("fx_hello") + ":compute { print(args.n) }", "fx_hello")
            .find("args is known by debug information, and there is none") != std::string::npos);
  CHECK(message(at + "@fx_source.c:1 { }", "fx_source2").find("there is no code at fx_source.c:1") !=
        std::string::npos);
  CHECK(message(at + "@fx_source.c:1 { }", "fx_source2").find("lines with code: ") != std::string::npos);
  CHECK(message(at + "@other.c:1 { }", "fx_source2").find("no source file 'other.c' is part of ") != std::string::npos);
  CHECK(message("uprobe:" + fixture("fx_hello") + "@fx_hello.c:1 { }", "fx_hello").find("no debug information says") !=
        std::string::npos);
  // A compiler that has put a constant in its place has no argument any more.
  const Outcome gone = ubp_run(at + ":specialised* { print(str(args.text)) }", fixture("fx_source2"));
  if (gone.end() != "exit 0")
    CHECK(gone.err.find("text cannot be read: it is optimised out here") != std::string::npos);
}

}  // namespace ubp::test::source_test
