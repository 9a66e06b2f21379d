// Consumers of returns and calls: what they are told, and what is refused.
#include "fixture.h"

#include <algorithm>
#include <string>
#include <vector>

#include <ubp.hpp>

namespace {

struct Seen {
  ubp_status returns = UBP_OK, calls = UBP_OK;
  std::uint64_t value = 0, first = 0, second = 0, ip = 0;
  ubp_call call = sized<ubp_call>();
  ubp_probe* probe = nullptr;
};
void see(const ubp_context* context, void* data) {
  Seen seen;
  seen.returns = ubp_context_retval(context, &seen.value);
  seen.calls = ubp_context_call(context, &seen.call);
  seen.first = ubp_context_argument(context, 0);
  seen.second = ubp_context_argument(context, 1);
  seen.ip = ubp_context_ip(context);
  seen.probe = ubp_context_probe(context);
  static_cast<std::vector<Seen>*>(data)->push_back(seen);
}

}  // namespace

TEST_CASE("call: a consumer at returns is told what the function returns") {
  std::vector<Seen> seen;
  const Scoped probe(add("ur:libfx_target:target_add", &see, &seen));
  CHECK(target_add(3, 4) == 7);
  CHECK(target_twice(21) == 42);
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].returns == UBP_OK);
  CHECK(seen[0].value == 7);
  CHECK(seen[1].value == 42);
  CHECK(seen[0].calls == UBP_E_INVALID);  // a return is no call
  CHECK(seen[0].ip == reinterpret_cast<std::uint64_t>(&target_add));
  CHECK(seen[0].probe == probe.probe);
  CHECK(read(probe.probe).hits == 2);
}

TEST_CASE("call: a consumer of calls has the entry's arguments, times and depth") {
  std::vector<Seen> seen;
  {
    const Scoped probe(add("call:libfx_target:target_add; call:libfx_target:target_twice", &see, &seen));
    CHECK(target_twice(21) == 42);
    CHECK(read(probe.probe).hits == 2);
    CHECK(read(probe.probe).recorded == 2);
    REQUIRE(seen.size() == 2);
    for (const Seen& its : seen) {
      CHECK(its.returns == UBP_OK);
      CHECK(its.calls == UBP_OK);
      CHECK(its.value == 42);
      CHECK(its.first == 21);
      CHECK(its.probe == probe.probe);
    }
    const ubp_call &inner = seen[0].call, &outer = seen[1].call;
    CHECK(seen[0].second == 21);
    CHECK(inner.depth == 1);
    CHECK(outer.depth == 0);
    CHECK(inner.self_ns == inner.elapsed_ns);
    CHECK(outer.elapsed_ns == outer.self_ns + inner.elapsed_ns);
    CHECK(ubp_disable(probe.probe) == UBP_OK);
    target_twice(1);
    CHECK(ubp_enable(probe.probe) == UBP_OK);
    target_twice(1);
    CHECK(seen.size() == 4);
  }
  target_twice(1);
  CHECK(seen.size() == 4);
}

TEST_CASE("call: net times are without what the consumers take") {
  struct Least {
    std::uint64_t outer = ~std::uint64_t{0};
  };
  const auto least_of = [](std::uint32_t flags) {
    Least least;
    const Scoped probe(add(
        "call:libfx_target:target_add; call:libfx_target:target_twice",
        [](const ubp_context* context, void* data) {
          ubp_call call = sized<ubp_call>();
          ubp_context_call(context, &call);
          if (call.depth == 0) {
            std::uint64_t& least_yet = static_cast<Least*>(data)->outer;
            least_yet = std::min(least_yet, call.elapsed_ns);
            return;
          }
          for (volatile int i = 0; i < 100000;) i = i + 1;
        },
        &least, flags));
    for (int i = 0; i < 50; ++i) target_twice(1);
    return least.outer;
  };
  CHECK(least_of(UBP_PROBE_NET) < least_of(0) / 2);
  ubp_probe* probe = nullptr;
  ubp_options options = sized<ubp_options>();
  options.flags = UBP_PROBE_NET;
  CHECK(ubp_register("call:libfx_target:target_add", &options, &probe, nullptr) == UBP_E_INVALID);
}

TEST_CASE("call: outside of returns nothing is told, and NULL is no place") {
  std::vector<Seen> seen;
  const Scoped probe(add("libfx_target:target_quiet", &see, &seen));
  target_quiet(1);
  REQUIRE(seen.size() == 1);
  CHECK(seen[0].returns == UBP_E_INVALID);
  CHECK(seen[0].calls == UBP_E_INVALID);
  CHECK(seen[0].value == 0);
  static ubp_status statuses[3];
  const Scoped other(add(
      "call:libfx_target:target_add",
      [](const ubp_context* context, void*) {
        statuses[0] = ubp_context_retval(context, nullptr);
        statuses[1] = ubp_context_call(context, nullptr);
        ubp_call call{};
        statuses[2] = ubp_context_call(context, &call);
      },
      nullptr));
  target_add(1, 1);
  CHECK(statuses[0] == UBP_E_INVALID);
  CHECK(statuses[1] == UBP_E_INVALID);
  CHECK(statuses[2] == UBP_E_STRUCT_SIZE);
}

TEST_CASE("call: returns, calls and entries of one registration are one handle's") {
  std::vector<Seen> seen;
  ubp_probe* probe =
      add("libfx_target:target_quiet; ur:libfx_target:target_add; call:libfx_target:target_twice", &see, &seen);
  target_quiet(1);
  target_twice(2);
  REQUIRE(seen.size() == 3);
  for (const Seen& its : seen) CHECK(its.probe == probe);
  CHECK(std::count_if(seen.begin(), seen.end(), [](const Seen& its) { return its.calls == UBP_OK; }) == 1);
  CHECK(read(probe).hits == 3);
  CHECK(ubp_unregister(probe) == UBP_OK);
  target_twice(2);
  CHECK(seen.size() == 3);
}

TEST_CASE("call: what a call returns may be changed, and not what its arguments were") {
  static ubp_status statuses[2];
  const Scoped probe(add(
      "call:libfx_target:target_add",
      [](const ubp_context* context, void*) {
        statuses[0] = ubp_context_set_register(context, UBP_RAX, 99);
        statuses[1] = ubp_context_set_register(context, UBP_RSI, 99);
      },
      nullptr, UBP_PROBE_MODIFY));
  CHECK(target_add(3, 4) == 99);
  CHECK(statuses[0] == UBP_OK);
  CHECK(statuses[1] == UBP_E_REFUSED);
}

TEST_CASE("call: neither records nor ends calls") {
  const auto status = [](std::uint32_t flags, ubp_consumer consumer) {
    auto options = sized<ubp_options>();
    options.consumer = consumer;
    options.flags = flags;
    auto refusal = sized<ubp_refusal>();
    return ubp_register("call:libfx_target:target_add", &options, nullptr, &refusal);
  };
  CHECK(status(UBP_PROBE_RECORD, nullptr) == UBP_E_INVALID);
  CHECK(status(UBP_PROBE_OVERRIDE, &see) == UBP_E_REFUSED);
}

TEST_CASE("call: the same by ubp.hpp, beside a program of the same text") {
  std::int64_t returned = 0;
  std::uint64_t depth = 99, elapsed = 0;
  auto probe = ubp::Probe::create(
      "call:libfx_target:target_add; call:libfx_target:target_twice { @d = max(depth); @n = count() }",
      [&](const ubp::Hit& hit) {
        returned = hit.returned<long>().value_or(-1);
        depth = hit.call() ? hit.call()->depth : 99;
        elapsed = hit.call() ? hit.call()->elapsed_ns : 0;
      });
  REQUIRE(probe);
  CHECK(target_twice(-5) == -10);
  CHECK(returned == -10);
  CHECK(depth == 1);  // the program's calls are one family
  CHECK(elapsed > 0);
}
