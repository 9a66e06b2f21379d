// Programs that set %fs: it leads to nothing, or to memory of theirs, which is theirs. Every hit is counted.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::storage_test {

namespace {

std::vector<std::string> command(const std::string& how, const std::string& where, const std::string& what) {
  return {fixture(how == "insn" ? "fx_storage_insn" : "fx_storage"), how, where, what};
}

void check(const std::string& how, const std::string& where, const std::string& what, const std::string& probes = "f") {
  CAPTURE(how);
  CAPTURE(where);
  CAPTURE(what);
  CAPTURE(probes);
  Outcome probed = run_probed(command(how, where, what), probes);
  CHECK(probed.end() == "exit 0");
  if (probed.out == "skipped\n") return;
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  CHECK(said["changed"] == 0);
  CHECK(said["calls"] >= 4000);
  const nlohmann::json summary = probed.summary();
  CHECK(hits(summary, "f") == static_cast<std::uint64_t>(said["calls"]));
  CHECK(adds_up(summary));
  CHECK(total(summary, "missed") == 0);
  if (what != "fork") return;
  CHECK(probed.summaries.size() == 21);
  for (const auto& [pid, child] : probed.summaries) {
    if (pid != probed.pid) CHECK(hits(child, "f") == 200);
  }
}

}  // namespace

TEST_CASE("storage: %fs leads to nothing, nowhere, or to the program's own memory") {
  for (const char* const how : {"call", "raw", "insn", "born"}) {
    for (const char* const where : {"null", "unmapped", "own"}) {
      check(how, where, "calls");
      check(how, where, "signals");
      check(how, where, "mask");
      check(how, where, "calls", "insn:work; insn:call; f; insn:f; insn:raw");
    }
  }
}

TEST_CASE("storage: other threads have libc's meanwhile") {
  for (const char* const how : {"call", "raw", "insn", "born"}) check(how, "own", "beside");
  check("raw", "null", "beside");
}

TEST_CASE("storage: a handler sets %fs and returns") {
  for (const char* const how : {"call", "raw", "insn"}) {
    check(how, "null", "handler");
    check(how, "own", "handler");
  }
}

TEST_CASE("storage: forked children there count for themselves") {
  for (const char* const how : {"call", "raw", "insn", "born"}) {
    check(how, "null", "fork");
    check(how, "own", "fork");
  }
}

TEST_CASE("storage: a program that dies or leaves there gives its report") {
  for (const char* const how : {"call", "raw", "insn", "born"}) {
    for (const char* const where : {"null", "own"}) {
      CAPTURE(how);
      CAPTURE(where);
      const Outcome dead = run_probed(command(how, where, "die"), "f");
      if (dead.out == "skipped\n") continue;
      CHECK(dead.end() == "signal 11");
      CHECK(hits(dead.summary(), "f") == 2000);
      const Outcome left = run_probed(command(how, where, "leave"), "f");
      CHECK(left.end() == "exit 7");
      CHECK(hits(left.summary(), "f") == 2000);
    }
  }
}

}  // namespace ubp::test::storage_test
