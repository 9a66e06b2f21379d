// Modules that come and go: pending probes are armed before the module's constructors run, their counts survive it, and
// nothing that is mapped in its place is taken for it.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::dlopen_test {

namespace {

std::string plugin() { return fixture("libfx_plugin.so"); }

void check_rounds(const std::string& rounds, const std::string& probes, const std::string& work, Environment more = {},
                  bool thread = false) {
  CAPTURE(rounds);
  CAPTURE(probes);
  std::vector<std::string> argv = {fixture("fx_dlopen"), plugin(), rounds};
  if (thread) argv.push_back("thread");
  Outcome probed = run_probed(argv, probes, more);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.err.find("warning") == std::string::npos);
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  const nlohmann::json summary = probed.summary();
  CHECK(hits(summary, work) == static_cast<std::uint64_t>(said["calls"]));
  CHECK(said["calls"] == 11 * std::stol(rounds));
  if (thread) CHECK(hits(summary, "f") == static_cast<std::uint64_t>(said["f"]));
  CHECK(total(summary, "pending") == 0);
  CHECK(total(summary, "missed") == 0);
  CHECK(adds_up(summary));
}

}  // namespace

TEST_CASE("dlopen_pending: armed when the module is loaded, its constructor's call is counted") {
  check_rounds("1", "libfx_plugin:plugin_work [missing=pending]", "libfx_plugin:plugin_work [missing=pending]");
  check_rounds("1", "libfx_plugin:plugin_work", "libfx_plugin:plugin_work", {{"UBP_MISSING", "pending"}});
}

TEST_CASE("a module whose code the dynamic linker has yet to write into is refused") {
  Outcome probed = run_probed({fixture("fx_dlopen"), fixture("libfx_textrel.so"), "3"},
                              "insn:libfx_textrel:plugin_* [missing=pending]; f");
  CHECK(probed.end() == "exit 0");
  CHECK(numbers(probed.out)["wrong"] == 0);
  CHECK(numbers(probed.out)["calls"] == 33);
  const nlohmann::json summary = probed.summary();
  REQUIRE(!summary["refusals"].empty());  // one for each place where it was
  CHECK(summary["refusals"][0]["reason"].get<std::string>().starts_with("text-relocations: "));
  CHECK(adds_up(summary));
}

TEST_CASE("dlclose_probed_loop: loaded and unloaded, at the same place and elsewhere") {
  check_rounds("100", "libfx_plugin:plugin_work [missing=pending]", "libfx_plugin:plugin_work [missing=pending]");
  check_rounds("100", "libfx_plugin:plugin_work [missing=pending]; f", "libfx_plugin:plugin_work [missing=pending]",
               {{"UBP_SLOTS", "2"}}, true);
}

TEST_CASE("dlclose_probed_loop: every instruction, exclusions, system calls, libc probed too") {
  const std::string spec = "insn:libfx_plugin:plugin_* [missing=pending]";
  Outcome probed = run_probed({fixture("fx_dlopen"), plugin(), "40"},
                              spec + "; libc:*; libfx_plugin:getpid [missing=pending]; !libfx_plugin:plugin_pid");
  CHECK(probed.end() == "exit 0");
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  const nlohmann::json summary = probed.summary();
  int rows = 0;
  for (const auto& probe : summary["probes"]) {
    if (probe["spec"] != spec) continue;
    ++rows;
    const auto symbol = probe["symbol"].get<std::string>();
    CHECK(symbol != "plugin_pid");
    if (symbol.rfind("plugin_work", 0) == 0) CHECK(probe["hits"] == said["calls"]);
  }
  CHECK(rows >= 5);                       // one row an instruction, however often the module came back elsewhere
  CHECK(total(summary, "pending") == 1);  // the function it does not have
  CHECK(adds_up(summary));
}

TEST_CASE("a pending probe whose module never comes is said to be pending, and the program runs") {
  Outcome probed = run_probed({fixture("fx_count"), "1", "10"}, "f; libnever:g [missing=pending]");
  CHECK(probed.end() == "exit 0");
  CHECK(hits(probed.summary(), "f") == 10);
  CHECK(total(probed.summary(), "pending") == 1);
  Outcome only = run_probed({fixture("fx_count"), "1", "10"}, "libnever:g [missing=pending]");
  CHECK(only.end() == "exit 0");
  CHECK(total(only.summary(), "pending") == 1);
}

TEST_CASE("a pending probe in a child that loads the module after fork; real plugins") {
  const std::string script =
      "import os\npid = os.fork()\nimport zlib, _bz2\nd = b'x' * 1000\nassert zlib.decompress(zlib.compress(d)) == d\n"
      "if pid:\n  os.waitpid(pid, 0)\n";
  Outcome probed = run_probed({"/usr/bin/python3", "-S", "-c", script}, "*_bz2*:PyInit__bz2 [missing=pending]");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.err.find("ubp: error") == std::string::npos);
  CHECK(probed.summaries.size() == 2);
  for (const auto& [pid, summary] : probed.summaries) CHECK(total(summary, "hits") == 1);
}

TEST_CASE("UBP_MAX_PROBEPOINTS bounds the probepoints of modules that come later, and a refusal names it") {
  const std::string spec = "f; insn:libfx_plugin:plugin_* [missing=pending]";
  Outcome few = run_probed({fixture("fx_dlopen"), plugin(), "1"}, spec, {{"UBP_MAX_PROBEPOINTS", "3"}});
  CHECK(few.end() == "exit 0");
  CHECK(few.err.find("there is room for 2 (UBP_MAX_PROBEPOINTS makes more)") != std::string::npos);
  CHECK(total(few.summary(), "probepoints_armed") <= 3);
  REQUIRE(total(few.summary(), "refused") > 0);
  CHECK(few.summary()["refusals"][0]["reason"].get<std::string>().find("UBP_MAX_PROBEPOINTS") != std::string::npos);
  CHECK(adds_up(few.summary()));
  for (const char* most : {"100", "70000", "16777216"}) {
    CAPTURE(most);
    Outcome many = run_probed({fixture("fx_dlopen"), plugin(), "1"}, spec, {{"UBP_MAX_PROBEPOINTS", most}});
    CHECK(many.end() == "exit 0");
    CHECK(many.err.find("UBP_MAX_PROBEPOINTS") == std::string::npos);
    CHECK(total(many.summary(), "refused") == 0);
    CHECK(adds_up(many.summary()));
  }
}

TEST_CASE("UBP_MAX_PROBEPOINTS leaves out functions, and no place where others return") {
  const std::string spec = "ur:libfx_plugin:tail_* [missing=pending]";
  for (const char* most : {"3", "4", "5"}) {  // f is one of them; there are two entries and two exits
    CAPTURE(most);
    const Outcome few =
        run_probed({fixture("fx_dlopen"), plugin(), "1"}, "f; " + spec, {{"UBP_MAX_PROBEPOINTS", most}});
    CAPTURE(few.err);
    CHECK(numbers(few.out)["wrong"] == 0);
    const nlohmann::json summary = few.summary();
    CHECK(adds_up(summary));
    int rows = 0;
    for (const auto& probe : summary["probes"]) {
      if (probe["spec"] != spec) continue;
      ++rows;
      CHECK(probe["entries"] == 11);
      CHECK(probe["hits"] == 11);
      CHECK(probe["left"] == 0);
    }
    CHECK(rows == std::atoi(most) - 3);
    CHECK(total(summary, "refused") == static_cast<std::uint64_t>(5 - std::atoi(most)));
  }
}

}  // namespace ubp::test::dlopen_test
