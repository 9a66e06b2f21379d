// What other probe runtimes get wrong: live red zones, functions of three bytes, loops into the patched bytes,
// prologues relative to RIP, probes in mid-function. Every instruction is armed, and every one's count is known.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::peers_test {

namespace {

constexpr long kCalls = 2000;

nlohmann::json check(const std::string& probes) {
  CAPTURE(probes);
  Outcome probed = run_probed({fixture("fx_peers"), std::to_string(kCalls)}, probes);
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["calls"] == kCalls);
  CHECK(said["wrong"] == 0);
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "refused") == 0);
  return probed.summary();
}

// How often each instruction of a function is executed in one call, in order.
void check_function(const std::string& name, const std::vector<long>& times) {
  CAPTURE(name);
  const nlohmann::json summary = check("insn:" + name);
  std::map<std::uint64_t, std::uint64_t> by_address;
  for (const auto& probe : summary["probes"]) {
    by_address[std::strtoull(probe["address"].get<std::string>().c_str(), nullptr, 16)] = probe["hits"];
  }
  REQUIRE(by_address.size() == times.size());
  auto expected = times.begin();
  for (const auto& [address, count] : by_address) CHECK(count == static_cast<std::uint64_t>(*expected++ * kCalls));
}

}  // namespace

TEST_CASE("red_zone_live: function entry and mid-function") {
  check_function("red_zone", std::vector<long>(15, 1));
  CHECK(hits(check("red_zone"), "red_zone") == kCalls);
  CHECK(hits(check("ur:red_zone"), "ur:red_zone") == kCalls);
}

TEST_CASE("tiny_packed: functions of three bytes, each instruction of each") {
  for (std::string name : {"tiny_0", "tiny_1", "tiny_2", "tiny_3"}) check_function(name, {1, 1});
  check("insn:tiny_*");
}

TEST_CASE("loop_into_window: a loop back to the byte behind the entry, and to the entry") {
  check_function("loop_into", {1, 5, 5, 5, 1});
  check_function("loop_entry", {5, 5, 5, 1, 1});
}

TEST_CASE("family_into_window: another function goes on behind the entry's first instruction; traps there are told") {
  check_function("family", {1, 2, 2});
  check("family; family_other; clan; clan_far");
  const auto traps = [](const std::string& probe) {
    const Outcome probed = run_probed({fixture("fx_peers"), std::to_string(kCalls)}, probe, {{"UBP_OPTIMIZE", "auto"}});
    CHECK(numbers(probed.out)["wrong"] == 0);
    const nlohmann::json summary = probed.summary();
    CHECK(hits(summary, probe) == kCalls);
    CHECK(summary["probes"][0]["tier"] == "jump");
    return summary["traps"]["hits"].get<long>() + summary["traps"]["runtime"].get<long>();
  };
  CHECK(traps("family") < kCalls / 2);  // the function before it is seen to jump there
  CHECK(traps("clan") >= kCalls);       // Control: this one is too far away
}

TEST_CASE("rip_relative_prologue: load, address, comparison") {
  check_function("rip_load", {1, 1, 1});
  check_function("rip_address", {1, 1, 1});
  check_function("rip_compare", {1, 1, 1, 1});
}

TEST_CASE("optimise_lock_prefix_skip: a jump over a lock prefix, both ways into the instruction") {
  const nlohmann::json summary = check("lock_skip; lock_skip+0x2; lock_skip+0x4");
  CHECK(hits(summary, "lock_skip+0x4") == kCalls / 2);  // the locked way; the other one enters behind the prefix
}

TEST_CASE("overlapping_windows: neighbouring instructions, all armed") {
  check("insn:red_zone; insn:rip_*; insn:loop_*; insn:tiny_*");
}

TEST_CASE(
    "ur_mid_function_refused: returns of the middle of a function are refused in one line, and the program runs") {
  for (std::string probes : {"ur:red_zone+0x5", "call:fx_peers:red_zone+0x5"}) {
    CAPTURE(probes);
    Outcome probed = run_probed({fixture("fx_peers"), "10"}, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out)["wrong"] == 0);
    CHECK(count_prefix(probed.err, "ubp: error:") == 1);
  }
}

TEST_CASE("unknown_symbol_message: one line says what, where and what was meant") {
  Outcome probed = run_probed({fixture("fx_peers"), "10"}, "red_zoen");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.err.find("UBP_PROBES:1:1: no function 'red_zoen'") != std::string::npos);
  CHECK(probed.err.find("'red_zone'") != std::string::npos);
}

}  // namespace ubp::test::peers_test
