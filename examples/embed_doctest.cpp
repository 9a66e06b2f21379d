// Tests that look inside: how often a function is called, by which threads, with which arguments. The code under test,
// here Cache, is not changed for it; in your program it is a library that the tests link.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <ubp.hpp>

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

// The slow part, of which there should be as little as can be. noipa: the compiler neither inlines it nor changes its
// arguments.
extern "C" __attribute__((noipa)) int compute(int key) { return key * key; }

class Cache {
 public:
  int get(int key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = values_.find(key);
    return found != values_.end() ? found->second : values_[key] = compute(key);
  }

 private:
  std::mutex mutex_;
  std::map<int, int> values_;
};

// What a probe on compute() has seen.
struct Calls {
  std::mutex mutex;
  std::vector<int> keys;
  std::set<std::uint32_t> threads;
};

TEST_CASE("each key is computed once, whoever asks for it") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  Calls calls;
  const auto probe = ubp::Probe::create("compute", [&calls](const ubp::Hit& hit) {
    const std::lock_guard<std::mutex> lock(calls.mutex);
    calls.keys.push_back(hit.argument<int>(0));
    calls.threads.insert(hit.thread_id());
  });
  REQUIRE_MESSAGE(probe, probe.error().text());

  Cache cache;
  CHECK(cache.get(3) == 9);
  CHECK(cache.get(4) == 16);
  CHECK(cache.get(3) == 9);
  std::thread([&cache] {
    CHECK(cache.get(4) == 16);
    CHECK(cache.get(-5) == 25);
  }).join();

  // compute was called 3 times, from 2 threads, with these arguments:
  CHECK(probe->stats()->hits == 3);
  CHECK(calls.threads.size() == 2);
  CHECK(calls.keys == std::vector<int>{3, 4, -5});
}

TEST_CASE("a call with the wrong argument is seen") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  int wrong = 0;
  const auto probe =
      ubp::Probe::create("compute", [&wrong](const ubp::Hit& hit) { wrong += hit.argument<int>(0) > 100; });
  REQUIRE(probe);
  Cache cache;
  cache.get(7);
  CHECK(wrong == 0);
  cache.get(700);
  CHECK(wrong == 1);
}

TEST_CASE("a dependency that fails: the probe changes what is asked for") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  Cache cache;
  {
    const auto ask_for_zero = [](const ubp::Hit& hit) { hit.set_register(UBP_RDI, 0); };
    const auto broken = ubp::Probe::create("compute", ask_for_zero, UBP_PROBE_MODIFY);
    REQUIRE(broken);
    CHECK(cache.get(9) == 0);
  }
  CHECK(cache.get(8) == 64);
}
