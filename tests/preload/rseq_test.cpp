// rseq_refused: no probe goes into a restartable sequence; around it every instruction is armed.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::rseq_test {

TEST_CASE("rseq_refused: the sequence is left alone, its program counts right") {
  Outcome probed = run_probed({fixture("fx_rseq"), "20000"}, "insn:rseq_add");
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  if (said.count("skip") != 0) {
    MESSAGE("skipped: libc has not registered restartable sequences here");
    return;
  }
  CHECK(said["counted"] == said["calls"]);
  const nlohmann::json summary = probed.summary();
  int refused = 0;
  for (const auto& refusal : summary["refusals"]) {
    refused += refusal["reason"].get<std::string>().rfind("rseq", 0) == 0;
  }
  CHECK(refused == 4);  // the instructions between the descriptor's ends
  CHECK(total(summary, "probepoints_armed") >= 3);
  CHECK(total(summary, "hits") >= static_cast<std::uint64_t>(said["calls"]) * 2);
}

TEST_CASE("rseq_refused: one named address inside is refused with its reason") {
  const std::string listing = run_plain({"/usr/bin/objdump", "-d", "--no-show-raw-insn", fixture("fx_rseq")}).out;
  const std::size_t add = listing.find("add    $0x1,%rdx");
  if (add == std::string::npos) {
    MESSAGE("skipped: no objdump");
    return;
  }
  const std::size_t line = listing.rfind('\n', add) + 1;
  const std::string address = listing.substr(listing.find_first_not_of(' ', line),
                                             listing.find(':', line) - listing.find_first_not_of(' ', line));
  Outcome probed = run_probed({fixture("fx_rseq"), "10"}, "fx_rseq:0x" + address + "; main");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.err.find("restartable sequence") != std::string::npos);
  CHECK(total(probed.summary(), "refused") == 1);
}

}  // namespace ubp::test::rseq_test
