// Without UBP_PROBES the library does nothing: no output, no file, no change that the program could see.
#include <doctest/doctest.h>

#include "harness.h"

using namespace ubp::test;

namespace {
Outcome run_idle(std::vector<std::string> argv) { return run({.argv = std::move(argv)}); }
}  // namespace

TEST_CASE("inert: no probes, no output, no summary") {
  Outcome plain = run_plain({fixture("fx_hello")});
  Outcome idle = run_idle({fixture("fx_hello")});
  CHECK(idle.end() == plain.end());
  CHECK(idle.out == plain.out);
  CHECK(idle.err == plain.err);
  CHECK(idle.summaries.empty());
}

TEST_CASE("inert: signals, forks and exceptions behave as without the library") {
  for (std::string mode :
       {"disposition", "mask", "full_sa_mask", "own_traps", "die_int3", "die_raise", "die_kill"}) {
    CAPTURE(mode);
    Outcome plain = run_plain({fixture("fx_sigtrap"), mode});
    Outcome idle = run_idle({fixture("fx_sigtrap"), mode});
    CHECK(idle.end() == plain.end());
    CHECK(idle.out == plain.out);
    CHECK(idle.err == plain.err);
  }
  for (std::string how : {"fork", "_Fork", "clone", "vfork", "clone_vm"}) {
    CAPTURE(how);
    Outcome idle = run_idle({fixture("fx_fork"), how, "8", "1", "2", "3", "exit"});
    CHECK(idle.end() == "exit 0");
    CHECK(numbers(idle.out)["status"] == 0);
    CHECK(idle.summaries.empty());
  }
  CHECK(numbers(run_idle({fixture("fx_throw"), "throw", "100"}).out)["caught"] == 300);
}

TEST_CASE("inert: no descriptor is left open in the program") {
  std::vector<std::string> list = {"/bin/ls", "/proc/self/fd"};
  CHECK(run_idle(list).out == run_plain(list).out);
}
