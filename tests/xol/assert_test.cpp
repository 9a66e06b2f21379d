// An invariant that is broken on purpose: the process ends by SIGABRT, with one line that says what and where, whatever
// the application has made of that signal. Each case breaks it in a child.
#include "xol/assert.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

namespace {

// Runs body in a child and returns its wait status, and what it wrote to standard error.
template <typename Body>
int end_of(const Body& body, std::string& said) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    signal(SIGABRT, SIG_DFL);  // doctest has a handler of its own
    body();
    _exit(0);
  }
  close(ends[1]);
  char buffer[4096];
  for (ssize_t bytes; (bytes = read(ends[0], buffer, sizeof buffer)) > 0;)
    said.append(buffer, static_cast<std::size_t>(bytes));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

void break_it(int one) { UBP_ASSERT(one + one == 3); }

bool is_abort(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT; }

std::size_t lines_in(const std::string& text) {
  std::size_t lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  return lines;
}

}  // namespace

TEST_CASE("what holds is passed, and says nothing") {
  std::string said;
  CHECK(end_of([] { UBP_ASSERT(getpid() != 0); }, said) == 0);
  CHECK(said.empty());
}

TEST_CASE("what does not hold ends the process, and says what and where") {
  std::string said;
  CHECK(is_abort(end_of([] { break_it(1); }, said)));
  CHECK(said.starts_with("ubp: error: UBP is broken, and ends the process: one + one == 3 ("));
  CHECK(said.find("xol/assert_test.cpp:") != std::string::npos);
  CHECK(lines_in(said) == 1);
}

TEST_CASE("no handler of the application's runs, and nothing that it has blocked or ignored keeps the process") {
  std::string said;
  CHECK(is_abort(end_of(
      [] {
        signal(SIGABRT, [](int) { _exit(7); });
        break_it(1);
      },
      said)));
  CHECK(is_abort(end_of(
      [] {
        signal(SIGABRT, SIG_IGN);
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, nullptr);
        break_it(1);
      },
      said)));
  CHECK(lines_in(said) == 2);
}

TEST_CASE("many threads that find it broken say it once") {
  std::string said;
  CHECK(is_abort(end_of(
      [] {
        std::vector<std::thread> threads;
        for (int i = 0; i < 8; ++i) threads.emplace_back([] { break_it(1); });
        for (std::thread& thread : threads) thread.join();
      },
      said)));
  CHECK(lines_in(said) == 1);
}
