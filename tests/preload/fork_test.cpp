// fork shares MAP_SHARED slot pages and TLS contents: parent and child refill at the same time and must stay
// right, count for themselves, and each write a summary of its own. Tasks that share memory are the parent's.
// Negative controls: controls_test.cpp.
#include <doctest/doctest.h>

#include <string>

#include "harness.h"

namespace ubp::test::fork_test {

namespace {

constexpr int kFunctions = 10;  // with UBP_SLOTS=4: every access refills

std::string probes() {
  std::string list;
  for (int i = 0; i < kFunctions; ++i) list += "cycle_" + std::to_string(i) + "; ";
  return list;
}

struct Run {
  std::string how;
  std::string end = "exit";
  int before = 100, parent = 10000, child = 10000;
};

Outcome start(const Run& r) {
  CAPTURE(r.how);
  Outcome probed = run_probed({fixture("fx_fork"), r.how, std::to_string(kFunctions), std::to_string(r.before),
                               std::to_string(r.parent), std::to_string(r.child), r.end},
                              probes(), {{"UBP_SLOTS", "4"}});
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["status"] == 0);
  CHECK(said["signal"] == 0);
  CHECK(said["wrong"] == 0);
  return probed;
}

void check_each(const nlohmann::json& summary, int expected) {
  int wrong = 0;
  for (int i = 0; i < kFunctions; ++i) {
    wrong += hits(summary, "cycle_" + std::to_string(i)) != static_cast<std::uint64_t>(expected);
  }
  CHECK(wrong == 0);
  CHECK(total(summary, "hits") == static_cast<std::uint64_t>(expected) * kFunctions);
  CHECK(adds_up(summary));
}

// Two processes, two summaries: the child counts from zero.
void check_two(const Run& r) {
  CAPTURE(r.how);
  CAPTURE(r.end);
  Outcome probed = start(r);
  auto child = static_cast<pid_t>(numbers(probed.out)["child"]);
  CHECK(probed.summaries.size() == 2);
  REQUIRE(probed.summaries.count(child) == 1);
  check_each(probed.summary(), r.before + r.parent);
  check_each(probed.summaries[child], r.child);
  CHECK(probed.summaries[child]["pid"] == child);
  CHECK(probed.summary()["pid"] == probed.pid);
}

}  // namespace

TEST_CASE("fork_refill_race: fork, _Fork and raw clone") {
  for (std::string how : {"fork", "_Fork", "clone"}) {
    check_two({.how = how});
    check_two({.how = how, .end = "_exit"});
  }
}

TEST_CASE("fork: only the child hits, only the parent hits, neither had hit before") {
  check_two({.how = "fork", .before = 0, .parent = 0, .child = 100});
  check_two({.how = "fork", .before = 0, .parent = 100, .child = 100});
  check_two({.how = "clone", .before = 1, .parent = 0, .child = 100});
}

TEST_CASE("fork without %p: the child writes beside the parent's file") {
  ScratchFolder folder;
  std::string path = folder.path() + "/summary.json";
  Outcome probed = run({.argv = {fixture("fx_fork"), "fork", "4", "1", "2", "3", "exit"},
                        .env = {{"UBP_PROBES", "cycle_0"}, {"UBP_SUMMARY", path}},
                        .summary = false});
  CHECK(probed.end() == "exit 0");
  std::string child = std::to_string(numbers(probed.out)["child"]);
  nlohmann::json parents = read_json(path);
  nlohmann::json childs = read_json(path + "." + child);
  REQUIRE(parents.is_object());
  REQUIRE(childs.is_object());
  CHECK(total(parents, "hits") == 3);
  CHECK(total(childs, "hits") == 3);
  CHECK(parents["pid"] == probed.pid);
}

TEST_CASE("vfork: the child's hits are the parent's, and one summary is written") {
  Outcome probed = start({.how = "vfork", .before = 10, .parent = 20, .child = 30});
  CHECK(probed.summaries.size() == 1);
  check_each(probed.summary(), 60);
}

TEST_CASE("clone_vm_no_settls: a task without TLS of its own runs beside its parent") {
  Run r{.how = "clone_vm"};
  Outcome probed = start(r);
  CHECK(probed.summaries.size() == 1);
  std::uint64_t all = static_cast<std::uint64_t>(r.before + r.parent + r.child) * kFunctions;
  CHECK(total(probed.summary(), "hits") == all);
}

}  // namespace ubp::test::fork_test
