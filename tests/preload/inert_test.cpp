// Without UBP_PROBES the library does nothing: no output, no file, no change that the program could see.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::inert_test {

namespace {
Outcome run_idle(std::vector<std::string> argv) { return run({.argv = std::move(argv), .summary = false}); }
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
  for (std::string mode : {"disposition", "mask", "full_sa_mask", "own_traps", "die_int3", "die_raise", "die_kill"}) {
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

TEST_CASE("inert: what a user may have meant is said in a line, and to nobody who executed the program with nothing") {
  struct Stray {
    Environment env;
    std::string line;
  };
  for (const Stray& stray :
       {Stray{{{"UBP_PROBE", "compute"}},
              "ubp: error: unknown variable 'UBP_PROBE'; did you mean UBP_PROBES?; nothing is probed"},
        Stray{{{"UBP_OUTPUT", "/tmp/x"}},
              "ubp: warning: neither UBP_PROBES nor UBP_PROBES_FILE is set: nothing is probed"}}) {
    Outcome plain = run_plain({fixture("fx_hello")});
    Outcome probed = run({.argv = {fixture("fx_hello")}, .env = stray.env, .summary = false});
    CHECK(probed.end() == plain.end());
    CHECK(probed.out == plain.out);
    CHECK(probed.err == stray.line + "\n" + plain.err);
    Environment strict = stray.env;
    strict.emplace_back("UBP_MISSING", "error");
    CHECK(run({.argv = {fixture("fx_hello")}, .env = strict, .summary = false}).end() == "exit 125");
  }
  Outcome embedded = run({.argv = {fixture("fx_embedded")}, .env = {{"UBP_OUTPUT", "/tmp/x"}}, .preload = false});
  CHECK(embedded.end() == "exit 3");
  CHECK(embedded.err == "");
}

TEST_CASE("libubp.so as a program says what it is") {
  Outcome outcome = run_plain({library()});
  CHECK(outcome.end() == "exit 0");
  CHECK(outcome.out.rfind("libubp.so, UBP 0.1.0: ", 0) == 0);
  CHECK(outcome.out.find("LD_PRELOAD=") != std::string::npos);
  CHECK(outcome.err == "");
}

}  // namespace ubp::test::inert_test
