// Black-box harness: process start, collection, and the readers of harness.h.
#include "harness.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace ubp::test {
namespace {

std::string required_variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') throw std::runtime_error(std::string(name) + " is not set");
  return value;
}

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what + ": " + std::strerror(errno)); }

// An unnamed file that stands for one of the child's standard streams.
class Stream {
 public:
  explicit Stream(std::string_view content = {}) : fd_(memfd_create("ubp-test-stream", MFD_CLOEXEC)) {
    if (fd_ < 0) fail("memfd_create");
    if (::write(fd_, content.data(), content.size()) != static_cast<ssize_t>(content.size())) fail("write");
    ::lseek(fd_, 0, SEEK_SET);
  }
  ~Stream() { ::close(fd_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  int fd() const { return fd_; }

  std::string content() const {
    std::string text(static_cast<std::size_t>(::lseek(fd_, 0, SEEK_END)), '\0');
    ssize_t got = ::pread(fd_, text.data(), text.size(), 0);
    text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return text;
  }

 private:
  int fd_;
};

// In the child, after fork: never returns.
[[noreturn]] void become(const Invocation& invocation, const Stream streams[3], char** argv, char** envp) {
  for (int i = 0; i < 3; ++i) ::dup2(streams[i].fd(), i);
  ::setpgid(0, 0);
  for (const int signal : {SIGINT, SIGQUIT, SIGHUP})
    ::signal(signal, SIG_DFL);  // a shell's background job, or nohup, ignores them
  if (!invocation.folder.empty() && ::chdir(invocation.folder.c_str()) != 0) ::_exit(126);
  rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  uid_t id = invocation.uid;
  if (id != 0 && (::setgroups(0, nullptr) != 0 || ::setresgid(id, id, id) != 0 || ::setresuid(id, id, id) != 0)) {
    ::_exit(126);
  }
  ::execve(argv[0], argv, envp);
  ::_exit(127);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& s : strings) result.push_back(s.data());
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_of(const Invocation& invocation, const std::string& folder) {
  std::vector<std::string> env = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C"};
  if (invocation.preload) env.push_back("LD_PRELOAD=" + library());
  if (invocation.preload && invocation.summary) env.push_back("UBP_SUMMARY=" + folder + "/%p.json");
  const char* policy = std::getenv("UBP_TEST_XOL");
  if (invocation.preload && policy != nullptr) env.push_back(std::string("UBP_XOL=") + policy);
  const auto names = [&](const char* name) {
    return std::any_of(invocation.env.begin(), invocation.env.end(),
                       [&](const auto& entry) { return entry.first == name; });
  };
  const char* optimize = std::getenv("UBP_TEST_OPTIMIZE");
  if (invocation.preload && invocation.summary && !names("UBP_OPTIMIZE")) {
    env.push_back(std::string("UBP_OPTIMIZE=") + (optimize != nullptr ? optimize : "never"));
  }
  for (const auto& [name, value] : invocation.env) env.push_back(name + "=" + value);
  return env;
}

// Waits for the process; kills its group when the time is over.
void wait_for(pid_t pid, int timeout_s, Outcome& outcome) {
  int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) fail("pidfd_open");
  pollfd ended{fd, POLLIN, 0};
  int ready;
  do ready = ::poll(&ended, 1, timeout_s * 1000);
  while (ready < 0 && errno == EINTR);
  ::close(fd);
  if (ready == 0) {
    outcome.timed_out = true;
    ::kill(-pid, SIGKILL);
    ::kill(pid, SIGKILL);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) outcome.exit_status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
}

void read_summaries(const std::string& folder, Outcome& outcome) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    outcome.summaries[std::atoi(entry.path().stem().c_str())] = read_json(entry.path());
  }
}

}  // namespace

nlohmann::json Outcome::summary() const {
  auto found = summaries.find(pid);
  return found == summaries.end() ? nlohmann::json() : found->second;
}

std::string Outcome::end() const {
  if (timed_out) return "timeout";
  return signal != 0 ? "signal " + std::to_string(signal) : "exit " + std::to_string(exit_status);
}

Outcome run(const Invocation& invocation) {
  ScratchFolder folder;
  if (invocation.uid != 0 && ::chown(folder.path().c_str(), invocation.uid, invocation.uid) != 0) fail("chown");
  std::vector<std::string> argv = invocation.argv;
  std::vector<std::string> env = environment_of(invocation, folder.path());
  std::vector<char*> argv_pointers = pointers(argv);
  std::vector<char*> env_pointers = pointers(env);
  const Stream streams[3] = {Stream(invocation.input), Stream(), Stream()};

  Outcome outcome;
  outcome.pid = ::fork();
  if (outcome.pid < 0) fail("fork");
  if (outcome.pid == 0) become(invocation, streams, argv_pointers.data(), env_pointers.data());
  wait_for(outcome.pid, invocation.timeout_s, outcome);
  outcome.out = streams[1].content();
  outcome.err = streams[2].content();
  read_summaries(folder.path(), outcome);
  return outcome;
}

Outcome run_probed(std::vector<std::string> argv, const std::string& probes, Environment more) {
  more.emplace_back("UBP_PROBES", probes);
  return run({.argv = std::move(argv), .env = std::move(more)});
}

Outcome run_plain(std::vector<std::string> argv) { return run({.argv = std::move(argv), .preload = false}); }

std::string library() { return required_variable("UBP_TEST_LIB"); }
std::string command_path() { return required_variable("UBP_TEST_COMMAND"); }
std::string fixture(std::string_view name) { return required_variable("UBP_TEST_FIXTURES") + "/" + std::string(name); }
std::string control(std::string_view name) {
  return required_variable("UBP_TEST_CONTROLS") + "/libubp_" + std::string(name) + ".so";
}
void compare_with_gdb(const std::string& source, const std::string& program) {
  const char* const sources = std::getenv("UBP_TEST_SOURCES");
  if (sources == nullptr) {
    MESSAGE("UBP_TEST_SOURCES is not set: variables are not compared with gdb");
    return;
  }
  const Outcome outcome = run({.argv = {std::string(sources) + "/compare_variables", command_path(), "--source", source,
                                        "--", fixture(program)},
                               .preload = false,
                               .timeout_s = 300});
  CAPTURE(outcome.out);
  CAPTURE(outcome.err);
  if (outcome.end() == "exit 77") {
    MESSAGE("not compared: " << outcome.out);
    return;
  }
  CHECK(outcome.end() == "exit 0");
  CHECK(outcome.out.find("differ 0, absent 0") != std::string::npos);
}
Outcome run_shell(const std::string& commands) { return run_plain({"/bin/sh", "-c", commands}); }
bool has_command(const std::string& name) { return run_shell("command -v " + name).end() == "exit 0"; }

std::string build_go(const std::string& folder, std::string_view source) {
  const std::string program = folder + "/program", main = folder + "/main.go";
  if (!std::filesystem::exists("/usr/bin/go")) {
    MESSAGE("skipped: no /usr/bin/go");
    return "";
  }
  write_file(main, source);
  const Outcome built = run({.argv = {"/usr/bin/go", "build", "-o", program, main},
                             .env = {{"GOCACHE", folder + "/cache"}, {"GO111MODULE", "off"}, {"GOFLAGS", "-p=1"}},
                             .preload = false});
  if (built.end() == "exit 0") return program;
  MESSAGE("skipped: go cannot build here: " << built.err);
  return "";
}

bool long_run() { return std::getenv("UBP_TEST_LONG") != nullptr; }
void unset_test_variables() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view variable = *entry;
    if (variable.starts_with("UBP_TEST_")) names.emplace_back(variable.substr(0, variable.find('=')));
  }
  for (const std::string& name : names) unsetenv(name.c_str());
}

std::uint64_t hits(const nlohmann::json& summary, std::string_view item) {
  if (!summary.contains("probes")) return ~0ull;
  std::uint64_t sum = 0;
  bool found = false;
  for (const auto& probe : summary.at("probes")) {
    if (probe.at("spec").get<std::string>() != item) continue;
    found = true;
    sum += probe.at("hits").get<std::uint64_t>();
  }
  return found ? sum : ~0ull;
}

namespace {
std::uint64_t number(const nlohmann::json& summary, const char* block, const char* name) {
  if (!summary.contains(block) || !summary.at(block).contains(name)) return ~0ull;
  return summary.at(block).at(name).get<std::uint64_t>();
}
}  // namespace

std::uint64_t total(const nlohmann::json& summary, const char* name) { return number(summary, "totals", name); }
std::uint64_t xol(const nlohmann::json& summary, const char* name) { return number(summary, "xol", name); }

bool adds_up(const nlohmann::json& summary) {
  if (!summary.contains("totals") || !summary.contains("probes")) return false;
  std::uint64_t sum = 0;
  for (const auto& probe : summary.at("probes")) sum += probe.at("hits").get<std::uint64_t>();
  std::uint64_t parts =
      total(summary, "recorded") + total(summary, "filtered") + total(summary, "missed") + total(summary, "dropped");
  return sum == total(summary, "hits") && parts == sum;
}

std::vector<std::string> lines(std::string_view text) {
  std::vector<std::string> result;
  std::istringstream in{std::string(text)};
  for (std::string line; std::getline(in, line);) result.push_back(line);
  return result;
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

std::map<std::string, std::int64_t> numbers(std::string_view text) {
  std::map<std::string, std::int64_t> result;
  for (const std::string& line : lines(text)) {
    std::istringstream in(line);
    std::string name;
    std::int64_t value = 0;
    if (in >> name >> value) result[name] = value;
  }
  return result;
}

int count_prefix(std::string_view text, std::string_view prefix) {
  int count = 0;
  for (const std::string& line : lines(text)) count += line.compare(0, prefix.size(), prefix) == 0;
  return count;
}

std::vector<Point> points(std::string_view text) {
  std::vector<Point> result;
  for (const std::string& line : lines(text)) {
    std::istringstream in(line);
    std::string symbol, offset;
    Point point;
    if (in >> symbol >> offset >> point.times) {
      point.item = symbol + "+" + offset;
      result.push_back(point);
    }
  }
  return result;
}

std::string probe_list(const std::vector<Point>& list) {
  std::string text;
  for (const Point& point : list) text += (text.empty() ? "" : "; ") + point.item;
  return text;
}

ScratchFolder::ScratchFolder() {
  char pattern[] = "/tmp/ubp-test-XXXXXX";
  if (::mkdtemp(pattern) == nullptr) fail("mkdtemp");
  path_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

StuckPipe::StuckPipe() : path_(folder_.path() + "/stuck") {
  REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
  fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(::fcntl(fd_, F_SETPIPE_SZ, 4096) == 4096);
}
StuckPipe::~StuckPipe() { ::close(fd_); }

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

nlohmann::json read_json(const std::string& path) {
  nlohmann::json json = nlohmann::json::parse(read_file(path), nullptr, false);
  if (json.is_discarded()) json = nullptr;
  return json;
}

void write_file(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!out.flush()) fail("cannot write " + path);
}

}  // namespace ubp::test
