// Variables by name, at lines: under `ubp run` and preloaded alone, against what the program computes and against gdb;
// what `ubp vars` and `ubp lines` list.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

using namespace ubp::test;

namespace {

constexpr const char* kLevels[] = {"fx_vars0", "fx_vars2"};

// Beside this source; empty: nobody has said where.
std::string compare_variables() {
  const char* const sources = std::getenv("UBP_TEST_SOURCES");
  return sources != nullptr ? std::string(sources) + "/compare_variables" : "";
}

std::string command() {
  const char* const ubp = std::getenv("UBP_TEST_COMMAND");
  REQUIRE(ubp != nullptr);
  return ubp;
}

Outcome ubp_run(const std::string& program, const std::string& file) {
  return run({.argv = {command(), "run", "-e", program, "--", file}, .env = {}, .preload = false, .timeout_s = 60});
}
Outcome run_ubp(std::vector<std::string> words) {
  words.insert(words.begin(), command());
  return run({.argv = words, .env = {}, .preload = false, .timeout_s = 60});
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}
void has(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CAPTURE(part);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("vars_values: locals, statics, globals and members, with what is in them") {
  for (const std::string level : kLevels) {
    CAPTURE(level);
    const auto said = numbers(run_plain({fixture(level)}).out);
    const auto at = [&](const char* line) {
      return "uprobe:" + fixture(level) + "@fx_vars.cpp:" + std::to_string(said.at(line));
    };
    const Outcome outcome =
        ubp_run(at("loop") +
                    " { @total = args.total; @i = args.i; @half = args.half; @calls = args.calls; "
                    "@first = args.first->weight; @name = args.first->name; @kind = args.first->kind; "
                    "@next = args.first->next->at.y; }" +
                    at("inner") + " { @weight = sum(args.weight) }" + at("late") +
                    " { @colour = args.colour; @entry = args.table[7].at.y; @entries = args.table[39].name; "
                    "@count = args.global_count; @file = args.file_count; @origin = args.origin; "
                    "@line = args.loop_line; @inner = args.first->weight }" +
                    at("add") +
                    " { @before = sum(args.before); @amount = sum(args.amount); @where = args.where->x; "
                    "@same = args.this->sum - args.sum; @base = args.number; @last = args.last }" +
                    at("piece") + " { @x = args.both.x; @y = args.both.y; @both = args.both }",
                fixture(level));
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(outcome.end() == "exit 0");
    for (const std::string line :
         {"@i: 5", "@half: 2", "@calls: 1", "@first: 16", "@name: item5", "@kind: 5", "@next: -6", "@colour: kBlue",
          "@entry: -7", "@entries: item39", "@count: 7", "@file: 40000", "@origin: { .x = 3, .y = -4 }", "@inner: 16",
          "@before: 19", "@amount: 15", "@where: 14", "@same: 0",

          "@base: 17"}) {
      CAPTURE(line);
      CHECK(has_line(outcome.out, line));
    }
  }
}

TEST_CASE("vars_alone: preloaded without a command") {
  for (const std::string level : kLevels) {
    CAPTURE(level);
    const Outcome plain = run_plain({fixture(level)});
    const auto said = numbers(plain.out);
    const Outcome probed = run_probed({fixture(level)}, level + "@fx_vars.cpp:" + std::to_string(said.at("loop")) +
                                                            " { @i = sum(args.i); @w = max(args.total) }");
    CHECK(probed.out == plain.out);
    CHECK(has_line(probed.err, "@i: 15"));
    CHECK(adds_up(probed.summary()));
  }
}

// With optimisation alone: without it, variables have places before they have values.
TEST_CASE("vars_gdb: the values that gdb reads at the same instructions") {
  if (compare_variables().empty()) {
    MESSAGE("UBP_TEST_SOURCES is not set: variables are not compared with gdb");
    return;
  }
  const Outcome outcome =
      run({.argv = {compare_variables(), command(), "--source", "fx_vars.cpp", "--", fixture("fx_vars2")},
           .env = {},
           .preload = false,
           .timeout_s = 300});
  CAPTURE(outcome.out);
  CAPTURE(outcome.err);
  if (outcome.end() == "exit 77") {
    MESSAGE("not compared: " << outcome.out);
    return;
  }
  CHECK(outcome.end() == "exit 0");
  has(outcome.out, "differ 0, absent 0");
}

TEST_CASE("vars_refused: what is gone, and where it lives") {
  const auto said = numbers(run_plain({fixture("fx_vars2")}).out);
  const std::string at = "uprobe:" + fixture("fx_vars2") + "@fx_vars.cpp:";
  const std::string first = std::to_string(said.at("gone"));
  const Outcome gone = ubp_run(at + first + " { print(args.shortly) }", fixture("fx_vars2"));
  CHECK(gone.end() != "exit 0");
  has(gone.err, "shortly cannot be read: it is optimised out here");
  has(gone.err, "; it lives at lines ");
  has(gone.err, "stdin:1:1-");
  const Outcome unknown = ubp_run(at + first + " { print(args.nothing) }", fixture("fx_vars2"));
  has(unknown.err, "Can't find function parameter nothing, nor a variable");
}

TEST_CASE("vars_lists: what can be seen, and which lines have code") {
  const auto said = numbers(run_plain({fixture("fx_vars2")}).out);
  const std::string file = fixture("fx_vars2");
  const Outcome vars = run_ubp({"vars", file + "@fx_vars.cpp:" + std::to_string(said.at("loop"))});
  CAPTURE(vars.err);
  has(vars.out, " in loops\n    int count ");
  has(vars.out, "    const int half ");
  has(vars.out, "  (lines ");
  const Outcome lines = run_ubp({"lines", file + ":loops"});
  CAPTURE(lines.err);
  has(lines.out, "loops (");
  has(lines.out, "     " + std::to_string(said.at("loop")) + "      total += weight + half;\n");
  const Outcome whole = run_ubp({"lines", file + "@fx_vars.cpp"});
  has(whole.out, "     " + std::to_string(said.at("late")) + "    used(colour);\n");
  has(whole.out, "         enum Colour { kRed, kGreen = 5, kBlue = -1 };\n");
  has(run_ubp({"lines", file + ":nothing"}).err, "no function 'nothing' is known in ");
  has(run_ubp({"vars", fixture("fx_hello") + ":compute"}).err, "there is no debug information of ");
}
