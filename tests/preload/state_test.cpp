// The state of a thread after a hit is that before it: vector, mask, x87 and flag registers, whichever way the hit
// leaves the kernel. And libc's own locks and allocators, every instruction of them armed.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::state_test {

TEST_CASE("fast_return_state_matrix: every subset of state components, both stacks, every reason to return slowly") {
  for (std::string mode : {"xstate", "altstack", "autodisarm", "mask", "pkru", "step"}) {
    CAPTURE(mode);
    const std::vector<std::string> argv = {fixture("fx_state"), mode, "1000"};
    auto plain = numbers(run_plain(argv).out);
    REQUIRE(plain["wrong"] == 0);
    Outcome probed = run_probed(argv, "insn:f; insn:f_leaf");
    CHECK(probed.end() == "exit 0");
    auto said = numbers(probed.out);
    if (said.count("skip") != 0) {
      MESSAGE("skipped: no protection keys here");
      continue;
    }
    CHECK(said["wrong"] == 0);
    const nlohmann::json summary = probed.summary();
    CHECK(summary["probes"].size() == 8);
    for (const auto& probe : summary["probes"]) CHECK(probe["hits"] == said["calls"]);
    CHECK(adds_up(summary));
  }
}

TEST_CASE("floating: the exceptions and modes of floating point are those of the unprobed run, from the start on") {
  const std::vector<std::string> argv = {fixture("fx_state"), "floating", "1000", fixture("libfx_plugin.so")};
  const Outcome plain = run_plain(argv);
  REQUIRE(numbers(plain.out)["wrong"] == 0);
  REQUIRE(count_prefix(plain.out, "main: mxcsr 1f80, ") == 1);
  const Outcome probed = run_probed(argv, "f; f+8; libc:*; libfx_plugin:* [missing=pending]");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);
  CHECK(hits(probed.summary(), "f") == 2000);
}

TEST_CASE("probe_every_instruction_of memcpy, malloc, free, dl_iterate_phdr, write and pthread_mutex_lock") {
  const std::string probes =
      "insn:libc:*mem*cpy*; insn:libc:*memmove*; insn:libc:malloc; insn:libc:_int_malloc; insn:libc:free; insn:libc:_int_free; "
      "insn:libc:dl_iterate_phdr; insn:libc:write; insn:libc:pthread_mutex_lock; insn:libc:pthread_mutex_unlock; "
      "insn:libc:__pthread_mutex_*lock*";
  Outcome probed = run({.argv = {fixture("fx_state"), "libc", "1000"},  // three million traps
                        .env = {{"UBP_PROBES", probes}, {"UBP_MISSING", "ignore"}},
                        .timeout_s = 180});
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["calls"] == 4000);
  CHECK(said["wrong"] == 0);
  CHECK(total(probed.summary(), "hits") > 500000);
  CHECK(adds_up(probed.summary()));
}

}  // namespace ubp::test::state_test
