// Children that their maker waits for, in its memory: they are many and short, take nothing of the runtime's with them,
// and every hit of theirs is counted.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::spawn_test {

namespace {

Outcome check(const std::string& how, int count, const std::string& probes) {
  CAPTURE(how);
  CAPTURE(probes);
  Outcome probed = run_probed({fixture("fx_spawn"), how, std::to_string(count)}, probes);
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK_MESSAGE(said["wrong"] == 0, probed.out);
  CHECK(said["pages"] < 64);
  CHECK(said["maps"] < 16);
  CHECK(xol(probed.summary(), "threads_seen") == 1);
  CHECK(adds_up(probed.summary()));
  return probed;
}

}  // namespace

TEST_CASE("spawn_20000: more children than there are task blocks, exact counts, no growth") {
  // Whose blocks they are is no matter of jumps.
  const int children = std::getenv("UBP_TEST_OPTIMIZE") != nullptr ? 2000 : 20000;
  Outcome probed = check("posix_spawn", children, "libc:execve; libc:posix_spawn");
  CHECK(hits(probed.summary(), "libc:execve") == static_cast<std::uint64_t>(children));
  CHECK(hits(probed.summary(), "libc:posix_spawn") == static_cast<std::uint64_t>(children));
}

TEST_CASE("spawn_20000: vfork, system and programs that are there") {
  CHECK(hits(check("vfork", 3000, "f; libc:getpid").summary(), "f") == 3000);
  CHECK(hits(check("spawn_true", 300, "libc:execve; libc:*").summary(), "libc:execve") == 300);
  check("system", 300, "libc:*");
}

}  // namespace ubp::test::spawn_test
