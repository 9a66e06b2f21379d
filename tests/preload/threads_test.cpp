// Threads that come, go, are cancelled, and change their user together, with probes in all of it.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::threads_test {

namespace {

std::map<std::string, std::int64_t> check(const std::string& mode, const std::string& count,
                                          const std::string& probes) {
  CAPTURE(mode);
  CAPTURE(probes);
  // One arena: malloc makes up to eight a processor when threads happen to meet, and mappings are counted here.
  Outcome probed = run_probed({fixture("fx_threads"), mode, count}, probes, {{"MALLOC_ARENA_MAX", "1"}});
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  CHECK(said["calls"] > 0);
  CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(said["calls"]));
  CHECK(total(probed.summary(), "missed") == 0);
  CHECK(adds_up(probed.summary()));
  return said;
}

}  // namespace

TEST_CASE("short_threads_10k: no growth in memory, mappings or descriptors") {
  for (std::string probes : {"f", "f; libc:*"}) {
    auto said = check("short", probes == "f" ? "10000" : "3000", probes);
    CHECK(said["pages"] < 256);  // the dead's states are taken over: far below a page for each of 2,000
    CHECK(said["maps"] < 100);   // libc's cache of stacks varies, and so does how many are dying at once
    CHECK(said["files"] == 0);
  }
}

TEST_CASE("trap_in_tls_dtor: hits in destructors of thread-specific data") { check("tls_dtor", "200", "f"); }

TEST_CASE("trap_in_thread_exit_tail: every function of libc, those that run when a thread is nearly gone included") {
  check("tls_dtor", "400", "f; libc:*");
}

TEST_CASE("cancel_async_in_slot: threads cancelled while a slot executes") {
  check("cancel", "300", "f; insn:fill");
  check("cancel", "100", "f; insn:fill; libc:*");
}

TEST_CASE("setuid_storm: every thread is signalled while it hits probes") { check("setuid", "500", "f; libc:*"); }

TEST_CASE("cancel_pending_in_promotion: a probepoint becomes a jump in a thread that is to be cancelled") {
  for (std::string probes : {"insn:f; insn:hot; !hot", "insn:f; insn:hot", "f; libc:*"}) {
    CAPTURE(probes);
    Outcome probed = run_probed({fixture("fx_threads"), "cancel_pending", "2000"}, probes, {{"UBP_OPTIMIZE", "auto"}});
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["wrong"] == 0);
    CHECK(adds_up(probed.summary()));
  }
}

}  // namespace ubp::test::threads_test
