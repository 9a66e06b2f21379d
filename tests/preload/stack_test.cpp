// Hits take no room on the application's stacks, and the application's alternate stack stays its own. fx_stack checks
// what it sees; here its counts are compared.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::stack_test {

namespace {

void check_mode(const std::string& mode) {
  CAPTURE(mode);
  Outcome probed = run_probed({fixture("fx_stack"), mode}, "insn:f");
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK_MESSAGE(said["wrong"] == 0, probed.out);
  CHECK(said["calls"] > 0);
  const nlohmann::json summary = probed.summary();
  CHECK(summary["probes"].size() >= 2);
  for (const auto& probe : summary["probes"]) CHECK(probe["hits"] == said["calls"]);
  CHECK(adds_up(summary));
}

}  // namespace

TEST_CASE("altstack_8192_consumer: a handler on an alternate stack of 8192 bytes hits probes") {
  check_mode("altstack");
}
TEST_CASE("handlers without SA_ONSTACK keep off the alternate stack") { check_mode("keeps_off"); }
TEST_CASE("pthread_stack_min: threads with the smallest stack") { check_mode("thread_min"); }
TEST_CASE("coroutine_small_stack: hits on a stack smaller than a signal frame") { check_mode("coroutine"); }
TEST_CASE("a program catches its own stack overflow, with a hit at every depth") { check_mode("overflow"); }
TEST_CASE("control: with frames where the kernel puts them, a small stack is overrun") {
  Outcome outcome = run({.argv = {fixture("fx_stack"), "coroutine"},
                         .env = {{"LD_PRELOAD", control("no_own_stack")}, {"UBP_PROBES", "insn:f"}},
                         .preload = false});
  CHECK((outcome.end() != "exit 0" || numbers(outcome.out)["wrong"] != 0));
}
TEST_CASE("nested_depth_limit: 500 handlers within each other, hits in all") { check_mode("nested"); }
TEST_CASE("sigaltstack reads back what was set, before and after the first hit") { check_mode("readback"); }

}  // namespace ubp::test::stack_test
