// Exactness: f called N times by each of T threads is hit exactly N x T times, whatever the number of slots;
// and so is every instruction of a function of many kinds of instruction, whose result stays the same.
//
// A trap costs about 2 us, so 10^6 hits for each of 200 threads take minutes. By default the largest N is scaled down
// with T; UBP_TEST_LONG=1 runs 10^6 with every T, and where jumps count 1 and 2 threads do.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::exact_counts_test {

namespace {

// UBP_SLOTS, empty for the default.
const char* const kSlots[] = {"1", "4", ""};

Environment slots_environment(const std::string& slots) {
  if (slots.empty()) return {};
  return {{"UBP_SLOTS", slots}};
}

long largest(int threads) {
  if (long_run() || (threads <= 2 && std::getenv("UBP_TEST_OPTIMIZE") != nullptr)) return 1000000;
  if (threads <= 2) return 60000;
  return threads <= 16 ? 20000 : 2000;
}

void check_function_count(int threads, long calls, const std::string& slots) {
  CAPTURE(threads);
  CAPTURE(calls);
  CAPTURE(slots);
  std::vector<std::string> argv = {fixture("fx_count"), std::to_string(threads), std::to_string(calls)};
  Environment env = slots_environment(slots);
  env.emplace_back("UBP_PROBES", "f");
  Outcome probed = run({.argv = argv, .env = env, .timeout_s = long_run() ? 1200 : 60});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == run_plain(argv).out);
  nlohmann::json summary = probed.summary();
  auto expected = static_cast<std::uint64_t>(calls) * static_cast<std::uint64_t>(threads);
  CHECK(hits(summary, "f") == expected);
  CHECK(total(summary, "hits") == expected);
  CHECK(total(summary, "missed") == 0);
  CHECK(total(summary, "probepoints_armed") == 1);
  CHECK(adds_up(summary));
}

void check_mixed(int threads, long calls, const std::string& slots, const char* program = "fx_mixed") {
  CAPTURE(threads);
  CAPTURE(calls);
  CAPTURE(slots);
  std::vector<Point> all = points(run_plain({fixture(program), "--offsets"}).out);
  std::vector<std::string> argv = {fixture(program), std::to_string(threads), std::to_string(calls)};
  Environment env = slots_environment(slots);
  env.emplace_back("UBP_PROBES", probe_list(all));
  Outcome probed = run({.argv = argv, .env = env, .timeout_s = long_run() ? 6000 : 60});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == run_plain(argv).out);
  nlohmann::json summary = probed.summary();
  CHECK(total(summary, "probepoints_armed") == all.size());
  CHECK(total(summary, "refused") == 0);
  std::string wrong;  // one message for all points
  for (const Point& point : all) {
    std::uint64_t expected = point.times * static_cast<std::uint64_t>(calls) * static_cast<std::uint64_t>(threads);
    std::uint64_t got = hits(summary, point.item);
    if (got != expected) {
      wrong += point.item + ": " + std::to_string(got) + " not " + std::to_string(expected) + "\n";
    }
  }
  CHECK(wrong == "");
  CHECK(total(summary, "missed") == 0);
  CHECK(adds_up(summary));
}

}  // namespace

TEST_CASE("exact: with every instruction a jump, a call's return traps no more than the rest") {
  Outcome probed =
      run_probed({fixture("fx_inject"), "1000"}, "insn:probed; insn:probed_leaf", {{"UBP_OPTIMIZE", "always"}});
  CHECK(probed.end() == "exit 0");
  const nlohmann::json summary = probed.summary();
  CHECK(total(summary, "hits") == 10 * 1000);
  CHECK(summary["traps"]["hits"].get<std::uint64_t>() <= 20);
}

TEST_CASE("promotion: in auto, what is hit often in the middle of a function gets its jump while threads run it") {
  const std::vector<Point> all = points(run_plain({fixture("fx_fifty"), "--offsets"}).out);
  for (const long threads : {1L, 2L, 8L}) {
    CAPTURE(threads);
    constexpr long kCalls = 100000;
    const std::vector<std::string> argv = {fixture("fx_fifty"), std::to_string(threads), std::to_string(kCalls)};
    Outcome probed = run({.argv = argv, .env = {{"UBP_PROBES", probe_list(all)}, {"UBP_OPTIMIZE", "auto"}}});
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == run_plain(argv).out);
    const nlohmann::json summary = probed.summary();
    const auto expected = static_cast<std::uint64_t>(threads * kCalls);
    for (const auto& probe : summary["probes"]) CHECK(probe["hits"] == expected);
    CHECK(total(summary, "hits") == expected * all.size());
    CHECK(summary["optimised"]["hits"].get<std::uint64_t>() * 10 > expected * all.size() * 9);
    CHECK(adds_up(summary));
  }
}

TEST_CASE("exact_counts: function entry, N in {0, 1}") {
  for (std::string slots : kSlots) {
    for (int threads : {1, 2, 16, 200}) {
      check_function_count(threads, 0, slots);
      check_function_count(threads, 1, slots);
    }
  }
}

TEST_CASE("exact_counts_many_threads: function entry, N as large as it goes") {
  for (std::string slots : kSlots) {
    for (int threads : {1, 2, 16, 200}) check_function_count(threads, largest(threads), slots);
  }
}

TEST_CASE("exact_counts: every instruction of mixed, N in {0, 1}") {
  for (std::string slots : kSlots) {
    for (int threads : {1, 2, 16, 200}) {
      check_mixed(threads, 0, slots);
      check_mixed(threads, 1, slots);
    }
  }
}

TEST_CASE("exact_counts: every instruction of mixed, many calls") {
  for (std::string slots : kSlots) {
    for (int threads : {1, 2, 16, 200}) check_mixed(threads, long_run() ? 1000000 : 800 / threads, slots);
  }
}

// Each of its instructions is executed once in a call. With UBP_TEST_LONG and UBP_TEST_OPTIMIZE=always 200 threads make
// 10^10 hits in minutes; by traps alone it takes hours.
TEST_CASE("exact_counts: every one of fifty instructions") {
  for (std::string slots : kSlots) {
    for (int threads : {1, 2, 16, 200}) {
      for (long calls : {0L, 1L, long_run() ? 1000000L : 3000L / threads})
        check_mixed(threads, calls, slots, "fx_fifty");
    }
  }
}

TEST_CASE("one probepoint, several probes: each counts") {
  Outcome probed = run_probed({fixture("fx_count"), "1", "500"}, "f; f+0; fx_count:f; \"f\"");
  nlohmann::json summary = probed.summary();
  CHECK(total(summary, "probepoints_armed") == 1);
  for (std::string item : {"f", "f+0", "fx_count:f", "\"f\""}) CHECK(hits(summary, item) == 500);
  CHECK(adds_up(summary));
}

TEST_CASE("excluded probepoints are not armed") {
  Outcome probed = run_probed({fixture("fx_cycle"), "20", "100"}, "cycle_?; cycle_1?; !cycle_5; !cycle_*7");
  nlohmann::json summary = probed.summary();
  CHECK(probed.out == "wrong 0\n");
  CHECK(total(summary, "probepoints_armed") == 17);
  CHECK(total(summary, "hits") == 1700);
}

}  // namespace ubp::test::exact_counts_test
