// The text is byte for byte what it was once libubp is unloaded. A second preloaded library compares it with the files:
// behind libubp in LD_PRELOAD it is loaded before and unloaded after it; in front of it, it sees the int3s.
#include <doctest/doctest.h>

#include <string>

#include "harness.h"

namespace ubp::test::restore_test {

namespace {
Outcome run_between(const std::string& preload) {
  return run({.argv = {fixture("fx_hello")},
              .env = {{"LD_PRELOAD", preload}, {"UBP_PROBES", "insn:*; libc:*"}},
              .preload = false});
}
}  // namespace

TEST_CASE("disarming restores the text byte for byte") {
  const std::string reader = fixture("libfx_text.so");
  Outcome after = run_between(library() + " " + reader);
  auto said = numbers(after.out);
  REQUIRE(said.count("end_exe") == 1);
  REQUIRE(said.count("end_libc") == 1);
  CHECK(after.err.find("probepoints armed") != std::string::npos);
  CHECK(said["end_exe"] == 0);
  CHECK(said["end_libc"] == 0);

  Outcome during = run_between(reader + " " + library());  // the reader can tell
  said = numbers(during.out);
  CHECK(said["end_exe"] > 50);
  CHECK(said["end_libc"] > 1000);
}

}  // namespace ubp::test::restore_test
