// Tests that look inside: how often a function is called, by which threads, with which arguments. The code under test,
// here Cache, is not changed for it; in your program it is a library that the tests link.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <ubp.hpp>

#include <cstdio>
#include <cstdlib>
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

// What a program under test does by way of libc.
static void load_settings() {
  for (const char* path : {"/etc/hostname", "/etc/passwd"}) {
    void* const buffer = std::malloc(4096);
    if (std::FILE* const file = std::fopen(path, "re")) std::fclose(file);
    std::free(buffer);
  }
}

TEST_CASE("budgets, asked for in UBP's own language: a compiled program looks, this one asserts") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  const auto probe = ubp::Probe::create(R"(
    libc:malloc /arg0 > 1 << 20/ { @big = count(); }
    libc:malloc                  { @bytes = hist(arg0); @threads[tid] = count(); }
    libc:fopen                   { @opens[str(arg0)] = count(); }
  )");
  REQUIRE_MESSAGE(probe, probe.error().text());

  load_settings();
  std::thread(load_settings).join();

  CHECK(probe->map("@big")->number() == 0);  // no malloc above 1 MiB
  const ubp::Map opens = probe->map("@opens").value();
  CHECK(opens.size() <= 3);
  CHECK(opens.number("/etc/passwd") == 2);
  CHECK(opens.find("/etc/shadow") == nullptr);
  const ubp::Map threads = probe->map("@threads").value();
  CHECK(threads.size() == 2);
  const ubp::Map bytes = probe->map("@bytes").value();
  REQUIRE(bytes.find() != nullptr);
  for (const ubp_bucket& bucket : bytes.find()->buckets) CHECK(bucket.last <= 1 << 20);
}

TEST_CASE("fault injection: the second fopen fails, and the program goes on") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  const auto probe = ubp::Probe::create("libc:fopen { if (++@n == 2) { override(0); } }");
  REQUIRE_MESSAGE(probe, probe.error().text());
  std::FILE* const first = std::fopen("/etc/passwd", "re");
  std::FILE* const second = std::fopen("/etc/passwd", "re");
  CHECK(first != nullptr);
  CHECK(second == nullptr);
  if (first != nullptr) std::fclose(first);
  CHECK(probe->map("@n")->number() == 2);
}
