// Refusals: an instruction that cannot be displaced is refused with its own code; the others are armed and
// exact.
#include <doctest/doctest.h>

#include <map>
#include <sstream>

#include "harness.h"

namespace ubp::test::refusals_test {

namespace {

// "symbol+0xoff" -> code, from the fixture's own table.
std::map<std::string, std::string> expected_refusals() {
  std::map<std::string, std::string> result;
  for (const std::string& line : lines(run_plain({fixture("fx_refused"), "--refusals"}).out)) {
    std::istringstream in(line);
    std::string symbol, offset, code;
    in >> symbol >> offset >> code;
    result[symbol + "+" + offset] = code;
  }
  return result;
}

// symbol -> code, as the summary says.
std::map<std::string, std::string> told_refusals(const nlohmann::json& summary) {
  std::map<std::string, std::string> result;
  if (!summary.contains("refusals")) return result;
  for (const auto& row : summary.at("refusals")) {
    std::string reason = row.at("reason").get<std::string>();
    result[row.at("symbol").get<std::string>()] = reason.substr(0, reason.find(':'));
  }
  return result;
}

}  // namespace

TEST_CASE("refusals: each with its code, the others armed and exact") {
  constexpr std::uint64_t kCalls = 1000;
  std::map<std::string, std::string> expected = expected_refusals();
  std::vector<Point> armed = points(run_plain({fixture("fx_refused"), "--offsets"}).out);
  REQUIRE(expected.size() >= 25);
  std::string list = probe_list(armed);
  for (const auto& [item, code] : expected) list += "; " + item;

  Outcome probed = run_probed({fixture("fx_refused"), std::to_string(kCalls)}, list);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "sum " + std::to_string(57 * kCalls) + "\n");
  nlohmann::json summary = probed.summary();
  std::map<std::string, std::string> told = told_refusals(summary);
  for (const auto& [item, code] : expected) {
    CAPTURE(item);
    CHECK(told[item] == code);
  }
  CHECK(total(summary, "refused") == expected.size());
  CHECK(total(summary, "probepoints_armed") == armed.size());
  CHECK(total(summary, "probes_requested") == armed.size() + expected.size());
  for (const Point& point : armed) {
    CAPTURE(point.item);
    CHECK(hits(summary, point.item) == kCalls);
  }
  for (const auto& row : summary["refusals"]) {
    CHECK(row.at("module").get<std::string>().find("fx_refused") != std::string::npos);
    CHECK(row.at("address").get<std::string>().substr(0, 2) == "0x");
    CHECK(row.at("reason").get<std::string>().find(": ") != std::string::npos);
  }
}

TEST_CASE("refusals: the report names them") {
  Outcome probed = run_probed({fixture("fx_refused"), "1"}, "refused; refused+0x9");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.err.find("privileged") != std::string::npos);
  CHECK(probed.err.find("refused+0x9") != std::string::npos);
}

TEST_CASE("refusals: the runtime's own text") {
  std::string name = library().substr(library().rfind('/') + 1);
  Outcome plain = run_plain({fixture("fx_hello")});
  for (const std::string& list : {name + ":*", name + ":malloc; compute", name + ":0x1000"}) {
    CAPTURE(list);
    Outcome probed = run_probed({fixture("fx_hello")}, list);
    CHECK(probed.end() == plain.end());
    CHECK(probed.out == plain.out);
    nlohmann::json summary = probed.summary();
    if (!summary.contains("probes")) continue;
    for (const auto& probe : summary.at("probes")) {
      CHECK(probe.at("module").get<std::string>().find("libubp") == std::string::npos);
    }
  }
}

}  // namespace ubp::test::refusals_test
