// What the command writes on a terminal alone: that debug information is read, where that takes long. A FIFO in a debug
// file's place takes as long as a test wants.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "harness.h"

namespace ubp::test::terminal_test {
namespace {

constexpr const char* kErase = "\r\033[K";

// The command with a terminal of its own.
class OnTerminal {
 public:
  explicit OnTerminal(std::vector<std::string> words) {
    words.insert(words.begin(), command_path());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const winsize size{24, 200, 0, 0};
    pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) return;
    unset_test_variables();
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  ~OnTerminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    close(terminal_);
  }
  OnTerminal(const OnTerminal&) = delete;
  OnTerminal& operator=(const OnTerminal&) = delete;

  // Until it has written this; false: it has ended without, or nothing comes.
  bool writes(const std::string& part) {
    while (text_.find(part) == std::string::npos) {
      if (!read_some()) return false;
    }
    return true;
  }
  // Its status, as wait() tells it.
  int end() {
    while (read_some()) {
    }
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return status;
  }
  void type(char key) const { CHECK(write(terminal_, &key, 1) == 1); }
  const std::string& text() const { return text_; }

 private:
  bool read_some() {
    constexpr int kMost_ms = 30'000;
    pollfd one{terminal_, POLLIN, 0};
    char bytes[4096];
    const ssize_t got = poll(&one, 1, kMost_ms) == 1 ? read(terminal_, bytes, sizeof bytes) : -1;
    if (got > 0) text_.append(bytes, static_cast<std::size_t>(got));
    return got > 0;
  }

  int terminal_ = -1;
  pid_t pid_ = -1;
  std::string text_;
};

// A folder in which the fixture's debug file is a FIFO: who opens it waits.
struct SlowFolder : ScratchFolder {
  SlowFolder() { REQUIRE(mkfifo(fifo().c_str(), 0600) == 0); }
  std::string fifo() const { return path() + "/fx_hello.debug"; }
};

// Every command that reads debug information.
std::vector<std::vector<std::string>> commands(const std::string& folder) {
  const std::string hello = fixture("fx_hello"), target = hello + ":compute";
  return {{"vars", "--debuginfo", folder, target},
          {"lines", "--debuginfo", folder, target},
          {"list", "-v", "--debuginfo", folder, "uprobe:" + target},
          {"run", "-e", "stmt:" + target + " { }", "--debuginfo", folder, "--", hello},
          {"run", "-e", "uprobe:" + target + " { print(args.x) }", "--debuginfo", folder, "--", hello},
          {"run", "-e", "uprobe:" + target + "x { }", "--debuginfo", folder, "--", hello},
          {"check", "-e", "inline:" + target + " { }", "--debuginfo", folder, "--", hello}};
}

}  // namespace

TEST_CASE("terminal_reading: where it takes long, a line says so, which is gone before anything else is written") {
  const SlowFolder folder;
  const std::string line = "ubp: reading the debug information of " + fixture("fx_hello") + " ...";
  for (const std::vector<std::string>& words : commands(folder.path())) {
    CAPTURE(words.front());
    CAPTURE(words[2]);
    OnTerminal command(words);
    CHECK(command.writes(kErase + line));
    const int fifo = open(folder.fifo().c_str(), O_RDWR | O_CLOEXEC);  // nobody waits from here on
    const int status = command.end();
    close(fifo);
    CHECK(WIFEXITED(status));
    CAPTURE(command.text());
    const std::size_t last = command.text().rfind(line);
    REQUIRE(last != std::string::npos);
    const std::string rest = command.text().substr(last + line.size());
    CHECK(rest.starts_with(kErase));
    CHECK(rest.find(':') != std::string::npos);  // what the command has to say
    CHECK(command.text().find('\n') > last);
  }
}

TEST_CASE("terminal_interrupted: the line is gone, and the command ends by the signal") {
  const SlowFolder folder;
  for (const std::vector<std::string>& words : commands(folder.path())) {
    CAPTURE(words.front());
    OnTerminal command(words);
    CHECK(command.writes("reading the debug information"));
    command.type('\3');
    const int status = command.end();
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGINT);
    CAPTURE(command.text());
    CHECK(command.text().ends_with(kErase));
  }
}

TEST_CASE("terminal_quick: nothing is written where it is quick, nor where standard error is no terminal") {
  OnTerminal quick({"vars", fixture("fx_vars2") + ":main"});
  const int status = quick.end();
  CHECK(WIFEXITED(status));
  CHECK(quick.text().find(" in main") != std::string::npos);
  CHECK(quick.text().find('\033') == std::string::npos);
  const SlowFolder folder;
  const Outcome piped = run_shell("(sleep 0.8; : >" + folder.fifo() + ") & exec " + command_path() +
                                  " vars --debuginfo " + folder.path() + ' ' + fixture("fx_hello") + ":compute");
  CAPTURE(piped.err);
  CHECK(piped.err.starts_with("ERROR: there is no debug information of "));
  CHECK(piped.out.empty());
}

}  // namespace ubp::test::terminal_test
