// Standard error as UBP uses it. Each case runs in a child, whose descriptors may be closed and reused at
// will.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cerrno>
#include <string>

#include "runtime/report/report.h"
#include "tests/report/scratch.h"
#include "xol/assert.h"

namespace ubp::report {
namespace {

using namespace testing;

int create(const std::string& path) { return ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600); }

// The one descriptor that make opens; -1 for none or several.
template <typename Make>
int descriptor_opened_by(Make make) {
  bool was_open[1024];
  for (int fd = 0; fd < 1024; ++fd) was_open[fd] = ::fcntl(fd, F_GETFD) >= 0;
  make();
  int found = -1;
  for (int fd = 0; fd < 1024; ++fd) {
    if (was_open[fd] || ::fcntl(fd, F_GETFD) < 0) continue;
    if (found >= 0) return -1;
    found = fd;
  }
  return found;
}

// Runs body in a child whose descriptor 2 is the file "err" in scratch. Returns the wait status.
template <typename Body>
int with_stderr(const ScratchDirectory& scratch, Body body) {
  return run_child([&] {
    ::dup2(create(scratch / "err"), 2);
    return body();
  });
}

TEST_CASE("a broken invariant is said where standard error was, and not in a file that has its number now") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [&] {
    ::signal(SIGABRT, SIG_DFL);  // doctest has a handler of its own
    error_stream();
    ::dup2(create(scratch / "other"), 2);
    UBP_ASSERT(scratch / "" == "broken");
    return 0;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGABRT);
  CHECK(read_file(scratch / "err").starts_with("ubp: error: UBP is broken, and ends the process: scratch / "));
  CHECK(read_file(scratch / "other").empty());
  const int closed = with_stderr(scratch, [&] {  // without its duplicate, nothing is said: descriptor 2 is another file
    ::signal(SIGABRT, SIG_DFL);
    error_stream();
    release_error_duplicate();
    ::dup2(create(scratch / "other"), 2);
    UBP_ASSERT(scratch / "" == "broken again");
    return 0;
  });
  CHECK(WIFSIGNALED(closed));
  CHECK(read_file(scratch / "other").empty());
  CHECK(read_file(scratch / "err").find("again") == std::string::npos);
}

TEST_CASE("error stream: writes to a private, close-on-exec, high descriptor, also after close(2)") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [] {
    const ErrorStream* stream = nullptr;
    const int own = descriptor_opened_by([&] { stream = new ErrorStream(); });
    if (own < 100) return 1;
    if ((::fcntl(own, F_GETFD) & FD_CLOEXEC) == 0) return 2;
    ::close(2);
    stream->write("hello\n");
    delete stream;
    return ::fcntl(own, F_GETFD) < 0 ? 0 : 3;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") == "hello\n");
}

TEST_CASE("error stream: never writes to what the application opened under its number") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [&] {
    const ErrorStream* stream = nullptr;
    const int own = descriptor_opened_by([&] { stream = new ErrorStream(); });
    const int database = create(scratch / "database");
    ::dup2(database, own);
    ::dup2(database, 2);
    stream->write("lost\n");
    delete stream;
    return ::fcntl(own, F_GETFD) >= 0 ? 0 : 1;  // the application's descriptor now: not ours to close
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err").empty());
  CHECK(read_file(scratch / "database").empty());
}

TEST_CASE("error stream: descriptor 2 serves while it is the same file (a daemon's closefrom)") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [&] {
    const ErrorStream stream;
    ::close_range(3, ~0U, 0);
    stream.write("kept\n");
    ::dup2(create(scratch / "database"), 2);
    stream.write("lost\n");
    return 0;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") == "kept\n");
  CHECK(read_file(scratch / "database").empty());
}

TEST_CASE("error stream: closed at load stays silent, whatever becomes descriptor 2 later") {
  const ScratchDirectory scratch;
  const int status = run_child([&] {
    ::close(2);
    const ErrorStream* stream = nullptr;
    if (descriptor_opened_by([&] { stream = new ErrorStream(); }) != -1) return 1;
    if (::dup2(create(scratch / "database"), 2) != 2) return 2;
    stream->write("lost\n");
    delete stream;
    return 0;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "database").empty());
}

TEST_CASE("error stream: a low descriptor limit lowers the number") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [] {
    const rlimit limit{64, 64};
    ::setrlimit(RLIMIT_NOFILE, &limit);
    const ErrorStream* stream = nullptr;
    const int own = descriptor_opened_by([&] { stream = new ErrorStream(); });
    ::close(2);
    stream->write("low\n");
    delete stream;
    return own >= 10 && own < 64 ? 0 : 1;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") == "low\n");
}

TEST_CASE("error stream: a broken pipe ends nothing, leaves no signal behind and keeps errno") {
  const int status = run_child([] {
    ::signal(SIGPIPE, SIG_DFL);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return 1;
    ::dup2(ends[1], 2);
    const ErrorStream stream;
    ::close(ends[0]);
    errno = ENOTTY;
    stream.write("nobody reads\n");
    if (errno != ENOTTY) return 2;
    sigset_t set;
    ::sigpending(&set);
    if (sigismember(&set, SIGPIPE)) return 3;
    ::sigprocmask(SIG_BLOCK, nullptr, &set);
    return sigismember(&set, SIGPIPE) ? 4 : 0;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("error stream: a SIGPIPE that the application had pending stays pending") {
  const int status = run_child([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    ::raise(SIGPIPE);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return 1;
    ::dup2(ends[1], 2);
    const ErrorStream stream;
    ::close(ends[0]);
    stream.write("nobody reads\n");
    ::sigpending(&set);
    return sigismember(&set, SIGPIPE) ? 0 : 2;
  });
  CHECK(exited_with(status, 0));
}

TEST_CASE("error stream: a full non-blocking pipe gets everything once it is read") {
  const ScratchDirectory scratch;
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    ::fcntl(ends[1], F_SETFL, O_NONBLOCK);
    ::dup2(ends[1], 2);
    ErrorStream().write(std::string(500000, 'x'));
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string received;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;) {
    received.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  CHECK(received == std::string(500000, 'x'));
}

TEST_CASE("say: one line a message, from the level that was set") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [] {
    say(Level::kInfo, "below the default level");
    say(Level::kWarning, "first");
    set_level(Level::kDebug);
    errno = ENOTTY;
    say(Level::kDebug, "second");
    if (errno != ENOTTY) return 1;
    say(Level::kInfo, "third {} %s");
    say(Level::kError, "UBP_PROBES:1:8: no function 'comput'");
    set_level(Level::kOff);
    say(Level::kError, "nothing");
    return 0;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") ==
        "ubp: warning: first\n"
        "ubp: debug: second\n"
        "ubp: third {} %s\n"
        "ubp: error: UBP_PROBES:1:8: no function 'comput'\n");
}

TEST_CASE("say: control characters and long texts stay one harmless line") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [] {
    say(Level::kError, std::string_view("a\nb\033[0m\0c\x7f\td", 12));
    say(Level::kError, std::string(488, 'x'));
    say(Level::kError, std::string(489, 'x'));
    say(Level::kError, std::string(483, 'x') + "\xe2\x82\xac" + std::string(20, 'x'));
    return 0;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") == "ubp: error: a?b?[0m?c??d\nubp: error: " + std::string(488, 'x') +
                                          "\nubp: error: " + std::string(485, 'x') +
                                          "...\nubp: error: " + std::string(483, 'x') + "...\n");
}

TEST_CASE("say: goes to the file that standard error was at load") {
  const ScratchDirectory scratch;
  const int status = with_stderr(scratch, [] {
    error_stream();
    ::close(2);
    say(Level::kError, "still here");
    return 0;
  });
  CHECK(exited_with(status, 0));
  CHECK(read_file(scratch / "err") == "ubp: error: still here\n");
}

TEST_CASE("parse_level: every name, and nothing else") {
  CHECK(parse_level("debug") == Level::kDebug);
  CHECK(parse_level("info") == Level::kInfo);
  CHECK(parse_level("warn") == Level::kWarning);
  CHECK(parse_level("warning") == Level::kWarning);
  CHECK(parse_level("error") == Level::kError);
  CHECK(parse_level("off") == Level::kOff);
  for (const char* text : {"", "Error", "errors", "1"}) CHECK_FALSE(parse_level(text));
}

}  // namespace
}  // namespace ubp::report
