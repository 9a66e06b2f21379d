// The harness and the fixtures themselves, without the library: a wrong table of expectations proves nothing.
#include <doctest/doctest.h>

#include <csignal>

#include "harness.h"

namespace ubp::test::harness_test {

TEST_CASE("the harness brings back streams, status, signals and timeouts") {
  Outcome echo = run({.argv = {"/bin/cat"}, .input = "line\n", .preload = false});
  CHECK(echo.out == "line\n");
  CHECK(echo.end() == "exit 0");
  Outcome both = run_plain({"/bin/sh", "-c", "echo out; echo err >&2; exit 9"});
  CHECK(both.out == "out\n");
  CHECK(both.err == "err\n");
  CHECK(both.end() == "exit 9");
  CHECK(run_plain({"/bin/sh", "-c", "kill -SEGV $$"}).signal == SIGSEGV);
  Outcome slow = run({.argv = {"/bin/sleep", "9"}, .preload = false, .timeout_s = 1});
  CHECK(slow.end() == "timeout");
  Outcome env = run({.argv = {"/usr/bin/env"}, .env = {{"A", "b"}}, .preload = false});
  CHECK(env.out == "PATH=/usr/local/bin:/usr/bin:/bin\nHOME=/nonexistent\nLC_ALL=C\nA=b\n");
}

TEST_CASE("the table of mixed.S is true: single-stepping one call finds the same counts") {
  Outcome told = run_plain({fixture("fx_mixed"), "--offsets"});
  Outcome stepped = run_plain({fixture("fx_mixed"), "--trace"});
  CHECK(points(told.out).size() >= 200);
  CHECK(told.out == stepped.out);
}

TEST_CASE("fixtures are deterministic and right when unprobed") {
  CHECK(run_plain({fixture("fx_mixed"), "4", "100"}).out == run_plain({fixture("fx_mixed"), "4", "100"}).out);
  CHECK(run_plain({fixture("fx_cycle"), "320", "3", "2"}).out == "wrong 0\n");
  CHECK(run_plain({fixture("fx_refused"), "2"}).out == "sum 114\n");
  CHECK(run_plain({fixture("fx_hello")}).end() == "exit 7");
  for (std::string mode : {"disposition", "mask", "full_sa_mask", "own_traps"}) {
    CHECK(numbers(run_plain({fixture("fx_sigtrap"), mode}).out)["failed"] == 0);
  }
  for (std::string how : {"fork", "_Fork", "clone", "vfork", "clone_vm"}) {
    auto said = numbers(run_plain({fixture("fx_fork"), how, "8", "1", "2", "3", "exit"}).out);
    CHECK(said["status"] == 0);
    CHECK(said["wrong"] == 0);
  }
  for (std::string mode : {"throw", "longjmp", "return"}) {
    CHECK(numbers(run_plain({fixture("fx_throw"), mode, "10"}).out)["caught"] == 30);
  }
}

}  // namespace ubp::test::harness_test
