// Variables by name, at lines: under `ubp run` and preloaded alone, against what the program computes and against gdb;
// what `ubp vars` and `ubp lines` list.
#include <doctest/doctest.h>

#include <filesystem>

#include "harness.h"

namespace ubp::test::vars_test {

namespace {

constexpr const char* kVarLevels[] = {"fx_vars0", "fx_vars2"};

Outcome run_vars(const std::string& program, const std::string& file) {
  return run(
      {.argv = {command_path(), "run", "-e", program, "--", file}, .env = {}, .preload = false, .timeout_s = 60});
}
Outcome run_vars_of(std::vector<std::string> words) {
  words.insert(words.begin(), command_path());
  return run({.argv = words, .env = {}, .preload = false, .timeout_s = 60});
}

void has_part(const std::string& text, const std::string& part) {
  CAPTURE(text);
  CAPTURE(part);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("vars_values: locals, statics, globals and members, with what is in them") {
  for (const std::string level : kVarLevels) {
    CAPTURE(level);
    const auto said = numbers(run_plain({fixture(level)}).out);
    const auto at = [&](const char* line) {
      return "uprobe:" + fixture(level) + "@fx_vars.cpp:" + std::to_string(said.at(line));
    };
    const Outcome outcome =
        run_vars(at("loop") +
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
  for (const std::string level : kVarLevels) {
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
  compare_with_gdb("fx_vars.cpp", "fx_vars2");
}

TEST_CASE("vars_refused: what is gone, and where it lives") {
  const auto said = numbers(run_plain({fixture("fx_vars2")}).out);
  const std::string at = "uprobe:" + fixture("fx_vars2") + "@fx_vars.cpp:";
  const std::string first = std::to_string(said.at("gone"));
  const Outcome gone = run_vars(at + first + " { print(args.shortly) }", fixture("fx_vars2"));
  CHECK(gone.end() != "exit 0");
  has_part(gone.err, "shortly cannot be read: it is optimised out here");
  has_part(gone.err, "; it lives at lines ");
  has_part(gone.err, "stdin:1:1-");
  const Outcome unknown = run_vars(at + first + " { print(args.nothing) }", fixture("fx_vars2"));
  has_part(unknown.err, "Can't find function parameter nothing, nor a variable");
}

TEST_CASE("vars_returns: where a function returns its parameters are gone, and call: has them") {
  for (const std::string what : {"args", "args.count", "arg0"}) {
    const Outcome gone = run_vars("ur:" + fixture("fx_vars2") + ":loops { print(" + what + ") }", fixture("fx_vars2"));
    CAPTURE(gone.err);
    CHECK(gone.end() == "exit 1");
    has_part(gone.err, "ERROR: The " + what.substr(0, 4) + " builtin can not be used with 'uretprobe' probes");
    has_part(gone.err, "HINT: call: keeps the arguments until the return");
  }
}

TEST_CASE("vars_names: a library's, a command's, or else a file's in this folder") {
  const ScratchFolder scratch;
  const std::string file = fixture("fx_vars2"), folder = file.substr(0, file.rfind('/'));
  const auto in_folder = [](const std::string& words, const std::string& its_folder, const std::string& path) {
    return run_shell("cd " + its_folder + " && PATH=" + path + " exec " + command_path() + ' ' + words);
  };
  const std::string nowhere = scratch.path();
  for (const std::string what : {"vars ", "lines "}) {
    CAPTURE(what);
    const std::string whole = in_folder(what + "./fx_vars2:loops", folder, nowhere).out;
    CHECK(!whole.empty());
    CHECK(in_folder(what + "fx_vars2:loops", folder, nowhere).out == whole);
    CHECK(in_folder(what + "fx_vars2@fx_vars.cpp:1", folder, nowhere).err.find("no file") == std::string::npos);
    has_part(in_folder(what + "fx_vars2:loops", nowhere, nowhere).err, "there is no file 'fx_vars2'");
    CHECK(in_folder(what + "fx_vars2:loops", nowhere, folder).end() == "exit 0");  // of PATH
  }
  has_part(in_folder("list uprobe:fx_vars2:main", folder, nowhere).out, "uprobe:./fx_vars2:main\n");
  // One in PATH comes first, and a file that is named to list it does not.
  std::filesystem::copy_file(fixture("fx_hello"), scratch.path() + "/fx_vars2");
  const Outcome other = in_folder("vars fx_vars2:main", folder, nowhere);
  has_part(other.err, "there is no debug information of " + scratch.path() + "/fx_vars2");
  has_part(other.err, "HINT: the file in this folder is ./fx_vars2");
  has_part(in_folder("list fx_vars2", folder, nowhere).out, "uprobe:./fx_vars2:main\n");
}

TEST_CASE("vars_lists: what can be seen, and which lines have code") {
  const auto said = numbers(run_plain({fixture("fx_vars2")}).out);
  const std::string file = fixture("fx_vars2");
  const Outcome vars = run_vars_of({"vars", file + "@fx_vars.cpp:" + std::to_string(said.at("loop"))});
  CAPTURE(vars.err);
  has_part(vars.out, " in loops\n    int count ");
  has_part(vars.out, "    const int half ");
  has_part(vars.out, "  (lines ");
  const Outcome lines = run_vars_of({"lines", file + ":loops"});
  CAPTURE(lines.err);
  has_part(lines.out, "loops (");
  has_part(lines.out, "     " + std::to_string(said.at("loop")) + "      total += weight + half;\n");
  const Outcome whole = run_vars_of({"lines", file + "@fx_vars.cpp"});
  has_part(whole.out, "     " + std::to_string(said.at("late")) + "    used(colour);\n");
  has_part(whole.out, "         enum Colour { kRed, kGreen = 5, kBlue = -1 };\n");
  has_part(run_vars_of({"lines", file + ":nothing"}).err, "no function 'nothing' is known in ");
  has_part(run_vars_of({"vars", file + "@fx_vars.cpp:1"}).err, "HINT: lines with code: ");
  has_part(run_vars_of({"vars", file + "@other.cpp:1"}).err, "no source file 'other.cpp' is part of ");
  has_part(run_vars_of({"vars", fixture("fx_hello") + ":compute"}).err, "there is no debug information of ");
}

}  // namespace ubp::test::vars_test
