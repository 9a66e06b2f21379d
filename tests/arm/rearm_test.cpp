// Arming and disarming while threads run through the probepoints, and while one sleeps in a slot. The runtime is linked
// into this program; what is probed lies in libfx_churn.so.
//
// Nobody can say of a call that met the change whether it was hit; what must hold: no trap is lost or taken for
// another's (a late one still finds its probepoint), results stay right, and hits are at most the calls, exactly the
// calls while armed.
#include <doctest/doctest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

#include "runtime/include/ubp.h"

extern "C" long churn_work(long x);            // libfx_churn.so
extern "C" long churn_read(int fd, void* to);  // read(2), its system call inside

namespace {

// Every instruction of the library, entries included, and the one entry that is counted.
struct Probes {
  ubp_probe* all = nullptr;
  ubp_probe* entry = nullptr;
};

Probes& probes() {
  static Probes instance = [] {
    ubp_config config{};
    config.struct_size = sizeof config;
    config.slots = 4;
    REQUIRE(ubp_init(&config) == UBP_OK);
    Probes made;
    REQUIRE(ubp_register("insn:libfx_churn:churn_*", nullptr, &made.all, nullptr) == UBP_OK);
    REQUIRE(ubp_register("libfx_churn:churn_work", nullptr, &made.entry, nullptr) == UBP_OK);
    return made;
  }();
  return instance;
}

ubp_status arm() {
  const ubp_status status = ubp_enable(probes().all);
  return status != UBP_OK ? status : ubp_enable(probes().entry);
}
ubp_status disarm() {
  const ubp_status status = ubp_disable(probes().all);
  return status != UBP_OK ? status : ubp_disable(probes().entry);
}

std::uint64_t entry_hits() {
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  return ubp_probe_read(probes().entry, &stats) == UBP_OK ? stats.hits : ~std::uint64_t{0};
}

long toggles() { return std::getenv("UBP_TEST_LONG") != nullptr ? 1000000 : 8000; }

}  // namespace

TEST_CASE("disarm_race_1e6: everything armed and disarmed under two runners") {
  // 10^6 toggles with UBP_TEST_LONG, 20,000 otherwise.
  CHECK(arm() == UBP_OK);
  const std::uint64_t before = entry_hits();
  std::atomic<bool> stop{false};
  std::atomic<long> wrong{0}, calls{0};
  std::vector<std::thread> runners;
  for (int i = 0; i < 2; ++i) {
    runners.emplace_back([&] {
      long own = 0;
      while (!stop.load()) {
        ++own;
        wrong += churn_work(own) != own * 5 + 3;
      }
      calls += own;
    });
  }
  for (long i = 0; i < toggles(); ++i) {
    if (disarm() != UBP_OK || arm() != UBP_OK) {
      ++wrong;
      break;
    }
  }
  stop = true;
  for (std::thread& runner : runners) runner.join();
  CHECK(wrong == 0);
  const std::uint64_t hits = entry_hits() - before;
  CHECK(hits > 0);
  CHECK(hits <= static_cast<std::uint64_t>(calls.load()));
  const std::uint64_t armed = entry_hits();  // armed now: exact
  for (long i = 0; i < 1000; ++i) churn_work(i);
  CHECK(entry_hits() == armed + 1000);
  REQUIRE(disarm() == UBP_OK);
  for (long i = 0; i < 1000; ++i) churn_work(i);
  CHECK(entry_hits() == armed + 1000);
}

TEST_CASE("unregister_blocked_in_read: a thread sleeps in a slot while its probepoint goes") {
  for (int round = 0; round < 20; ++round) {
    ubp_probe* probe = nullptr;
    REQUIRE(ubp_register("insn:libfx_churn:churn_read", nullptr, &probe, nullptr) == UBP_OK);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    char got = 0;
    long result = 0;
    std::thread sleeper([&] { result = churn_read(ends[0], &got); });
    ubp_probe_stats stats{};
    stats.struct_size = sizeof stats;
    for (int turn = 0; turn < 10'000 && stats.hits < 3; ++turn) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      REQUIRE(ubp_probe_read(probe, &stats) == UBP_OK);
    }
    CHECK(stats.hits == 3);  // it sleeps in the third instruction, or is about to
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    REQUIRE(ubp_unregister(probe) == UBP_OK);
    for (long i = 0; i < 100; ++i) CHECK(churn_work(i) == i * 5 + 3);
    REQUIRE(write(ends[1], "x", 1) == 1);
    sleeper.join();
    CHECK(result == 1);
    CHECK(got == 'x');
    close(ends[0]);
    close(ends[1]);
  }
}
