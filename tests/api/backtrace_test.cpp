// What a consumer finds of the stack, beside what glibc's backtrace() finds of the same one.
#include "fixture.h"

#include <execinfo.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kMost = 64;

struct Stack {
  std::array<std::uint64_t, kMost> addresses;
  std::size_t limit = kMost;
  std::size_t count = 0;
  long calls = 0;
};
void take(const ubp_context* hit, void* data) {
  auto& its = *static_cast<Stack*>(data);
  ++its.calls;
  its.count = ubp_context_backtrace(hit, its.addresses.data(), its.limit);
}

// A caller of the probed function, which asks glibc for its own callers.
struct GlibcStack {
  std::array<void*, kMost> addresses;
  int count = 0;
};
GlibcStack g_callers;
[[gnu::noinline]] long call_target() {
  g_callers.count = backtrace(g_callers.addresses.data(), static_cast<int>(kMost));
  long sum = target_add(1, 2);
  asm volatile("" : "+r"(sum));  // no tail call
  return sum;
}

// The probed function is the innermost frame, call_target() the next, and all others are glibc's.
void check_same(const Stack& its) {
  const auto begin = reinterpret_cast<std::uint64_t>(&call_target);
  std::vector<std::uint64_t> callers;
  for (int i = 0; i < g_callers.count; ++i)
    callers.push_back(reinterpret_cast<std::uint64_t>(g_callers.addresses[static_cast<std::size_t>(i)]));
  const auto is_in_call_target = [&](std::uint64_t address) { return address - begin < 0x400; };
  // A sanitizer has a backtrace() of its own, which is then the innermost.
  callers.erase(callers.begin(), std::find_if(callers.begin(), callers.end(), is_in_call_target));
  REQUIRE(callers.size() > 2);
  REQUIRE(its.count == callers.size() + 1);
  CHECK(its.addresses[0] == reinterpret_cast<std::uint64_t>(&target_add));
  CHECK(is_in_call_target(its.addresses[1]));
  for (std::size_t i = 1; i < callers.size(); ++i) CHECK(its.addresses[i + 1] == callers[i]);
}

[[gnu::noinline]] long recurse(int depth) { return depth == 0 ? call_target() : recurse(depth - 1) + 1; }

void on_signal(int) { recurse(3); }

}  // namespace

TEST_CASE("backtrace: a consumer sees its hit's callers, in every tier, thread and signal handler") {
  Stack its;
  const Scoped probe(add("libfx_target:target_add", &take, &its, UBP_PROBE_BACKTRACE));
  for (const int depth : {0, 1, 20}) {
    for (int again = 0; again < 3; ++again) {
      CAPTURE(depth);
      recurse(depth);
      check_same(its);
    }
  }
  std::thread([&] {
    recurse(5);
    check_same(its);
  }).join();
  struct sigaction action {
  }, before{};
  action.sa_handler = &on_signal;
  sigaction(SIGUSR1, &action, &before);
  raise(SIGUSR1);
  check_same(its);
  sigaction(SIGUSR1, &before, nullptr);
  CHECK(its.calls == 11);
}

TEST_CASE("backtrace: as many frames as there is room for") {
  Stack its;
  const Scoped probe(add("libfx_target:target_add", &take, &its, UBP_PROBE_BACKTRACE | UBP_PROBE_MODIFY));
  for (const std::size_t limit : {0, 1, 2, 5}) {
    its.limit = limit;
    its.addresses.fill(~0UL);
    recurse(10);
    CHECK(its.count == limit);
    CHECK(its.addresses[limit] == ~0UL);
  }
}

TEST_CASE("backtrace: only for those who asked") {
  Stack its;
  its.count = 1;
  {
    const Scoped probe(add("libfx_target:target_add", &take, &its, 0));
    target_add(1, 2);
    CHECK(its.calls == 1);
    CHECK(its.count == 0);
  }
  {
    const Scoped probe(add("libfx_target:target_add", &take, &its, UBP_PROBE_BACKTRACE | UBP_PROBE_NO_REGISTERS));
    target_add(1, 2);
    CHECK(its.calls == 2);
    CHECK(its.count == 0);
  }
  auto options = sized<ubp_options>();
  options.flags = UBP_PROBE_BACKTRACE;
  CHECK(ubp_register("libfx_target:target_add", &options, nullptr, nullptr) == UBP_E_INVALID);
}
