// Negative controls: with one protection switched off, the tests that guard it must be able to fail. Each control
// library is libubp.so built with one macro (meson.build); the workloads are those of the tests named.
#include <doctest/doctest.h>

#include <string>

#include "harness.h"

namespace ubp::test::controls_test {

namespace {

Outcome run_with(const std::string& library, std::vector<std::string> argv, const std::string& probes,
                 const std::string& slots) {
  return run({.argv = std::move(argv),
              .env = {{"LD_PRELOAD", library}, {"UBP_PROBES", probes}, {"UBP_SLOTS", slots}, {"UBP_OPTIMIZE", "never"}},
              .preload = false,
              .timeout_s = 30});
}

// True when a run went wrong in any way a test would see.
bool went_wrong(Outcome& outcome) {
  if (outcome.end() != "exit 0") return true;
  auto said = numbers(outcome.out);
  return said["corrupted"] != 0 || said["wrong"] != 0 || said["signal"] != 0 || said["status"] != 0 ||
         said["counter"] != said["fills"];
}

std::string cycle_probes(int functions) {
  std::string list;
  for (int i = 0; i < functions; ++i) list += "cycle_" + std::to_string(i) + "; ";
  return list;
}

// Runs a racy workload up to `tries` times; returns in how many it went wrong.
int failures(const std::string& library, const std::vector<std::string>& argv, const std::string& probes,
             const std::string& slots, int tries) {
  int wrong = 0;
  for (int i = 0; i < tries; ++i) {
    Outcome outcome = run_with(library, argv, probes, slots);
    wrong += went_wrong(outcome);
  }
  return wrong;
}

}  // namespace

TEST_CASE("slot_async_cycle fails without the translation of interrupted contexts") {
  const std::vector<std::string> storm = {fixture("fx_storm"), "cycle", "700", "12"};
  const std::string probes = "fill; fill+0x5; fill+0x7; count_up; count_up+0x3; " + cycle_probes(12);
  CHECK(failures(library(), storm, probes, "4", 2) == 0);
  CHECK(failures(control("no_translation"), storm, probes, "4", 2) > 0);
}

TEST_CASE("fork_refill_race fails when the child keeps its parent's slot pages") {
  const std::vector<std::string> race = {fixture("fx_fork"), "clone", "10", "100", "8000", "8000", "exit"};
  CHECK(failures(library(), race, cycle_probes(10), "4", 1) == 0);
  CHECK(failures(control("shared_after_fork"), race, cycle_probes(10), "4", 5) > 0);
}

TEST_CASE("clone_vm_no_settls fails when a task is known by its TLS alone") {
  const std::vector<std::string> race = {fixture("fx_fork"), "clone_vm", "10", "100", "8000", "8000", "exit"};
  CHECK(failures(library(), race, cycle_probes(10), "4", 1) == 0);
  CHECK(failures(control("no_task_check"), race, cycle_probes(10), "4", 5) > 0);
}

}  // namespace ubp::test::controls_test
