// Dispositions that change beside fork and within handlers; contexts that handlers change; all signals at once.
// fx_handlers checks what it sees; here its counts and its output are compared with the unprobed run's.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::handlers_test {

namespace {

Outcome check(std::vector<std::string> arguments, const std::string& probes) {
  CAPTURE(arguments.front());
  CAPTURE(probes);
  arguments.insert(arguments.begin(), fixture("fx_handlers"));
  Outcome probed = run_probed(arguments, probes);
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK_MESSAGE(said["wrong"] == 0, probed.out);
  if (said["calls"] > 0 && hits(probed.summary(), "f") != ~0ULL)
    CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(said["calls"]));
  CHECK(adds_up(probed.summary()));
  return probed;
}

}  // namespace

TEST_CASE("fork_beside_sigaction: a child changes dispositions that another thread was changing when it was made") {
  for (std::string how : {"fork", "_Fork", "clone"}) {
    CAPTURE(how);
    CHECK(numbers(check({"fork_beside", how, "100"}, "f; libc:fork").out)["hung"] == 0);
  }
}

TEST_CASE("a SIGTRAP handler that sets itself again, as System V programs do") { check({"trap_idiom", "300"}, "f"); }

TEST_CASE("uc_sigmask_filled: what handlers leave in the mask they return to") {
  CHECK(numbers(run_plain({fixture("fx_handlers"), "uc_sigmask"}).out)["wrong"] == 0);
  check({"uc_sigmask"}, "f");
  check({"uc_sigmask"}, "f; libc:raise; libc:sigprocmask");
}

TEST_CASE("preempt_trampoline_exact: a hit that a handler sends elsewhere, and that comes back, is one") {
  for (std::string probes : {"f", "insn:f", "f; preempted; calls"}) {
    Outcome probed = check({"preempt", "60000"}, probes);
    auto said = numbers(probed.out);
    CHECK(said["preempted"] > 0);
    const nlohmann::json summary = probed.summary();
    for (const auto& probe : summary["probes"]) {
      if (std::string(probe["symbol"]).starts_with("f")) CHECK(probe["hits"] == said["calls"]);
    }
  }
}

TEST_CASE("all_signals_pending: the handlers of many signals at once, on alternate stacks of any size") {
  int whole = 0;
  for (const std::string bytes : {"0", "4096", "8192", "32768", "65536", "131072", "524288"}) {
    for (const std::string most : {"1", "8", "18", "64"}) {
      CAPTURE(bytes);
      CAPTURE(most);
      Outcome plain = run_plain({fixture("fx_handlers"), "pending", bytes, most});
      Outcome probed = run_probed({fixture("fx_handlers"), "pending", bytes, most}, "f");
      CHECK(probed.end() == plain.end());
      CHECK(probed.out == plain.out);
      if (plain.end() != "exit 0") continue;  // the stack was too small for so many
      ++whole;
      CHECK(numbers(plain.out)["wrong"] == 0);
      CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(numbers(plain.out)["calls"]));
    }
  }
  CHECK(whole >= 8);
}

}  // namespace ubp::test::handlers_test
