// The mask gate: libc's own blocking of signals does not take SIGTRAP away.
//
// mask_gate_all_apis runs every API of which glibc is known to block signals inside, with every function of libc
// probed. The control library has no gate, and must die of SIGTRAP at once.
#include <doctest/doctest.h>

#include <string>

#include "harness.h"

namespace ubp::test::gate_test {

TEST_CASE("mask_gate_all_apis: every function of libc probed, the same output") {
  Outcome plain = run_plain({fixture("fx_gate")});
  REQUIRE(plain.end() == "exit 0");
  REQUIRE(count_prefix(plain.out, "popen hello") == 1);  // the fixture did its work
  Outcome probed = run_probed({fixture("fx_gate")}, "libc:*");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);
  nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  CHECK(hits(summary, "libc:*") != ~0ull);
  CHECK(total(summary, "hits") > 10000);
  CHECK(total(summary, "refused") < 20);
}

TEST_CASE("mask_gate_all_apis: hits inside the blocked regions are counted") {
  Outcome probed = run_probed({fixture("fx_gate")}, "libc:pthread_create; libc:malloc");
  REQUIRE(probed.end() == "exit 0");
  CHECK(hits(probed.summary(), "libc:pthread_create") >= 202);  // the fixture's own; glibc's helpers come on top
}

TEST_CASE("control: without the gate the first pthread_create kills the process") {
  Outcome outcome =
      run({.argv = {fixture("fx_gate")},
           .env = {{"LD_PRELOAD", control("no_gate")}, {"UBP_PROBES", "libc:*"}, {"UBP_OPTIMIZE", "never"}},
           .preload = false,
           .timeout_s = 30});
  CHECK(outcome.end() == "signal 5");
}

}  // namespace ubp::test::gate_test
