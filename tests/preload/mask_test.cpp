// SIGTRAP is never blocked in the kernel, and is blocked for the application when it says so: in masks lent for one
// call, inherited through exec and spawn, and with signals pending. fx_mask calls an armed function in every such
// state; it must die of SIGTRAP when one reaches the kernel. With and without libc itself probed.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::mask_test {

namespace {

void check_mode(const std::string& mode) {
  for (std::string probes : {"f", "f; libc:*"}) {
    CAPTURE(mode);
    CAPTURE(probes);
    Outcome probed = run_probed({fixture("fx_mask"), mode}, probes);
    CHECK(probed.end() == "exit 0");
    auto said = numbers(probed.out);
    CHECK_MESSAGE(said["wrong"] == 0, probed.out);
    CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(said["calls"]));
    CHECK(adds_up(probed.summary()));
  }
}

}  // namespace

TEST_CASE("mask_sigsuspend_ppoll: masks lent for one call") {
  CHECK(numbers(run_plain({fixture("fx_mask"), "lent"}).out)["wrong"] == 0);
  check_mode("lent");
}

TEST_CASE("masks lent by system calls that no function of libc's stands for") {
  CHECK(numbers(run_plain({fixture("fx_mask"), "unseen"}).out)["wrong"] == 0);
  check_mode("unseen");
}

TEST_CASE("a SIGTRAP that comes while it is blocked is pending, handled later or waited for") {
  CHECK(numbers(run_plain({fixture("fx_mask"), "pending"}).out)["wrong"] == 0);
  check_mode("pending");
}

TEST_CASE("bad pointers are refused as the kernel refuses them, and no more is read of a mask than it reads") {
  CHECK(numbers(run_plain({fixture("fx_mask"), "pointers"}).out)["wrong"] == 0);
  check_mode("pointers");
}

TEST_CASE("exec_inherited_mask: programs started with SIGTRAP blocked are probed, and read it back") {
  for (std::string mode : {"exec", "spawn"}) {
    for (std::string follow : {"", "exec"}) {
      CAPTURE(mode);
      CAPTURE(follow);
      CHECK(count_prefix(run_plain({fixture("fx_mask"), mode}).out, "inherited 1") == 1);
      Environment more;
      if (!follow.empty()) more.emplace_back("UBP_FOLLOW", follow);
      Outcome probed = run_probed({fixture("fx_mask"), mode}, "f; libc:*", more);
      CHECK(probed.end() == "exit 0");
      CHECK_MESSAGE(count_prefix(probed.out, "inherited 1") == 1, probed.out);
      if (mode == "spawn") CHECK(count_prefix(probed.out, "wrong 0") == 1);
    }
  }
}

}  // namespace ubp::test::mask_test
