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

#include "runtime/core/options.h"
#include "runtime/core/session.h"
#include "runtime/report/output_file.h"
#include "runtime/report/report.h"
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
  Session session;
  report::OutputFile output;
  report::OutputFile summary;
  report::PathFields fields;
};
Process* g_loaded = nullptr;
std::atomic<int> g_reported_pid{0};

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

// Children made by exec find the environment as the application set it: without UBP's variables and without libubp in
// LD_PRELOAD.
void hide_from_children() {
  for (const std::string& name : option_names()) remove_variable(name);
  char* const preload = find_variable("LD_PRELOAD");
  Dl_info self{};
  if (preload == nullptr || dladdr(reinterpret_cast<void*>(&hide_from_children), &self) == 0) return;
  const std::string_view own = self.dli_fname;
  const std::string_view own_name = own.substr(own.rfind('/') + 1);
  std::string rest;
  std::string_view left = preload;
  while (!left.empty()) {
    const std::size_t end = std::min(left.find_first_of(": "), left.size());
    const std::string_view entry = left.substr(0, end);
    if (!entry.empty() && entry != own && entry.substr(entry.rfind('/') + 1) != own_name) {
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

// What libubp calls at exit is no hit of the application's.
struct InRuntime {
  InRuntime() { trap::t_in_runtime = true; }
  ~InRuntime() { trap::t_in_runtime = false; }
};

void write_report() try {
  if (g_loaded == nullptr) return;
  const int pid = sys::is_process(trap::g_process.pid) ? static_cast<int>(trap::g_process.pid) : static_cast<int>(sys::getpid());
  if (!is_reporting_process() || g_reported_pid.exchange(pid) == pid) return;
  const InRuntime guard;
  Process& process = *g_loaded;
  report::PathFields fields = process.fields;
  fields.pid = pid;
  report::Summary summary = process.session.summary();
  summary.pid = pid;
  if (process.output.is_set()) summary.output_path = process.output.path(fields);
  if (summary.totals.probepoints_armed > 0) {  // else a message has said why
    const std::string text = report::format_text(summary);
    if (process.output.is_set()) {
      if (const auto error = process.output.write(text, fields)) say(Level::kError, *error);
    } else {
      report::error_stream().write(text);
    }
  }
  if (process.summary.is_set()) {
    if (const auto error = process.summary.write(report::format_json(summary), fields)) say(Level::kError, *error);
  }
} catch (const std::bad_alloc&) {
  report::error_stream().write("ubp: error: out of memory at exit; no report\n");
}

void at_fork_child() {
  if (trap::g_process.fork_state == nullptr) return;  // a bad specification: nothing is armed
  trap::ubp_trap_set_up_child();
  report::release_error_duplicate();
  if (g_loaded != nullptr) g_loaded->session.set_up_child();
}

// Stands in for the dynamic linker's empty r_brk.
void on_modules_changed() {
  if (g_loaded == nullptr || !is_reporting_process() || _r_debug.r_state != r_debug::RT_CONSISTENT) return;
  const int error = errno;
  // No handler of the application's runs inside: its hits would not be counted, and its exit would wait for this.
  const std::uint64_t all = ~(std::uint64_t{1} << (SIGTRAP - 1));
  std::uint64_t before = 0;
  sys::call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&all), reinterpret_cast<long>(&before), sizeof before);
  {
    const InRuntime guard;
    try {
      g_loaded->session.modules_changed();
    } catch (const std::exception& problem) {
      say(Level::kWarning, problem.what());
    }
  }
  sys::call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&before), 0, sizeof before);
  errno = error;
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
  auto* const process = new Process{options, Session(options, program), {}, {}, fields};
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
  pthread_atfork(nullptr, nullptr, &at_fork_child);
  at_quick_exit(&write_report);
  g_loaded = process;
  trap::g_process.on_modules_changed = reinterpret_cast<std::uint64_t>(&on_modules_changed);
  return process->session.start();
}

__attribute__((constructor)) void on_load() {
  if (!is_wanted()) return;
  report::error_stream();  // before the application can close or reuse descriptor 2
  std::vector<OptionError> errors;
  const Options options = read_options(environ, errors);
  report::set_level(options.log);
  if (options.help) report::error_stream().write(options_help());
  if (!options.has_probes) return;
  if (!options.follow_exec) hide_from_children();
  bool good = false;
  trap::t_in_runtime = true;
  try {
    good = load(errors, options);
  } catch (const std::bad_alloc&) {
    say(Level::kError, "out of memory at load; nothing more is probed");
  }
  trap::t_in_runtime = false;
  if (!good && options.missing == Missing::kError) _exit(kNotStarted);  // why has been said
}

__attribute__((destructor)) void on_exit() try {
  write_report();
  if (g_loaded == nullptr || !is_reporting_process()) return;
  const InRuntime guard;
  if (const auto denied = g_loaded->session.disarm()) say(Level::kWarning, *denied);
} catch (const std::bad_alloc&) {  // no memory to say so, and the process is ending: the text stays as it is
}

[[noreturn]] void exit_now(int status) {
  write_report();
  for (;;) sys::call4(SYS_exit_group, status);
}

}  // namespace
}  // namespace ubp::core

// The ways out that run no destructor. runtime/ubp.map exports these names.
extern "C" {
__attribute__((visibility("default"))) void _exit(int status) { ubp::core::exit_now(status); }
__attribute__((visibility("default"))) void _Exit(int status) noexcept { ubp::core::exit_now(status); }
}
