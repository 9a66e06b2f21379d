// Detours that count in one instruction, by each task's own %gs: exact, whatever tasks there are; gone where the
// program wants %gs.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::segment_test {

namespace {

Outcome run_jumps(const std::string& library, const std::string& mode, const std::string& count) {
  return run({.argv = {fixture("fx_segment"), mode, count},
              .env = {{"LD_PRELOAD", library}, {"UBP_PROBES", "f"}, {"UBP_OPTIMIZE", "auto"}},
              .preload = false});
}

std::uint64_t by_jumps(const nlohmann::json& summary) { return summary["optimised"]["hits"].get<std::uint64_t>(); }

// All of f's calls are counted, and `traps` of them at most by a trap.
void check(const std::string& mode, const std::string& count, std::uint64_t traps, const std::string& probes = "f") {
  CAPTURE(mode);
  CAPTURE(probes);
  Outcome probed = run_probed({fixture("fx_segment"), mode, count}, probes, {{"UBP_OPTIMIZE", "auto"}});
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  CHECK(said["calls"] > 0);
  const nlohmann::json summary = probed.summary();
  const std::uint64_t hit = hits(summary, "f");
  CHECK(hit == static_cast<std::uint64_t>(said["calls"]));
  CHECK(adds_up(summary));
  CHECK(total(summary, "missed") == 0);
  if (probes == "f") CHECK(by_jumps(summary) + traps >= hit);
}

}  // namespace

TEST_CASE("segment: threads count in their own from their first instruction on, and never trap") {
  check("threads", "2000", 0);
  check("beside", "1000000", 0);
  check("nested", "200", 0);
  check("threads", "500", 0, "f; libc:*");
  check("nested", "50", 0, "f; libc:*");
}

TEST_CASE("segment: two tasks lose each other's counts where a thread keeps its maker's %gs") {
  const auto is_exact = [](const std::string& library) {
    const Outcome outcome = run_jumps(library, "beside", "30000000");
    CHECK(numbers(outcome.out)["calls"] == 60000000);
    return outcome.err.find("hits       60000000 = 60000000 recorded") != std::string::npos;
  };
  CHECK(is_exact(library()));
  int tries = 0;  // the two have to run at the same time
  while (tries < 100 && is_exact(control("no_birth"))) ++tries;
  CHECK(tries < 100);
}

TEST_CASE("segment: forked children count from zero, in the block that was their maker's") {
  for (const char* const mode : {"fork", "_Fork"}) {
    CAPTURE(mode);
    Outcome probed = run_probed({fixture("fx_segment"), mode, "20"}, "f", {{"UBP_OPTIMIZE", "auto"}});
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["wrong"] == 0);
    CHECK(hits(probed.summary(), "f") == 20 * 6);
    CHECK(probed.summaries.size() == 21);
    for (const auto& [pid, summary] : probed.summaries) {
      if (pid != probed.pid) CHECK(hits(summary, "f") == 5 + 200);
    }
  }
}

TEST_CASE("segment: vfork's children count for their parents, spawned ones leave no trace") {
  check("vfork", "200", 0);
  check("spawn", "50", 0);
  check("spawn", "20", 0, "f; libc:*");
}

TEST_CASE("segment: handlers of signals count between, and in the middle of, what they interrupt") {
  check("signals", "300", 0);
}

TEST_CASE("segment: a program that takes %gs gets it, and every hit is counted all the same") {
  for (const char* const mode : {"own", "raw"}) {
    check(mode, "20000", 100);
    check(mode, "2000", 100, "f; libc:*");
  }
}

}  // namespace ubp::test::segment_test
