// Parameters that are known at their function's entry alone: kept from there, for each activation, or said not to be.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::entry_values_test {
namespace {

// "fx_entry2@fx_entry.c:12", of a line that the fixture names.
std::string at(const char* line, const char* file = "fx_entry.c") {
  static const auto said = numbers(run_plain({fixture("fx_entry2"), "none"}).out);
  return std::string("fx_entry2@") + file + ":" + std::to_string(said.at(line));
}

Outcome run_entry(const char* mode, const std::string& probes) {
  return run_probed({fixture("fx_entry2"), mode}, probes);
}

constexpr const char* kUnknown =
    "The value is not known: the function was entered before it was probed, or in a way that is not seen, or the thread "
    "has left libc's storage. 0 is being used as the result.";

}  // namespace

TEST_CASE("entry_values_parameters: dead ones, whose registers hold something else by then") {
  const Outcome outcome =
      run_entry("values", at("late") +
                              " { printf(\"late %d %s %d\\n\", args.first, str(args.text), args.small); "
                              "@same = sum(reg(\"di\") == args.first ? 1 : 0); @all = args }" +
                              at("inlined") + " { printf(\"inlined %d\\n\", args.amount) }" + at("split") +
                              " { printf(\"split %d\\n\", args.number) }");
  CAPTURE(outcome.err);
  CHECK(outcome.end() == "exit 0");
  for (long i = 0; i < 3; ++i) {
    const std::string number = std::to_string(i);
    CHECK(has_line(outcome.err, "late 7" + number + " text " + (i == 0 ? "0" : "-" + number)));
    CHECK(has_line(outcome.err, "inlined 4" + std::to_string(i + 1)));
    CHECK(has_line(outcome.err, "split 2" + number));
  }
  CHECK(has_line(outcome.err, "@same: 0"));
  CHECK(outcome.err.find("@all: { .first = 72, .text = 0x") != std::string::npos);
  CHECK(outcome.err.find("not known") == std::string::npos);
  // The calls that are watched for it are nobody's probes.
  const nlohmann::json summary = outcome.summary();
  CHECK(adds_up(summary));
  CHECK(total(summary, "probes_requested") == 3);
  CHECK(total(summary, "hits") == 9);
  CHECK(summary["probes"].size() == 3);
}

TEST_CASE("entry_values_recursion: each activation has its own") {
  const Outcome outcome = run_entry("values", at("deep") + " { @[args.depth] = args.tag; @n = count() }");
  CAPTURE(outcome.err);
  for (long depth = 0; depth <= 5; ++depth)
    CHECK(has_line(outcome.err, "@[" + std::to_string(depth) + "]: " + std::to_string(105 - depth)));
  CHECK(has_line(outcome.err, "@n: 6"));
}

TEST_CASE("entry_values_threads: and each thread") {
  const Outcome outcome = run_entry("threads", at("deep") + " { @[args.depth + args.tag] = count() }");
  CAPTURE(outcome.err);
  for (long thread = 1; thread <= 4; ++thread)
    CHECK(has_line(outcome.err, "@[" + std::to_string(1000 * thread + 20) + "]: " + std::to_string(50 * 21)));
  CHECK(count_prefix(outcome.err, "@[") == 4);
  CHECK(adds_up(outcome.summary()));
}

TEST_CASE("entry_values_beside_calls: the same function is probed where it is called and returns") {
  const Outcome outcome =
      run_entry("values", at("deep") +
                              " { @deep[args.depth] = args.tag }"
                              "call:recurses { @call[arg0] = arg1 } ur:recurses { @returns = count() }");
  CAPTURE(outcome.err);
  for (long depth = 0; depth <= 5; ++depth) {
    for (const char* map : {"deep", "call"})
      CHECK(has_line(outcome.err,
                     "@" + std::string(map) + "[" + std::to_string(depth) + "]: " + std::to_string(105 - depth)));
  }
  CHECK(has_line(outcome.err, "@returns: 6"));
}

TEST_CASE("entry_values_refused: a function whose exits are not all known") {
  const Outcome outcome = run_entry("hidden", at("hidden", "fx_entry_hidden.c") + " { print(args.number) }");
  CAPTURE(outcome.err);
  CHECK(
      outcome.err.find("it is kept from the function's entry on, and not all of its calls can be seen: exits: not all "
                       "places are known where this function returns") != std::string::npos);
  CHECK(has_line(outcome.out, "done"));
  CHECK_FALSE(has_line(outcome.err, "4"));
}

TEST_CASE("entry_values_left: a call that was left and made again is not taken for another") {
  const Outcome outcome = run_entry("left", at("left") + " { @[args.number] = count() }");
  CAPTURE(outcome.err);
  for (const char* line : {"@[1]: 1", "@[0]: 2", "@[4]: 1", "@[5]: 1"}) CHECK(has_line(outcome.err, line));
  CHECK(count_prefix(outcome.err, "@[") == 4);
  CHECK(outcome.err.find(std::string(kUnknown) + " (2 times)") != std::string::npos);
}

TEST_CASE("entry_values_before: a function that was entered before the probe was there") {
  const Outcome outcome = run_entry("before", "libc:getppid");
  CAPTURE(outcome.err);
  CHECK(has_line(outcome.out, "registered 0"));
  CHECK(has_line(outcome.err, "number 0"));
  CHECK(has_line(outcome.err, "number 42"));
  CHECK(outcome.err.find(kUnknown) != std::string::npos);
}

TEST_CASE("entry_values_fork: a forked child goes on in its parent's calls") {
  const Outcome outcome = run_entry("fork", at("before") + " { printf(\"number %d\\n\", args.number) }");
  CAPTURE(outcome.err);
  CHECK(count_prefix(outcome.err, "number 77") == 2);
  CHECK(outcome.err.find("not known") == std::string::npos);
}

TEST_CASE("entry_values_later: in a library that comes and goes") {
  const std::string library = fixture("libfx_entry_library.so");
  const Outcome outcome =
      run_probed({fixture("fx_entry2"), "later", library},
                 library + "@fx_entry_library.c:15 { @[args.first] = str(args.text); @n = count() }",
                 {{"UBP_MISSING", "pending"}});
  CAPTURE(outcome.err);
  for (long i = 0; i < 5; ++i) CHECK(has_line(outcome.err, "@[1" + std::to_string(i) + "]: text"));
  CHECK(has_line(outcome.err, "@n: 5"));
  CHECK(adds_up(outcome.summary()));
}

TEST_CASE("entry_values_run: under ubp run, and what ubp vars says of them") {
  const std::string program = fixture("fx_entry2");
  const std::string path = program.substr(0, program.rfind('/') + 1);
  const Outcome outcome = run({.argv = {command_path(), "run", "-e",
                                        path + at("deep") + " { @[args.depth] = args.tag }", "--", program, "values"},
                               .preload = false});
  CAPTURE(outcome.err);
  CHECK(has_line(outcome.out, "@[3]: 102"));
  const Outcome vars = run({.argv = {command_path(), "vars", path + at("deep")}, .preload = false});
  CAPTURE(vars.out);
  CHECK(vars.out.find("    long int depth ") != std::string::npos);
  CHECK(vars.out.find("  rdi at the entry") != std::string::npos);
  CHECK(vars.out.find("  rsi at the entry") != std::string::npos);
}

// gdb has them from what the callers say that they pass.
TEST_CASE("entry_values_gdb: the values that gdb reads at the same instructions") {
  compare_with_gdb("fx_entry.c", "fx_entry2");
}

}  // namespace ubp::test::entry_values_test
