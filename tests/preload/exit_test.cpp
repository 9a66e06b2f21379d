// The end of the process: what the runtime does there runs through code that nobody probes, whatever else goes on, and
// every signal that would end the program ends it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <ctime>

#include "harness.h"

namespace ubp::test::exit_test {

namespace {

const std::array<std::string, 4> kWays = {"return", "exit", "_exit", "quick_exit"};

std::uint64_t traps(const nlohmann::json& summary, const char* whose) {
  return summary.contains("traps") ? summary["traps"][whose].get<std::uint64_t>() : ~0ull;
}

std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

Outcome run_stuck(const StuckPipe& pipe, std::vector<std::string> argv) {
  return run({.argv = std::move(argv),
              .env = {{"UBP_PROBES", kManyRows}, {"UBP_OUTPUT", pipe.path()}},
              .summary = false,
              .timeout_s = 30});
}

}  // namespace

TEST_CASE("libc:* on a program that does next to nothing: the runtime itself does not trap") {
  for (const char* optimize : {"never", "auto"}) {
    for (const std::string probes : {"libc:*", "insn:libc:mem*; insn:libc:str*; insn:libc:*alloc"}) {
      CAPTURE(optimize);
      CAPTURE(probes);
      Outcome outcome = run_probed({"/bin/true", "--help"}, probes, {{"UBP_OPTIMIZE", optimize}});
      const nlohmann::json summary = outcome.summary();
      REQUIRE(outcome.end() == "exit 0");
      CHECK(adds_up(summary));
      CHECK(total(summary, "hits") > 0);
      CHECK(traps(summary, "runtime") <= 60);
      CHECK(traps(summary, "hits") <= total(summary, "hits"));
    }
  }
}

// The kernel's own count of what was delivered, where it may be asked.
TEST_CASE("libc:* on true: no more SIGTRAPs than hits that trap, and a hundred") {
  ScratchFolder folder;
  const std::string counted = folder.path() + "/counted", summary_path = folder.path() + "/summary";
  const std::vector<std::string> perf = {"/usr/bin/perf",         "stat",     "-x",    ",", "-o", counted, "-e",
                                         "signal:signal_deliver", "--filter", "sig==5"};
  std::vector<std::string> tried = perf;
  tried.push_back("/bin/true");
  if (::access(perf.front().c_str(), X_OK) != 0 || run_plain(tried).end() != "exit 0") {
    MESSAGE("SKIP: perf, or the tracepoint signal:signal_deliver, cannot be had here");
    return;
  }
  for (const char* optimize : {"never", "auto"}) {
    CAPTURE(optimize);
    std::vector<std::string> argv = perf;
    for (const std::string& word :
         {std::string("/usr/bin/env"), "LD_PRELOAD=" + library(), std::string("UBP_PROBES=libc:*"),
          std::string("UBP_OPTIMIZE=") + optimize, "UBP_SUMMARY=" + summary_path, std::string("/bin/true")}) {
      argv.push_back(word);
    }
    Outcome outcome = run_plain(argv);
    REQUIRE(outcome.end() == "exit 0");
    std::uint64_t delivered = ~0ull;
    for (const std::string& line : lines(read_file(counted))) {
      if (line.find("signal_deliver") != std::string::npos) delivered = std::strtoull(line.c_str(), nullptr, 10);
    }
    const nlohmann::json summary = read_json(summary_path);
    REQUIRE(summary.is_object());
    CHECK(delivered <= traps(summary, "hits") + 100);
    CHECK(delivered >= traps(summary, "hits"));
    CHECK(delivered >= traps(summary, "hits") + traps(summary, "runtime"));  // each of those that it tells of was one
  }
}

TEST_CASE("the counts are exact whatever way the process ends, and with threads that run on") {
  for (const std::string& way : kWays) {
    for (const char* optimize : {"never", "auto", "always"}) {
      CAPTURE(way);
      CAPTURE(optimize);
      Outcome calls =
          run_probed({fixture("fx_exit"), "calls", "1000", way}, "tick; libc:*", {{"UBP_OPTIMIZE", optimize}});
      CHECK(calls.end() == "exit 3");
      CHECK(hits(calls.summary(), "tick") == 1000);
      CHECK(adds_up(calls.summary()));
      Outcome threads =
          run_probed({fixture("fx_exit"), "threads", "1000", way}, "insn:tick; libc:*", {{"UBP_OPTIMIZE", optimize}});
      CHECK(threads.end() == "exit 3");
      CHECK(hits(threads.summary(), "insn:tick") >= 1000);
      CHECK(adds_up(threads.summary()));
    }
  }
}

// What the end reads is what was counted: of a thread's counters, the few pages that it wrote.
TEST_CASE("the end touches no memory for threads times probepoints") {
  const auto faults = [](const std::string& threads) {
    rusage before{}, after{};
    getrusage(RUSAGE_CHILDREN, &before);
    Outcome outcome =
        run_probed({fixture("fx_exit"), "crowd", threads, "return"}, "tick; insn:libc:*", {{"UBP_OPTIMIZE", "never"}});
    getrusage(RUSAGE_CHILDREN, &after);
    CHECK(outcome.end() == "exit 3");
    const nlohmann::json summary = outcome.summary();
    CHECK(hits(summary, "tick") == std::strtoull(threads.c_str(), nullptr, 10));
    CHECK(adds_up(summary));
    return after.ru_minflt - before.ru_minflt;
  };
  constexpr long kThreads = 100,
                 kMost = 300;  // pages each: stack, state, the counters written; all counters: 650 and more
  const long few = faults("1"), many = faults(std::to_string(kThreads));
  CAPTURE(few);
  CAPTURE(many);
  CHECK(many - few < kThreads * kMost);
}

TEST_CASE("a vfork child that ends leaves its parent's text alone, a forked one tells its own counts") {
  for (const char* optimize : {"never", "auto"}) {
    CAPTURE(optimize);
    Outcome vforks =
        run_probed({fixture("fx_exit"), "vforks", "50", "return"}, "tick; libc:*", {{"UBP_OPTIMIZE", optimize}});
    CHECK(vforks.end() == "exit 3");
    CHECK(hits(vforks.summary(), "tick") == 50);
    CHECK(vforks.summaries.size() == 1);
    Outcome forks =
        run_probed({fixture("fx_exit"), "forks", "5", "return"}, "tick; libc:*", {{"UBP_OPTIMIZE", optimize}});
    CHECK(forks.end() == "exit 3");
    CHECK(hits(forks.summary(), "tick") == 5);
    REQUIRE(forks.summaries.size() == 6);
    for (const auto& [pid, summary] : forks.summaries) {
      CHECK(adds_up(summary));
      if (pid == forks.pid) continue;
      CHECK(hits(summary, "tick") == 2);
      CHECK(traps(summary, "runtime") <= 60);
    }
  }
}

TEST_CASE("two threads that end the process at once: the report is made, once") {
  for (int turn = 0; turn < 20; ++turn) {
    Outcome outcome = run_probed({fixture("fx_exit"), "pile", "_exit"}, "tick; libc:str*");
    CHECK(outcome.end() == "exit 3");
    CHECK(hits(outcome.summary(), "tick") == 1);
    CHECK(count_prefix(outcome.err, "ubp: hits ") == 1);
  }
}

TEST_CASE("a signal that ends the program ends it while the report is made") {
  for (const std::string& way : kWays) {
    CAPTURE(way);
    const StuckPipe pipe;
    const std::int64_t start = now_ns();
    CHECK(run_stuck(pipe, {fixture("fx_exit"), "alarm", "1", way}).end() == "signal " + std::to_string(SIGALRM));
    CHECK(run_stuck(pipe, {fixture("fx_exit"), "alarm", "1", "handled", way}).end() == "exit 9");
    CHECK(now_ns() - start < 8'000'000'000);  // a writer gives up after five seconds
  }
}

TEST_CASE("exit_with_libc_insn: ... and so does SIGTERM from outside") {
  const StuckPipe pipe;
  const std::string probed = "LD_PRELOAD=" + library() + " UBP_PROBES='" + kManyRows + "' UBP_OUTPUT=" + pipe.path();
  const std::int64_t start = now_ns();
  Outcome outcome =
      run_plain({"/bin/sh", "-c",
                 "(sleep 2; kill -TERM $$) & exec env " + probed + " " + fixture("fx_exit") + " calls 5 return"});
  CHECK(outcome.end() == "signal " + std::to_string(SIGTERM));
  CHECK(now_ns() - start < 6'000'000'000);
}

TEST_CASE("text that the program has replaced or made inaccessible is left alone") {
  const std::string probes = "tick; page_first; page_second";
  for (const char* optimize : {"never", "always"}) {
    CAPTURE(optimize);
    Outcome denied = run_probed({fixture("fx_exit"), "denied", "return"}, probes, {{"UBP_OPTIMIZE", optimize}});
    CHECK(denied.end() == "exit 3");
    CHECK(hits(denied.summary(), "tick") == 1);
    // A byte here looks like an int3, as bytes may; all of them together do not.
    ScratchFolder folder;
    std::string content(4096, 'x');
    content[0] = static_cast<char>(0xcc);
    write_file(folder.path() + "/file", content);
    Outcome foreign = run_probed({fixture("fx_exit"), "foreign", folder.path() + "/file", "return"}, probes,
                                 {{"UBP_OPTIMIZE", optimize}});
    CHECK(foreign.end() == "exit 3");
    CHECK(hits(foreign.summary(), "tick") == 1);
    CHECK(read_file(folder.path() + "/file") == content);
  }
}

// What goes on while probes stay: a module is loaded whose symbols are read, in a process whose memory functions are
// probed.
TEST_CASE("a module that comes late is searched without traps in every byte of it") {
  Outcome outcome = run_probed({"/usr/bin/python3", "-S", "-E", "-c", "import _sqlite3"},
                               "insn:libc:*mem*; libsqlite3*:sqlite3_open [missing=pending]");
  REQUIRE(outcome.end() == "exit 0");
  REQUIRE(total(outcome.summary(), "pending") == 0);
  CHECK(traps(outcome.summary(), "runtime") < 20'000);  // the dynamic linker's
  CHECK(adds_up(outcome.summary()));
}

// The bound is generous, and grows with the machine: what the load took, several times over. Without probes out of the
// way, the report of a hundredth of this took minutes.
TEST_CASE("exit_with_libc_insn: an end with every instruction of libc probed takes no longer than the start") {
  const std::int64_t start = now_ns();
  Outcome outcome =
      run({.argv = {fixture("fx_exit"), "stamp", "return"},
           .env = {{"UBP_PROBES", "insn:*; insn:libc:*"}, {"UBP_OUTPUT", "/dev/null"}, {"UBP_OPTIMIZE", "never"}},
           .summary = false,
           .timeout_s = 300});
  const std::int64_t end = now_ns();
  REQUIRE(outcome.end() == "exit 3");
  const std::int64_t stamp = numbers(outcome.out)["end_ns"];
  REQUIRE(stamp > start);
  CHECK(end - stamp < 3 * (stamp - start) + 2'000'000'000);
}

}  // namespace ubp::test::exit_test
