// Calls that a program ends: fault injection in real processes, by traps and by jumps.
#include <doctest/doctest.h>

#include <cstdlib>
#include <map>
#include <string>

#include "harness.h"

namespace ubp::test::override_test {

namespace {

constexpr std::int64_t kAll = 0x3f;

// Probes the program that allocates; says which allocations succeeded.
std::map<std::string, std::int64_t> allocations(const std::string& probes) {
  const Outcome outcome = run_probed({fixture("fx_fail")}, probes);
  CAPTURE(outcome.err);
  CHECK(outcome.end() == "exit 0");
  CHECK(adds_up(outcome.summary()));
  auto said = numbers(outcome.out);
  CHECK(said["wrong"] == 0);
  return said;
}

}  // namespace

TEST_CASE("override_malloc: the third call fails, and the other eleven do not") {
  auto said = allocations("libc:malloc /arg0 == 123457/ { if (++@n == 3) { override(0) } }");
  CHECK(said["malloc"] == (kAll & ~4));
  CHECK(said["new"] == kAll);
}

TEST_CASE("override_malloc: what new throws then passes the frames of its callers") {
  auto said =
      allocations("libc:malloc /arg0 == 123457/ { ++@n; if (@n == 8 || @n == 12) { override(0) } }; libc:malloc");
  CHECK(said["malloc"] == kAll);
  CHECK(said["new"] == (kAll & ~2 & ~32));
}

TEST_CASE("override_malloc: control: without override() all succeed") {
  auto said = allocations("libc:malloc /arg0 == 123457/ { if (++@n == 3) { @third = arg0 } }");
  CHECK(said["malloc"] == kAll);
  CHECK(said["new"] == kAll);
}

TEST_CASE("override is refused where nothing is called, and arms nothing") {
  for (const char* probes : {"libc:malloc+4 { override(0) }", "insn:libc:malloc { override(0) }"}) {
    CAPTURE(std::string(probes));
    const Outcome outcome = run_probed({fixture("fx_fail")}, probes);
    CHECK(numbers(outcome.out)["malloc"] == kAll);
    CHECK(outcome.err.find("not-called: ") != std::string::npos);
  }
  const Outcome begin = run_probed({fixture("fx_fail")}, "begin { override(0) }");
  CHECK(numbers(begin.out)["malloc"] == kAll);
  CHECK(begin.err.find("override() can not be used with 'begin' and 'end' probes") != std::string::npos);
}

TEST_CASE("ubp run overrides only when it is asked to") {
  const std::string program = "uprobe:libc:malloc /arg0 == 123457/ { if (++@n == 1) { override(0) } }";
  const std::string ubp = command_path();
  const Outcome safe = run_plain({ubp, "run", "-e", program, "--", fixture("fx_fail")});
  CHECK(safe.end() == "exit 1");
  CHECK(safe.err.find("override() is an unsafe function being used in safe mode") != std::string::npos);
  CHECK(safe.out.empty());
  const Outcome unsafe = run_plain({ubp, "run", "--unsafe", "-e", program, "--", fixture("fx_fail")});
  CHECK(unsafe.end() == "exit 0");
  CHECK(unsafe.out.find("malloc 62\n") != std::string::npos);
}

}  // namespace ubp::test::override_test
