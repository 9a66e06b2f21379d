// Values in vector registers, at traps and in detours: with what the program computes, against gdb, and beside a
// consumer that has changed these registers.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::vectors_test {
namespace {

Outcome run_vectors(const std::string& program, const std::string& file, const std::string& optimize) {
  return run({.argv = {command_path(), "run", "-q", "-e", program, "--", file},
              .env = {{"UBP_OPTIMIZE", optimize}},
              .preload = false,
              .timeout_s = 60});
}

}  // namespace

TEST_CASE("vectors_arguments: in the registers, the halves and the memory that the calling convention gives them") {
  for (const std::string level : {"fx_vectors0", "fx_vectors2"}) {
    for (const std::string optimize : {"never", "always"}) {
      CAPTURE(level);
      CAPTURE(optimize);
      const std::string at = "uprobe:" + fixture(level);
      const Outcome outcome = run_vectors(
          at +
              ":takes { @count = args.mixed.count; @mixed = args.mixed; @four = args.four; @second = args.four[1]; "
              "@swapped = args.swapped.count; @little = args.little; @wrapped = args.wrapped.four[3]; "
              "@last = args.last; @sum = sum(args.four[3]) }" +
              at +
              ":spills { @seventh = args.seventh.count; @ninth = args.ninth.count; @tenth = args.tenth.count; "
              "@end = args.last }",
          fixture(level), optimize);
      CAPTURE(outcome.out);
      CAPTURE(outcome.err);
      CHECK(outcome.end() == "exit 0");
      for (const char* line : {"@count: 4000", "@mixed: { .count = 4000, .ratio = null }", "@four: [4,-4,8,12]",
                               "@second: -4", "@swapped: -28", "@little: [4,2,-3,4]", "@wrapped: -24", "@last: 74",
                               "@sum: 30", "@seventh: 4000", "@ninth: 4000", "@tenth: -28", "@end: 84"})
        CHECK_MESSAGE(has_line(outcome.out, line), line);
    }
  }
}

TEST_CASE("vectors_kept: a variable that the compiler keeps there") {
  const std::string file = fixture("fx_vectors2");
  const auto said = numbers(run_plain({file}).out);
  const std::string target = file + "@fx_vectors.c:" + std::to_string(said.at("kept"));
  const Outcome vars = run({.argv = {command_path(), "vars", target}, .env = {}, .preload = false, .timeout_s = 60});
  CAPTURE(vars.out);
  CHECK(vars.out.find("    long int moved  xmm") != std::string::npos);
  std::uint64_t sum = 0;
  for (long seed = 1; seed <= 4; ++seed) {
    long total = seed;
    for (int i = 0; i < 5; ++i) {
      const long moved = total * 3 + i;
      sum += static_cast<std::uint64_t>(moved);
      total = moved ^ i;
    }
  }
  for (const std::string optimize : {"never", "always"}) {
    const Outcome outcome = run_vectors("uprobe:" + target + " { @ = sum(args.moved) }", file, optimize);
    CAPTURE(outcome.err);
    CHECK(has_line(outcome.out, "@: " + std::to_string(sum)));
  }
}

TEST_CASE("vectors_gdb: the values that gdb reads at the same instructions") {
  compare_with_gdb("fx_vectors.c", "fx_vectors2");
}

TEST_CASE("vectors_beside: a consumer that changes them before the block is not what the block sees") {
  const auto plain = numbers(run_plain({fixture("fx_vectors_beside"), "3", "0"}).out);
  for (const std::string optimize : {"3", "2"}) {  // ubp_optimize: never, always
    for (const std::string flags : {"0", "32"}) {  // all is saved; UBP_PROBE_SSE_ONLY
      CAPTURE(optimize);
      CAPTURE(flags);
      const Outcome outcome = run_plain({fixture("fx_vectors_beside"), optimize, flags});
      CAPTURE(outcome.err);
      auto said = numbers(outcome.out);
      CHECK(said["consumed"] == 4);
      CHECK(said["four"] == 30);
      CHECK(said["count"] == 10000);
      CHECK(said["low"] == -24);
      CHECK(said["all"] == plain.at("all"));
      CHECK((said["jumped"] > 0) == (optimize == "2"));
    }
  }
}

TEST_CASE("vectors_calls: call: keeps no vector registers, and says so") {
  const std::string file = fixture("fx_vectors2");
  const Outcome refused = run_vectors("call:" + file + ":takes { print(args.mixed.count) }", file, "never");
  CAPTURE(refused.err);
  CHECK(refused.end() == "exit 1");
  CHECK(refused.err.find("it is in a vector register, and call: keeps general ones") != std::string::npos);
  const Outcome general = run_vectors("call:" + file + ":takes { @ = sum(args.last) }", file, "never");
  CHECK(has_line(general.out, "@: 290"));
}

}  // namespace ubp::test::vectors_test
