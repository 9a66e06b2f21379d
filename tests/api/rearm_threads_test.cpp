// Threads that are made while nothing is armed count by themselves all the same when something is again: they did not
// get a %gs of their own when they were made (runtime/trap/segment.h).
#include "fixture.h"

#include <atomic>
#include <thread>

TEST_CASE("threads made between two times of arming lose no counts to each other") {
  constexpr long kCalls = 20'000'000;
  const auto call = [] {
    for (long i = 0; i < kCalls; ++i) target_add(i, 1);
  };
  for (int round = 0; round < 3; ++round) {
    REQUIRE(ubp_init(nullptr) == UBP_OK);
    ubp_probe* const before = add("libfx_target:target_add");
    for (int i = 0; i < 1000; ++i) target_add(i, 1);
    CHECK(read(before).hits == 1000);
    REQUIRE(ubp_shutdown() == UBP_OK);
    std::atomic<bool> may_begin{false};
    std::thread other([&] {
      while (!may_begin) std::this_thread::yield();
      call();
    });
    REQUIRE(ubp_init(nullptr) == UBP_OK);
    ubp_probe* const probe = add("libfx_target:target_add");
    may_begin = true;
    call();
    other.join();
    CHECK(read(probe).hits == 2 * kCalls);
    REQUIRE(ubp_shutdown() == UBP_OK);
  }
}
