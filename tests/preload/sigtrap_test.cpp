// The runtime owns SIGTRAP; the application must neither lose it nor notice. fx_sigtrap checks what it reads
// back and calls an armed function between all steps: a step that took SIGTRAP away would kill it.
#include <doctest/doctest.h>

#include <csignal>

#include "harness.h"

namespace ubp::test::sigtrap_test {

namespace {

void check_mode(const std::string& mode) {
  CAPTURE(mode);
  Outcome probed = run_probed({fixture("fx_sigtrap"), mode}, "f; own_breakpoint");
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK_MESSAGE(said["failed"] == 0, probed.out);
  CHECK(said["calls"] > 0);
  CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(said["calls"]));
  CHECK(adds_up(probed.summary()));
}

}  // namespace

TEST_CASE("app_resets_sigtrap: sigaction and signal read back what was set, probes still work") {
  check_mode("disposition");
}

TEST_CASE("sigprocmask and pthread_sigmask read back what was set, probes still work") { check_mode("mask"); }

TEST_CASE("samask_full: a handler with a full sa_mask hits a probe") { check_mode("full_sa_mask"); }

TEST_CASE("app_int3, raise and kill reach the application's own handler") { check_mode("own_traps"); }

TEST_CASE("a SIGTRAP that a program queues itself and ignores is ignored, whatever its code") { check_mode("queued"); }

TEST_CASE("app_int3_core, kill_sigtrap: without a handler they kill by SIGTRAP") {
  for (std::string mode : {"die_int3", "die_raise", "die_kill"}) {
    CAPTURE(mode);
    Outcome probed = run_probed({fixture("fx_sigtrap"), mode}, "f; own_breakpoint");
    CHECK(probed.signal == SIGTRAP);
    CHECK(probed.out == "");
  }
}

TEST_CASE("an int3 of the application is refused, the rest of its function is armed") {
  Outcome probed =
      run_probed({fixture("fx_sigtrap"), "own_traps"}, "f; own_breakpoint; own_breakpoint+0x5; own_breakpoint+0x6");
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["failed"] == 0);
  CHECK(total(probed.summary(), "refused") == 1);
  CHECK(hits(probed.summary(), "own_breakpoint+0x6") == 1);
}

}  // namespace ubp::test::sigtrap_test
