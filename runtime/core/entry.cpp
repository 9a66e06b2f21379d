// The preload entry: what happens when libubp.so is loaded, when the process forks, and when it ends.
//
// Context: the constructor runs before main, in the only thread unless another library's constructor made one. Without
// UBP_PROBES (or UBP_PROBES_FILE) it returns at once and the library stays inert.
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/api.h"
#include "runtime/core/call.h"
#include "runtime/core/options.h"
#include "runtime/report/output_file.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

extern "C" char** environ;

namespace ubp::core {
namespace {

constexpr int kNotStarted = 125;  // as env(1), timeout(1): the program was not started

using report::Level;
using report::say;

// Made once at load, never destroyed: threads and exit handlers may outlive any destructor.
struct Process {
  Options options;
  std::string program;
  report::OutputFile output;
  report::OutputFile summary;
  report::PathFields fields;
};
Process* g_loaded = nullptr;
std::atomic<int> g_reported_pid{0};
void (*g_next_exit)(int) = nullptr;

std::string executable_path() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : std::string(program_invocation_name);
}

// The environment is edited in place: programs (bash) bring their own getenv and setenv. Returns the value.
char* find_variable(std::string_view name) {
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if (std::strncmp(*entry, name.data(), name.size()) == 0 && (*entry)[name.size()] == '=') return *entry + name.size() + 1;
  }
  return nullptr;
}

void remove_variable(std::string_view name) {
  char** to = environ;
  for (char** from = environ; from != nullptr && *from != nullptr; ++from) {
    const bool matches = std::strncmp(*from, name.data(), name.size()) == 0 && (*from)[name.size()] == '=';
    if (!matches) *to++ = *from;
  }
  if (to != nullptr) *to = nullptr;
}

// Set before any option is read, and cheap: the inert library must cost nothing.
bool is_wanted() {
  for (const char* name : {"UBP_PROBES", "UBP_PROBES_FILE", "UBP_OPTIONS"}) {
    if (find_variable(name) != nullptr) return true;
  }
  return false;
}

// "libubp.so" of "/usr/lib/libubp.so.0"
std::string_view unversioned_name(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  const std::size_t version = name.find(".so.");
  return version == name.npos ? name : name.substr(0, version + 3);
}

// Children made by exec find the environment as the application set it: without UBP's variables and without libubp in
// LD_PRELOAD.
void hide_from_children() {
  for (const std::string& name : option_names()) remove_variable(name);
  char* const preload = find_variable("LD_PRELOAD");
  Dl_info self{};
  if (preload == nullptr || dladdr(reinterpret_cast<void*>(&hide_from_children), &self) == 0) return;
  const std::string_view own = self.dli_fname;
  std::string rest;
  std::string_view left = preload;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find_first_of(": "), left.size());
    const std::string_view entry = left.substr(0, end);
    if (!entry.empty() && entry != own && unversioned_name(entry) != unversioned_name(own)) {
      rest += (rest.empty() ? "" : ":") + std::string(entry);
    }
    left.remove_prefix(std::min(end + 1, left.size()));
  }
  if (rest.empty()) {
    remove_variable("LD_PRELOAD");
  } else {
    std::memcpy(preload, rest.c_str(), rest.size() + 1);  // never longer than it was
  }
}

// Whose memory is this? A vfork child runs in its parent's and must not report for it.
bool is_reporting_process() {
  if (trap::g_process.fork_state == nullptr) return true;  // nothing armed: nothing that could be shared
  const bool forked = trap::g_process.fork_state->load(std::memory_order_acquire) != trap::kReady;  // wiped: a child
  return forked || sys::is_process(trap::g_process.pid);
}

// The report and the summary of this process as they are now. Returns false after saying what cannot be written.
bool write_files(bool to_stream, int pid) {
  Process& process = *g_loaded;
  report::PathFields fields = process.fields;
  fields.pid = pid;
  report::Summary summary = core::summary(process.program);
  summary.pid = pid;
  if (process.output.is_set()) summary.output_path = process.output.path(fields);
  bool good = true;
  const auto check = [&](const std::optional<std::string>& error) {
    if (!error) return;
    say(Level::kError, *error);
    good = false;
  };
  if (summary.totals.probepoints_armed > 0) {  // else a message has said why
    const std::string text = report::format_text(summary);
    if (process.output.is_set()) {
      check(process.output.write(text, fields));
    } else if (to_stream) {
      report::error_stream().write(text);
    }
  }
  if (process.summary.is_set()) check(process.summary.write(report::format_json(summary), fields));
  return good;
}

bool flush() { return write_files(false, static_cast<int>(sys::getpid())); }

void write_report() try {
  if (g_loaded == nullptr) return;
  const int pid = sys::is_process(trap::g_process.pid) ? static_cast<int>(trap::g_process.pid) : static_cast<int>(sys::getpid());
  if (!is_reporting_process() || g_reported_pid.exchange(pid) == pid) return;
  const Quiet quiet;
  write_files(true, pid);
} catch (const std::bad_alloc&) {
  report::error_stream().write("ubp: error: out of memory at exit; no report\n");
}

// Says what is wrong with the specification, on one line, with a hint on a second.
void say_problem(Level level, const ubp_refusal& problem) {
  const std::string place = problem.line != 0 ? fmt::format("{}:{}:", problem.line, problem.column) : "";
  say(level, fmt::format("UBP_PROBES:{} {}", place, problem.message));
  if (problem.hint[0] != '\0') report::error_stream().write(fmt::format("ubp:   {}\n", problem.hint));
}

// "libc.so.6:malloc+0x4"
std::string place_of(const ubp_refusal& refusal) {
  return refusal.symbol[0] != '\0' ? fmt::format("{}:{}", refusal.module, refusal.symbol)
                                   : fmt::format("{}:0x{:x}", refusal.module, refusal.elf_address);
}

// What the registered specification did not get: mistakes one by one, where they are to be said; refusals in one line.
void say_refusals(ubp_probe* probe, bool says_mistakes) {
  ubp_refusal refusal{}, first{};
  refusal.struct_size = sizeof refusal;
  bool is_exact = false;
  std::size_t refused = 0;
  for (std::size_t i = 0; ubp_probe_refusal(probe, i, &refusal) == UBP_OK; ++i) {
    if (refusal.line != 0) {
      if (says_mistakes) say_problem(Level::kWarning, refusal);
      continue;
    }
    if (refused++ == 0) first = refusal;
    is_exact |= refusal.is_exact != 0;
  }
  if (refused == 0) return;
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  ubp_probe_read(probe, &stats);
  say(is_exact ? Level::kWarning : Level::kInfo, fmt::format("{} of {} probes refused, first {}: {}; the report lists all",
                                                             refused, refused + stats.probes, place_of(first), first.message));
}

// Registers UBP_PROBES. Returns false when the specification is bad: nothing is armed then.
bool arm(const Options& options) {
  MachineConfig config;
  config.slots = options.slots;
  config.policy = options.policy;
  config.optimize = options.optimize;
  const bool forgives = options.missing == Missing::kWarn || options.missing == Missing::kIgnore;
  std::uint32_t flags = 0;
  if (forgives) flags |= UBP_PROBE_IGNORE_MISSING;
  if (options.missing == Missing::kPending) flags |= UBP_PROBE_PENDING;
  ubp_probe* probe = nullptr;
  ubp_refusal problem{};
  problem.struct_size = sizeof problem;
  ubp_status status = initialise(config, false);
  if (status == UBP_E_OTHER_RUNTIME) return false;  // which has been said
  if (status == UBP_OK) status = register_environment(options.probes, flags, &probe, &problem);
  if (status != UBP_OK) give_up();
  switch (status) {
    case UBP_OK:
      break;
    case UBP_E_SPEC:
    case UBP_E_NOT_FOUND:
      say_problem(Level::kError, problem);
      return false;
    case UBP_E_REFUSED:
    case UBP_E_NO_ROOM:
      if (problem.line != 0) {
        say_problem(Level::kError, problem);
      } else {
        say(Level::kError, fmt::format("no probe could be armed, first {}: {}", place_of(problem), problem.message));
      }
      return false;
    default:
      say(Level::kError,
          fmt::format("{}; the program runs unprobed", problem.message[0] != '\0' ? problem.message : ubp_status_string(status)));
      return false;
  }
  say_refusals(probe, options.missing == Missing::kWarn);
  if (options.log <= Level::kInfo) say(Level::kInfo, costs(probe));
  return true;
}

// Everything up to the first int3. Returns false when the options or the specification are bad.
bool load(std::vector<OptionError>& errors, Options options) {
  if (!errors.empty()) {
    say(Level::kError, errors.front().message + "; nothing is probed");
    return false;
  }
  const std::string program = executable_path();
  report::PathFields fields;
  fields.pid = static_cast<int>(getpid());
  fields.program = program.substr(program.rfind('/') + 1);
  fields.start = std::time(nullptr);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  fields.host = host;
  auto* const process = new Process{options, program, {}, {}, fields};
  for (const auto& [file, variable, pattern] :
       {std::tuple{&process->output, "UBP_OUTPUT", &options.output}, {&process->summary, "UBP_SUMMARY", &options.summary}}) {
    if (pattern->empty()) continue;
    if (const auto error = file->prepare(variable, *pattern, fields)) {
      say(Level::kError, *error);
      return false;
    }
  }
  // The report goes elsewhere: no descriptor is kept that the application could meet.
  if (process->output.is_set()) report::release_error_duplicate();
  at_quick_exit(&write_report);
  g_loaded = process;
  set_flush(&flush);
  return arm(options);
}

__attribute__((constructor)) void on_load() {
  // A program's own _exit stands in front of that of a copy which is preloaded.
  if (Machine::is_in_program()) g_next_exit = reinterpret_cast<void (*)(int)>(dlsym(RTLD_NEXT, "_exit"));
  if (!is_wanted()) return;
  report::error_stream();  // before the application can close or reuse descriptor 2
  std::vector<OptionError> errors;
  const Options options = read_options(environ, errors);
  report::set_level(options.log);
  if (options.help) report::error_stream().write(options_help());
  if (!options.has_probes) return;
  if (!options.follow_exec) hide_from_children();
  if (signals::is_taken_by_another()) return;  // and has read the same variables
  bool good = false;
  const Quiet quiet;
  try {
    good = load(errors, options);
  } catch (const std::bad_alloc&) {
    say(Level::kError, "out of memory at load; nothing more is probed");
  }
  if (!good && options.missing == Missing::kError) _exit(kNotStarted);  // why has been said
}

__attribute__((destructor)) void on_exit() try {
  write_report();
  if (g_loaded != nullptr && is_reporting_process()) disarm_at_exit();
} catch (const std::bad_alloc&) {  // no memory to say so, and the process is ending: the text stays as it is
}

[[noreturn]] void exit_now(int status) {
  write_report();
  if (g_next_exit != nullptr) g_next_exit(status);
  for (;;) sys::call4(SYS_exit_group, status);
}

}  // namespace
}  // namespace ubp::core

// The ways out that run no destructor. runtime/ubp.map exports these names.
extern "C" {
__attribute__((visibility("default"))) void _exit(int status) { ubp::core::exit_now(status); }
__attribute__((visibility("default"))) void _Exit(int status) noexcept { ubp::core::exit_now(status); }
}
