// A program that a signal's default ends leaves its report first, in bounded time, and ends as it would have: with the
// same wait status, whatever it was interrupted in; and it sees nothing of what UBP does for that.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "harness.h"

namespace ubp::test::death_test {

namespace {

// Dumping or not, real-time ones among them.
const std::vector<int> kSignals = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,    SIGABRT,   SIGBUS,  SIGFPE,  SIGUSR1,
                                   SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM,   SIGTERM,   SIGXCPU, SIGXFSZ, SIGPROF,
                                   SIGIO,   SIGPWR,  SIGSYS,  SIGSTKFLT, SIGVTALRM, 34,      64};

std::string ended_by(int signal) { return "signal " + std::to_string(signal); }

void check_report(const Outcome& outcome, std::uint64_t ticks) {
  CHECK(hits(outcome.summary(), "tick") == ticks);
  CHECK(adds_up(outcome.summary()));
  CHECK(count_prefix(outcome.err, "ubp: hits ") == 1);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("every signal that ends a process: report and wait status") {
  for (const int signal : kSignals) {
    CAPTURE(signal);
    const std::vector<std::string> argv = {fixture("fx_death"), "raise", std::to_string(signal)};
    Outcome probed = run_probed(argv, "tick; libc:raise");
    CHECK(probed.end() == ended_by(signal));
    CHECK(probed.end() == run_plain(argv).end());
    CHECK(probed.out == "ticks 1000\n");
    check_report(probed, 1000);
    CHECK(hits(probed.summary(), "libc:raise") == 1);
  }
}

TEST_CASE("SIGKILL cannot be had") {
  Outcome probed = run_probed({fixture("fx_death"), "raise", std::to_string(SIGKILL)}, "tick");
  CHECK(probed.end() == ended_by(SIGKILL));
  CHECK(probed.summaries.empty());
}

TEST_CASE("in a thread with the smallest stack, and with the smallest alternate one; on a stack that is used up") {
  for (std::string where : {"pthread", "altstack"}) {
    for (const int signal : {SIGTERM, SIGSEGV}) {
      CAPTURE(where);
      CAPTURE(signal);
      Outcome probed = run_probed({fixture("fx_death"), where, std::to_string(signal)}, "tick; libc:str*; libc:mem*");
      CHECK(probed.end() == ended_by(signal));
      check_report(probed, 1000);
    }
  }
  Outcome overflow = run_probed({fixture("fx_death"), "overflow"}, "tick");
  CHECK(overflow.end() == ended_by(SIGSEGV));
  check_report(overflow, 1000);
}

TEST_CASE("in the midst of malloc, the dynamic linker, streams, fork, pthread_create and probes") {
  const int turns = long_run() ? 200 : 12;
  for (std::string work : {"malloc", "dlopen", "stdio", "fork", "threads", "probes"}) {
    for (std::string probes : {"tick", "tick; libc:*; zzz_none* [missing=pending]"}) {
      for (int turn = 0; turn < turns; ++turn) {
        CAPTURE(work);
        CAPTURE(probes);
        Outcome probed =
            run({.argv = {fixture("fx_death"), "busy", work}, .env = {{"UBP_PROBES", probes}}, .timeout_s = 30});
        REQUIRE(probed.end() == ended_by(SIGALRM));
        const nlohmann::json summary = probed.summary();
        REQUIRE(adds_up(summary));
        CHECK(hits(summary, "tick") >= 1000);
      }
    }
  }
}

TEST_CASE("a signal to the process while a thread that blocks it is leaving: no status comes before it") {
  const std::vector<std::string> argv = {fixture("fx_death"), "leave", std::to_string(SIGTERM)};
  CHECK(run_plain(argv).end() == ended_by(SIGTERM));
  const StuckPipe pipe;  // the report takes some seconds; the thread leaves within one
  Outcome probed = run({.argv = argv,
                        .env = {{"UBP_PROBES", kManyRows}, {"UBP_OUTPUT", pipe.path()}},
                        .summary = false,
                        .timeout_s = 60});
  CHECK(probed.end() == ended_by(SIGTERM));
}

TEST_CASE("forked children leave theirs") {
  Outcome probed = run_probed({fixture("fx_death"), "forks", std::to_string(SIGTERM)}, "tick");
  CHECK(probed.end() == "exit 3");
  CHECK(numbers(probed.out)["ends"] == 5);
  REQUIRE(probed.summaries.size() == 6);
  for (const auto& [pid, summary] : probed.summaries) CHECK(hits(summary, "tick") == (pid == probed.pid ? 1000 : 1));
}

TEST_CASE("a reader that does not read keeps the process no longer than some seconds") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  REQUIRE(::fcntl(ends[1], F_SETPIPE_SZ, 4096) == 4096);
  const auto start = std::chrono::steady_clock::now();
  // A report of more than a page on standard error.
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(ends[1], 2);
    ::dup2(::open("/dev/null", O_WRONLY), 1);
    ::setenv("LD_PRELOAD", library().c_str(), 1);
    const std::string program = fixture("fx_death");
    unset_test_variables();
    ::setenv("UBP_PROBES", "tick; libc:str*; libc:mem*; libc:*alloc*", 1);
    ::execl(program.c_str(), program.c_str(), "raise", "15", nullptr);
    ::_exit(99);
  }
  ::close(ends[1]);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
  }
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
  CHECK(seconds_since(start) < 20);
  std::string text(65536, '\0');
  const ssize_t got = ::read(ends[0], text.data(), text.size());
  CHECK(got > 0);
  CHECK(text.find("ubp: hits ") != std::string::npos);  // the block is what comes first
  ::close(ends[0]);
}

TEST_CASE("the program sees its dispositions as it set them, and so does what it executes") {
  for (const char* follow : {"fork", "exec"}) {
    for (std::string what : {"show", "exec"}) {
      CAPTURE(what);
      CAPTURE(follow);
      const std::vector<std::string> argv = {fixture("fx_death"), what};
      Outcome plain = run_plain(argv), probed = run_probed(argv, "tick; libc:*", {{"UBP_FOLLOW", follow}});
      CHECK(plain.end() == "exit 3");
      CHECK(probed.end() == plain.end());
      CHECK(probed.out == plain.out);
    }
  }
}

TEST_CASE("what is ignored stays ignored, and what is blocked blocked") {
  Outcome ignored =
      run_probed({"/bin/sh", "-c", "trap '' TERM INT; kill -TERM $$; kill -INT $$; exit 4"}, "libc:malloc");
  CHECK(ignored.end() == "exit 4");
  Outcome handled = run_probed({"/bin/sh", "-c", "trap 'exit 5' TERM; kill -TERM $$; exit 4"}, "libc:malloc");
  CHECK(handled.end() == "exit 5");
  Outcome reset =
      run_probed({"/bin/sh", "-c", "trap 'trap - TERM; kill -TERM $$' TERM; kill -TERM $$; exit 4"}, "libc:malloc");
  CHECK(reset.end() == ended_by(SIGTERM));
  CHECK(hits(reset.summary(), "libc:malloc") > 0);
}

TEST_CASE("behind a filter that allows nothing it dies of what it would have died of") {
  const std::vector<std::string> argv = {fixture("fx_death"), "strict"};
  CHECK(run_plain(argv).end() == ended_by(SIGALRM));
  CHECK(run_probed(argv, "tick").end() == ended_by(SIGALRM));
}

TEST_CASE("abort()") {
  Outcome probed = run_probed({"/usr/bin/python3", "-S", "-E", "-c", "import os; os.abort()"}, "libc:malloc");
  CHECK(probed.end() == ended_by(SIGABRT));
  CHECK(hits(probed.summary(), "libc:malloc") > 0);
}

}  // namespace ubp::test::death_test
