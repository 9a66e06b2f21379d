// A displaced call pushes the original return address: exceptions, longjmp and unwinders work through it.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::exceptions_test {

namespace {

const char* const kThrough[] = {"through_register", "through_memory", "through_direct"};

// Arms every instruction of through.S and runs `mode` N times; `times_after` is what follows the call.
void check_leaving(const std::string& mode, std::uint64_t times_after) {
  constexpr std::uint64_t kCalls = 1000;
  CAPTURE(mode);
  std::vector<Point> all = points(run_plain({fixture("fx_throw"), "--offsets"}).out);
  REQUIRE(all.size() == 21);
  std::vector<std::string> argv = {fixture("fx_throw"), mode, std::to_string(kCalls)};
  Outcome probed = run_probed(argv, probe_list(all) + "; direct_target", {{"UBP_SLOTS", "2"}});
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["caught"] == 3 * kCalls);
  CHECK(probed.out == run_plain(argv).out);
  CHECK(hits(probed.summary(), "direct_target") == 3 * kCalls);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CAPTURE(all[i].item);
    CHECK(hits(probed.summary(), all[i].item) == (i % 7 < 5 ? kCalls : times_after));
  }
}

}  // namespace

TEST_CASE("throw_through_probed_call") { check_leaving("throw", 0); }

TEST_CASE("longjmp_through_probed") { check_leaving("longjmp", 0); }

TEST_CASE("return through probed calls") { check_leaving("return", 1000); }

TEST_CASE("C++ names: demangled globs and quoted signatures") {
  const std::string kCaller = "\"(anonymous namespace)::caller(long (*)(long (*)(long), long), long)\"";
  std::vector<std::string> argv = {fixture("fx_throw"), "throw", "50"};
  Outcome probed = run_probed(argv, kCaller + "; *once*");
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["caught"] == 150);
  CHECK(hits(probed.summary(), kCaller) == 150);
  CHECK(hits(probed.summary(), "*once*") >= 150);
}

TEST_CASE("backtrace_at_probe: libunwind names the frames as in the unprobed run") {
  Outcome plain = run_plain({fixture("fx_backtrace")});
  std::string list = "middle; outer; main; direct_target";
  for (std::string name : kThrough) list += "; " + std::string(name) + "; " + name + "+0x4";
  for (const Point& point : points(run_plain({fixture("fx_throw"), "--offsets"}).out)) list += "; " + point.item;
  Outcome probed = run_probed({fixture("fx_backtrace")}, list);
  CHECK(plain.out.find("through_memory+") != std::string::npos);
  CHECK(plain.out.find("main+") != std::string::npos);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);
  CHECK(hits(probed.summary(), "outer") == 1);
}

}  // namespace ubp::test::exceptions_test
