// UBP_FULL: what becomes of events that find no room under `ubp run`. The memory for them is 64 MiB.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::full_test {

namespace {

constexpr std::uint64_t kThreads = 4, kCalls = 80'000;  // of some 300 bytes each: 96 MiB

Outcome run_full(const std::string& full, const std::string& script, std::vector<std::string> more = {}) {
  const std::string ubp = command_path();
  const std::string text(240, 'x');
  std::vector<std::string> argv{
      ubp, "run", "-q", "-e",
      "uprobe:" + fixture("fx_count") + ":f { printf(\"%d %d " + "%s\\n\", tid, arg0, \"" + text + "\") }"};
  argv.insert(argv.end(), more.begin(), more.end());
  argv.insert(argv.end(),
              {"--", "/bin/sh", "-c", script, fixture("fx_count"), std::to_string(kThreads), std::to_string(kCalls)});
  return run({.argv = argv, .env = {{"UBP_FULL", full}}, .preload = false, .timeout_s = 120});
}

std::uint64_t lost(const std::string& err) {
  const std::size_t at = err.find("Lost ");
  return at != std::string::npos ? std::stoull(err.substr(at + 5)) : 0;
}

// Lines of events, and of each thread in the order in which it made them: arg0 follows from the one before.
std::uint64_t events(const std::string& text, std::uint64_t& disordered) {
  std::map<std::string, std::uint64_t> next;
  std::uint64_t count = 0;
  disordered = 0;
  for (const std::string& line : lines(text)) {
    if (line.empty() || line.back() != 'x') continue;
    ++count;
    const std::size_t space = line.find(' ');
    const std::uint64_t argument = std::stoull(line.substr(space + 1));
    const auto [it, is_first] = next.try_emplace(line.substr(0, space), 0);
    disordered += argument != it->second;
    it->second = (argument * 3 + 1) & 0xffffff;
  }
  return count;
}

}  // namespace

TEST_CASE("full_block: nothing is lost, though the reader stands still for a while") {
  std::uint64_t disordered = 0;
  const Outcome probed = run_full("block", "kill -STOP $PPID; (sleep 1; kill -CONT $PPID) & exec \"$0\" \"$@\"");
  CHECK(probed.end() == "exit 0");
  CHECK(lost(probed.err) == 0);
  CHECK(events(probed.out, disordered) == kThreads * kCalls);
  CHECK(disordered == 0);
}

TEST_CASE("full_drop: what finds no room is lost, and counted") {
  std::uint64_t disordered = 0;
  for (const std::string full : {"drop", "block"}) {
    const std::string script = full == "drop" ? "kill -STOP $PPID; \"$0\" \"$@\"; kill -CONT $PPID" : "\"$0\" \"$@\"";
    const Outcome probed = run_full(full, script);
    CHECK(probed.end() == "exit 0");
    CHECK((lost(probed.err) > 0) == (full == "drop"));
    CHECK(events(probed.out, disordered) + lost(probed.err) == kThreads * kCalls);
  }
}

TEST_CASE("full_block: the program goes on when the reader is killed, and ends when exit() ends its run") {
  const std::string path = "/tmp/ubp_full." + std::to_string(getpid());
  const Outcome killed =
      run_full("block", "kill -STOP $PPID; (sleep 0.5; kill -KILL $PPID) & exec \"$0\" \"$@\" >" + path);
  CHECK(killed.end() == "signal 9");
  std::string said;
  for (int tries = 0; tries < 600 && said.empty(); ++tries) {
    said = read_file(path);
    usleep(100'000);
  }
  unlink(path.c_str());
  CHECK(said.rfind("sum ", 0) == 0);
  CHECK(run_full("wait", "exec \"$0\" \"$@\"").err.find("UBP_FULL: 'wait' is not one of drop, block") !=
        std::string::npos);
}

}  // namespace ubp::test::full_test
