// A displaced `syscall`: restarts, EINTR, rcx, and children that are born in its slot.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::syscalls_test {

namespace {

// system_call's instructions: mov x4 (3 bytes each), syscall at 0xc, lea at 0xe.
constexpr const char* kCall = "system_call+0xc";
constexpr const char* kProbes = "system_call; system_call+0xc; system_call+0xe";

struct Result {
  Outcome outcome;
  std::map<std::string, std::int64_t> said;
  nlohmann::json summary;
};

Result run_mode(const std::string& mode, const std::string& count) {
  Result result;
  result.outcome = run_probed({fixture("fx_syscall"), mode, count}, kProbes, {{"UBP_SLOTS", "1"}});
  CHECK(result.outcome.end() == "exit 0");
  result.said = numbers(result.outcome.out);
  result.summary = result.outcome.summary();
  CHECK(result.said["wrong"] == 0);
  CHECK(result.said["bad_rcx"] == 0);
  CHECK(adds_up(result.summary));
  return result;
}

}  // namespace

TEST_CASE("syscall: result and rcx are the original's") {
  Result plain = run_mode("plain", "20000");
  for (std::string item : {"system_call", kCall, "system_call+0xe"}) CHECK(hits(plain.summary, item) == 20000);
}

TEST_CASE("slot_sa_restart: the handler sees the call's own address; the restarted call counts once") {
  Result restart = run_mode("restart", "50");
  CHECK(restart.said["read_one"] == 50);
  CHECK(restart.said["at_call"] == 50);
  CHECK(restart.said["elsewhere"] == 0);
  CHECK(hits(restart.summary, kCall) == 50);
  CHECK(hits(restart.summary, "system_call+0xe") == 50);
}

TEST_CASE("slot_eintr: the handler sees the next address; the call returns -EINTR") {
  Result eintr = run_mode("eintr", "50");
  CHECK(eintr.said["eintr"] == 50);
  CHECK(eintr.said["after"] == 50);
  CHECK(eintr.said["elsewhere"] == 0);
  CHECK(hits(eintr.summary, kCall) == 50);
  CHECK(hits(eintr.summary, "system_call+0xe") == 50);
}

TEST_CASE("fork_from_slot: the child begins at the displaced instruction") {
  Result fork = run_mode("fork", "1");
  CHECK(fork.said["child_status"] == 3);
  CHECK(hits(fork.summary, kCall) == 1);
  CHECK(hits(fork.summary, "system_call+0xe") == 1);
}

TEST_CASE("clone_from_slot: a child with CLONE_VM begins there on its own stack") {
  Result clone = run_mode("vfork_clone", "1");
  CHECK(clone.said["child_status"] == 5);
  CHECK(hits(clone.summary, kCall) == 1);
}

}  // namespace ubp::test::syscalls_test
