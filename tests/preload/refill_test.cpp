// Refill: a thread that cycles through more probepoints than it has slots keeps exact counts, and the
// summary's hits, misses, refills and evictions are what the access pattern predicts.
//
// Prediction: the cache is set-associative with at most 4 ways, set = index of the probepoint modulo sets,
// and the probepoints of one glob have consecutive indexes, so each set gets its even share. Replacement by
// age (FIFO or LRU) makes every access of a longer cycle a miss.
#include <doctest/doctest.h>

#include <cstdio>

#include "harness.h"

namespace ubp::test::refill_test {

namespace {

std::string cycle_probes(int count) {
  std::string list;
  for (int i = 0; i < count; ++i) list += "cycle_" + std::to_string(i) + ";";
  return list;
}

struct Pattern {
  int slots;
  int functions;
  int passes;
  int threads;
};

nlohmann::json run_pattern(const Pattern& pattern) {
  std::vector<std::string> argv = {fixture("fx_cycle"), std::to_string(pattern.functions),
                                   std::to_string(pattern.passes), std::to_string(pattern.threads)};
  Outcome probed = run_probed(argv, cycle_probes(pattern.functions), {{"UBP_SLOTS", std::to_string(pattern.slots)}});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "wrong 0\n");
  nlohmann::json summary = probed.summary();
  auto each = static_cast<std::uint64_t>(pattern.passes) * static_cast<std::uint64_t>(pattern.threads);
  int wrong = 0;
  for (int i = 0; i < pattern.functions; ++i) wrong += hits(summary, "cycle_" + std::to_string(i)) != each;
  CHECK(wrong == 0);
  CHECK(adds_up(summary));
  CHECK(xol(summary, "slots_per_thread") == static_cast<std::uint64_t>(pattern.slots));
  CHECK(summary["xol"]["policy"] == "thread");
  return summary;
}

void check_cache(const nlohmann::json& summary, std::uint64_t hit, std::uint64_t missed, std::uint64_t evicted) {
  CHECK(xol(summary, "hits") == hit);
  CHECK(xol(summary, "misses") == missed);
  CHECK(xol(summary, "refills") == missed);
  CHECK(xol(summary, "evictions") == evicted);
}

}  // namespace

TEST_CASE("refill: cycling through 4 x UBP_SLOTS probepoints misses every time") {
  for (int slots : {1, 4, 16, 64}) {
    CAPTURE(slots);
    int functions = 4 * slots, passes = 4000 / slots;
    auto accesses = static_cast<std::uint64_t>(functions * passes);
    check_cache(run_pattern({slots, functions, passes, 1}), 0, accesses, accesses - static_cast<unsigned>(slots));
  }
}

TEST_CASE("refill: as many probepoints as slots are filled once and then hit") {
  for (int slots : {1, 4, 16, 64}) {
    CAPTURE(slots);
    auto n = static_cast<std::uint64_t>(slots);
    check_cache(run_pattern({slots, slots, 500, 1}), n * 499, n, 0);
  }
}

TEST_CASE("refill: one probepoint more than one set holds misses every time") {
  check_cache(run_pattern({4, 5, 1000, 1}), 0, 5000, 4996);
}

TEST_CASE("refill: each thread has slots of its own") {
  nlohmann::json fits = run_pattern({16, 16, 300, 3});
  check_cache(fits, 16 * 299 * 3, 16 * 3, 0);
  CHECK(xol(fits, "threads_seen") >= 3);
  check_cache(run_pattern({4, 16, 300, 2}), 0, 16 * 300 * 2, (16 * 300 - 4) * 2);
}

TEST_CASE("refill: the area is bounded by slots, not by probepoints") {
  std::uint64_t few = xol(run_pattern({4, 4, 10, 1}), "area_bytes");
  std::uint64_t many = xol(run_pattern({4, 320, 10, 1}), "area_bytes");
  CHECK(few > 0);
  CHECK(many == few);
}

TEST_CASE("alias_refill_1e8: no stale instruction after a refill through the other view") {
  // Every hit of 8 functions over 4 slots writes a slot and executes it; a stale one gives another function's result.
  // Scaled: 2 x 10^5 refills; UBP_TEST_LONG runs 10^8.
  const int passes = long_run() ? 6250000 : 12500;
  Outcome probed = run({.argv = {fixture("fx_cycle"), "8", std::to_string(passes), "2"},
                        .env = {{"UBP_PROBES", cycle_probes(8)}, {"UBP_SLOTS", "4"}},
                        .timeout_s = long_run() ? 600 : 60});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "wrong 0\n");
  CHECK(xol(probed.summary(), "refills") == static_cast<std::uint64_t>(passes) * 16);
}

}  // namespace ubp::test::refill_test
