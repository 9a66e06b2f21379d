// What probes have counted under `ubp run`: it lies in the session, survives the process, and is exact beside forks.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <optional>
#include <regex>

#include "harness.h"

namespace ubp::test::counted_test {

namespace {

using Words = std::vector<std::string>;

Outcome ubp_run(Words options, const Words& command, const std::string& ubp = command_path()) {
  Words all{ubp, "run"};
  all.insert(all.end(), options.begin(), options.end());
  all.emplace_back("--");
  all.insert(all.end(), command.begin(), command.end());
  return run({.argv = all, .env = {}, .preload = false, .timeout_s = 60});
}

struct Count {
  long process = 0;
  std::uint64_t hits = 0, recorded = 0, filtered = 0, missed = 0, dropped = 0;
};

// What `ubp run -v` says of the probe that was typed so; none: nothing, or more than once.
std::optional<Count> count_of(const std::string& err, const std::string& probe) {
  static const std::regex form(
      "ubp: process (\\d+): (\\d+) hits?, (\\d+) recorded, (\\d+) filtered, (\\d+) missed, (\\d+) dropped: (.*)");
  std::optional<Count> found;
  for (const std::string& line : lines(err)) {
    std::smatch part;
    if (!std::regex_match(line, part, form) || part[7] != probe) continue;
    if (found) return std::nullopt;
    found = Count{std::stol(part[1]),   std::stoull(part[2]), std::stoull(part[3]),
                  std::stoull(part[4]), std::stoull(part[5]), std::stoull(part[6])};
  }
  return found;
}

// What is said of a process without a report; ~0: nothing.
std::uint64_t unreported(const std::string& err, const std::string& probe) {
  const std::regex form("ubp: +(\\d+) " + probe);
  bool is_told = false;
  for (const std::string& line : lines(err)) {
    std::smatch part;
    is_told |= line.find("has made no report; its probes have counted:") != line.npos;
    if (is_told && std::regex_match(line, part, form)) return std::stoull(part[1]);
  }
  return ~std::uint64_t{0};
}

}  // namespace

TEST_CASE("counted_killed: what bare targets have counted survives kill -9, exactly") {
  for (const std::string threads : {"1", "8"}) {
    CAPTURE(threads);
    const Outcome killed = ubp_run({"-e", "f"}, {fixture("fx_counted"), threads, "20000", "kill"});
    CHECK(killed.end() == "exit 137");
    CHECK(unreported(killed.err, "f") == std::stoull(threads) * 20000);
    const Outcome alive = ubp_run({"-e", "f"}, {fixture("fx_counted"), threads, "20000", "exit"});
    CHECK(alive.end() == "exit 0");
    CHECK(unreported(alive.err, "f") == ~std::uint64_t{0});  // the report has it
    CHECK(alive.err.find("hits       " + std::to_string(std::stoull(threads) * 20000) + " = ") != std::string::npos);
  }
}

TEST_CASE("counted_all: -v tells what became of every probe's hits, also of a process that was killed") {
  for (const std::string end : {"exit", "kill"}) {
    CAPTURE(end);
    const Outcome probed = ubp_run({"-v", "-e", "f; fx_counted:f /arg0 % 4 == 0/ { @ = count() }", "-e", "g* { @g++ }"},
                                   {fixture("fx_counted"), "4", "10000", end});
    CHECK(probed.end() == (end == "exit" ? "exit 0" : "exit 137"));
    const auto bare = count_of(probed.err, "f"), block = count_of(probed.err, "g*"),
               filtered = count_of(probed.err, "fx_counted:f");
    REQUIRE(bare);
    REQUIRE(block);
    REQUIRE(filtered);
    CHECK(bare->hits == 40000);
    CHECK(bare->recorded == 40000);
    CHECK(block->hits == 0);
    CHECK(filtered->hits == 40000);
    CHECK(filtered->recorded == 10000);
    CHECK(filtered->filtered == 30000);
    CHECK(filtered->missed + filtered->dropped == 0);
  }
}

TEST_CASE("counted_returns: calls that have returned, not the exits that they pass") {
  const Outcome probed =
      ubp_run({"-v", "-e", "ur:tail; ur:f { @ = count() }"}, {fixture("fx_counted"), "2", "5000", "exit"});
  CHECK(probed.end() == "exit 0");
  for (const std::string probe : {"ur:tail", "ur:f"}) {
    CAPTURE(probe);
    const auto count = count_of(probed.err, probe);
    CAPTURE(probed.err);
    REQUIRE(count);
    CHECK(count->recorded == 10000);
    CHECK(count->hits == 10000);
  }
  const Outcome killed = ubp_run({"-e", "ur:tail; ur:f"}, {fixture("fx_counted"), "2", "5000", "kill"});
  CHECK(unreported(killed.err, "ur:tail") == 10000);
  CHECK(unreported(killed.err, "ur:f") == 10000);
}

TEST_CASE("counted_fork: a child's hits are not its parent's, whose counters lie in memory that both have") {
  for (const std::string how : {"fork", "_Fork", "clone", "vfork", "clone_vm"}) {
    CAPTURE(how);
    const bool is_shared = how == "vfork" || how == "clone_vm";  // the memory, and so the count
    const Outcome probed =
        ubp_run({"-v", "-e", "cycle_*"}, {fixture("fx_fork"), how, "20", "3", "2000", "3000", "_exit"});
    CHECK(probed.end() == "exit 0");
    const auto count = count_of(probed.err, "cycle_*");
    REQUIRE(count);
    CHECK(count->hits == 20U * (is_shared ? 5003 : 2003));
    CHECK(count->missed + count->dropped + count->filtered == 0);
  }
}

TEST_CASE("control: where a child keeps its parent's counters, the parent's are wrong") {
  const ScratchFolder folder;
  const std::string ubp = folder.path() + "/ubp";
  write_file(ubp, read_file(command_path()));
  chmod(ubp.c_str(), 0755);
  write_file(folder.path() + "/libubp.so", read_file(control("shared_after_fork")));
  const Outcome probed =
      ubp_run({"-v", "-e", "cycle_*"}, {fixture("fx_fork"), "fork", "20", "3", "2000", "3000", "_exit"}, ubp);
  const auto count = count_of(probed.err, "cycle_*");
  CAPTURE(probed.err);
  CHECK((!count || count->hits != 20U * 2003));
}

TEST_CASE("counted_later: modules that the program loads are counted from then on") {
  const Outcome probed = ubp_run({"-v", "-e", "main; libfx_plugin:plugin_work [missing=pending]"},
                                 {fixture("fx_dlopen"), fixture("libfx_plugin.so"), "1"});
  const auto count = count_of(probed.err, "libfx_plugin:plugin_work [missing=pending]");
  CAPTURE(probed.err);
  REQUIRE(count);
  CHECK(count->hits == static_cast<std::uint64_t>(numbers(probed.out)["calls"]));
  CHECK(count->hits == 11);
}

}  // namespace ubp::test::counted_test
