// Faults in displaced instructions: the handler sees the original RIP and si_addr; repairing and retrying,
// skipping and siglongjmp work, and the instruction counts once per call, however often it was retried.
#include <doctest/doctest.h>

#include <csignal>

#include "harness.h"

namespace ubp::test::faults_test {

namespace {

struct What {
  std::string name;
  std::string item;  // the faulting instruction
  int signal;
};

const What kAll[] = {{"load", "load", SIGSEGV}, {"pointer", "load_from", SIGSEGV}, {"divide", "divide+0x5", SIGFPE}};

void check_faults(const What& what, const std::string& mode, const std::string& slots) {
  constexpr std::int64_t kCalls = 20000;
  CAPTURE(what.name);
  CAPTURE(mode);
  Outcome probed =
      run_probed({fixture("fx_fault"), what.name, mode, std::to_string(kCalls)}, what.item, {{"UBP_SLOTS", slots}});
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["handlers"] == kCalls);
  CHECK(said["bad_rip"] == 0);
  CHECK(said["bad_address"] == 0);
  CHECK(said["bad_result"] == 0);
  CHECK(hits(probed.summary(), what.item) == kCalls);
  CHECK(adds_up(probed.summary()));
}

}  // namespace

TEST_CASE("slot_fault_retry_skip_longjmp") {
  for (const What& what : kAll) {
    for (std::string mode : {"retry", "skip", "longjmp"}) check_faults(what, mode, "4");
  }
}

TEST_CASE("slot_fault: an unhandled fault kills as it would unprobed") {
  for (const What& what : kAll) {
    CAPTURE(what.name);
    Outcome probed = run_probed({fixture("fx_fault"), what.name, "die", "1"}, what.item);
    CHECK(probed.signal == what.signal);
    CHECK(probed.end() == run_plain({fixture("fx_fault"), what.name, "die", "1"}).end());
  }
}

}  // namespace ubp::test::faults_test
