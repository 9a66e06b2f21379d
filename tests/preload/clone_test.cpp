// clone3 with CLONE_CLEAR_SIGHAND, which takes a child's handlers away, SIGTRAP's with them: libc's own since
// glibc 2.38, and a program's by syscall(2). The child is probed, and what it sees is what it sees without UBP. The
// control library has no gate: its child dies at the first int3.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::clone_test {

namespace {

void check_mode(const std::string& mode) {
  const Outcome plain = run_plain({fixture("fx_clone"), mode});
  REQUIRE(plain.end() == "exit 0");
  for (std::string probes : {"f", "f; libc:*"}) {
    CAPTURE(mode);
    CAPTURE(probes);
    Outcome probed = run_probed({fixture("fx_clone"), mode}, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == plain.out);
    CHECK(adds_up(probed.summary()));
    CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(numbers(probed.err)["calls"]));
  }
}

}  // namespace

TEST_CASE("clone_clear_sighand: a forked child has no handler of its parent's, and f is counted in both") {
  check_mode("fork");
  // Every child that ends by itself says what it has counted.
  Outcome probed = run_probed({fixture("fx_clone"), "fork"}, "f");
  std::uint64_t children = 0;
  for (const auto& [pid, summary] : probed.summaries) children += pid != probed.pid && hits(summary, "f") == 4 ? 1 : 0;
  CHECK(children == 1);
}

TEST_CASE("clone_clear_sighand: vfork children, one within another, on their parent's memory") { check_mode("vfork"); }

TEST_CASE("clone_clear_sighand: what the kernel refuses, it refuses") { check_mode("errors"); }

TEST_CASE("clone_clear_sighand: children beside a timer, whose handler is not theirs") { check_mode("storm"); }

TEST_CASE("clone_into_cgroup: clone3 and posix_spawn start a child in a cgroup") {
  const Outcome plain = run_plain({fixture("fx_clone"), "cgroup"});
  MESSAGE(plain.out);  // it says when there is no cgroup to be had
  CHECK(count_prefix(plain.out, "no cgroup errno 9") == 1);
  check_mode("cgroup");
}

TEST_CASE("control: without the gate the child dies of its first int3") {
  Outcome outcome = run({.argv = {fixture("fx_clone"), "fork"},
                         .env = {{"LD_PRELOAD", control("no_gate")}, {"UBP_PROBES", "f"}, {"UBP_OPTIMIZE", "never"}},
                         .preload = false});
  CHECK(count_prefix(outcome.out, "forked signal 5") == 5);
}

}  // namespace ubp::test::clone_test
