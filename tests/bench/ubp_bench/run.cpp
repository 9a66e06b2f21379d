// Starting workers: with libubp.so preloaded, with a kernel uprobe, or bare.
#include <fcntl.h>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "bench.h"

namespace ubp::bench {
namespace {

// A uprobe on this program's file, on every processor: an event that is inherited by threads would read its path in the
// wrong process. Closed by the caller.
std::vector<int> open_uprobe(std::uint64_t offset, std::string& error) {
  unsigned type = 0;
  std::ifstream file("/sys/bus/event_source/devices/uprobe/type");
  if (!(file >> type)) {
    error = "no kernel uprobes here";
    return {};
  }
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  path[length < 0 ? 0 : length] = '\0';
  perf_event_attr attr{};
  attr.size = sizeof attr;
  attr.type = type;
  attr.uprobe_path = reinterpret_cast<std::uint64_t>(path);
  attr.probe_offset = offset;
  std::vector<int> events;
  for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); ++cpu) {
    const int fd = static_cast<int>(syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
    if (fd >= 0) {
      events.push_back(fd);
    } else if (errno != ENODEV) {  // a processor that is off
      error = std::string("perf_event_open: ") + std::strerror(errno);
      break;
    }
  }
  return events;
}

// Whether all hits were jumps, or none. A thread's first one is a trap, which makes its counters.
bool is_of_tier(const Outcome& outcome, const std::string& optimize, std::uint64_t calls) {
  const auto jumped = outcome.optimised.find("hits");
  if (jumped == outcome.optimised.end()) return false;
  return optimize == "never" ? jumped->second == 0 : jumped->second + outcome.calls.size() >= calls;
}

}  // namespace

std::string check(const Run& run, const Outcome& outcome) {
  if (!outcome.error.empty()) return outcome.error;
  const auto calls = std::accumulate(outcome.calls.begin(), outcome.calls.end(), std::uint64_t{0});
  const bool is_probed = !run.environment.empty() || run.uprobe_offset != 0;
  const auto counted = outcome.totals.find(run.uprobe_offset != 0 ? "kernel" : "hits");
  if (is_probed && (counted == outcome.totals.end() || counted->second != calls)) return "the counts differ";
  if (outcome.wrong != 0) return "a function did not do what it should";
  const auto tier = run.environment.find("UBP_OPTIMIZE");
  const bool is_told = tier != run.environment.end();
  if (is_told && !is_of_tier(outcome, tier->second, calls)) return "hits were of the other tier";
  return "";
}

Outcome run(const Run& run) {
  Outcome outcome;
  char summary[] = "/tmp/ubp-bench.XXXXXX";
  const int summary_fd = mkstemp(summary);
  close(summary_fd);
  int out[2], start[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(start, O_CLOEXEC) != 0) std::abort();
  const pid_t pid = fork();
  if (pid == 0) {
    char byte;
    if (read(start[0], &byte, 1) != 1) _exit(97);
    dup2(out[1], 1);
    if (run.worker.at(0) == "consumer")
      dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);  // "the program embeds UBP too"
    if (!run.environment.empty()) {
      setenv("LD_PRELOAD", run.library.c_str(), 1);
      setenv("UBP_OUTPUT", "/dev/null", 1);
      setenv("UBP_SUMMARY", summary, 1);
    }
    for (const auto& [name, value] : run.environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv{const_cast<char*>("ubp-bench"), const_cast<char*>("worker")};
    for (const std::string& argument : run.worker) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv("/proc/self/exe", argv.data());
    _exit(98);
  }
  close(out[1]);
  close(start[0]);
  const std::vector<int> uprobe =
      run.uprobe_offset != 0 ? open_uprobe(run.uprobe_offset, outcome.error) : std::vector<int>();
  if (outcome.error.empty()) {
    [[maybe_unused]] const ssize_t wrote = write(start[1], "g", 1);
  }
  close(start[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(out[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  close(out[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  for (const int event : uprobe) {
    std::uint64_t counted = 0;
    if (read(event, &counted, sizeof counted) == static_cast<ssize_t>(sizeof counted))
      outcome.totals["kernel"] += counted;
    close(event);
  }
  std::istringstream line(text);
  double elapsed = 0, processor = 0;
  line >> elapsed >> processor >> outcome.wrong;
  for (std::uint64_t calls; line >> calls;) outcome.calls.push_back(calls);
  const auto all = std::accumulate(outcome.calls.begin(), outcome.calls.end(), std::uint64_t{0});
  if (outcome.error.empty() && (status != 0 || all == 0))
    outcome.error = "the worker ended with status " + std::to_string(status);
  if (all != 0) outcome.processor_ns = processor / static_cast<double>(all);
  if (all != 0) outcome.ns = elapsed * static_cast<double>(outcome.calls.size()) / static_cast<double>(all);
  if (!run.environment.empty()) {
    std::ifstream file(summary);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_discarded()) {
      outcome.error = "no summary";
    } else {
      for (const auto& [key, value] : json["xol"].items()) {
        if (value.is_number()) outcome.xol[key] = value;
      }
      for (const auto& [key, value] : json["totals"].items()) outcome.totals[key] = value;
      for (const auto& [key, value] : json["optimised"].items()) {
        if (value.is_number()) outcome.optimised[key] = value;
      }
    }
  }
  unlink(summary);
  return outcome;
}

}  // namespace ubp::bench
