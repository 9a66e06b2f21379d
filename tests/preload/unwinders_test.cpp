// Whoever looks at the stack sees true return addresses while returns are probed. The control is a program that
// replaces them, as other probes at returns do.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::unwinders_test {

namespace {

Outcome run_mode(const std::string& mode) { return run_plain({fixture("fx_unwinders"), mode}); }
Outcome run_replaced(const std::string& mode) { return run_plain({fixture("fx_unwinders"), mode, "replaced"}); }
Outcome run_returns(const std::string& mode) {
  return run_probed({fixture("fx_unwinders"), mode}, "ur:*; ur:libc:backtrace; ur:libstdc++:*; ur:libgcc_s:*");
}

// Of a function's returns: {entries, returns, left}.
std::vector<std::int64_t> calls_of(const Outcome& probed, std::string_view symbol) {
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  for (const auto& row : summary["probes"]) {
    if (row["symbol"] == symbol) return {row["entries"], row["hits"], row["left"]};
  }
  return {};
}

}  // namespace

TEST_CASE("unwinders_exception: an exception passes through eleven frames whose returns are probed") {
  const Outcome plain = run_mode("throw"), probed = run_returns("throw");
  CHECK(plain.out == "caught 7\n");
  CHECK(probed.out == plain.out);
  CHECK(probed.end() == "exit 0");
  const auto calls = calls_of(probed, "descend");
  REQUIRE(calls.size() == 3);
  CHECK(calls[0] == 11);
  CHECK(calls[1] == 0);
  // Control: no unwinder knows where a replaced address leads to.
  const Outcome replaced = run_replaced("throw");
  CHECK(replaced.out.empty());
  CHECK(replaced.end() == "signal 6");
}

TEST_CASE("unwinders_backtrace: backtrace() has every frame by its name") {
  const Outcome plain = run_mode("backtrace"), probed = run_returns("backtrace");
  CHECK(plain.end() == "exit 0");
  CHECK(numbers(plain.out)["frames"] > 11);
  CHECK(probed.out == plain.out);
  CHECK(calls_of(probed, "descend") == std::vector<std::int64_t>{11, 11, 0});
  // Control: the walk ends at the first one.
  const Outcome replaced = run_replaced("backtrace");
  CHECK(replaced.end() == "exit 0");
  CHECK(numbers(replaced.out)["returned"] == 10);
  CHECK(numbers(replaced.out)["frames"] < 5);
}

TEST_CASE("unwinders_longjmp: calls that longjmp leaves are told from those that go on") {
  const Outcome plain = run_mode("longjmp"), probed = run_returns("longjmp");
  CHECK(plain.out == "kept 0\n");
  CHECK(probed.out == plain.out);
  const auto calls = calls_of(probed, "descend");
  REQUIRE(calls.size() == 3);
  CHECK(calls[0] == 11);
  CHECK(calls[1] == 0);
  // Control: what was put aside stays, and the next return is taken for one of them.
  CHECK(run_replaced("longjmp").out == "kept 10\n");
}

}  // namespace ubp::test::unwinders_test
