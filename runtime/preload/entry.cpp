// The preload entry: what happens when libubp.so is loaded, when the process executes another program, and when it
// ends.
//
// Context: the constructor runs before main, in the only thread unless another library's constructor made one. Without
// UBP_PROBES (or UBP_PROBES_FILE) it returns at once and the library stays inert.
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "runtime/api/api.h"
#include "runtime/api/api_lock.h"
#include "runtime/base/arena.h"
#include "runtime/base/executable.h"
#include "runtime/preload/environment.h"
#include "runtime/preload/exit_report.h"
#include "runtime/preload/family.h"
#include "runtime/preload/loaded.h"
#include "runtime/preload/options.h"
#include "runtime/preload/register_probes.h"
#include "runtime/report/output_file.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/signals/sandbox.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

extern "C" char** environ;

namespace ubp::runtime {

Loaded* g_loaded = nullptr;

void keep_error(std::string_view what, std::string_view where, std::string_view why, std::string_view hint) {
  g_loaded->error = report::Failure{std::string(what), std::string(where), std::string(why), std::string(hint)};
}

namespace {

constexpr int kNotStarted = 125;  // as env(1), timeout(1): the program was not started

using report::Level;
using report::say;

void (*g_next_exit)(int) = nullptr;

std::string executable_path() {
  std::string path = executable_link();
  return !path.empty() ? path : std::string(program_invocation_name);
}

// Looked at before any option is read, and cheap: the inert library must cost nothing.
bool is_addressed() {
  constexpr std::string_view kPrefix = "UBP_";
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if (std::string_view(*entry).starts_with(kPrefix)) return true;
  }
  return false;
}

// Nothing says what to probe. Returns whether that is a mistake, which has been said.
bool tell_of_nothing(const std::vector<OptionError>& errors, const Options& options) {
  if (options.help) {
    report::error_stream().write(options_help());
  } else if (!is_preloaded()) {
    return false;  // the program has libubp of its own: the variables are not for it
  } else if (!errors.empty()) {
    say(Level::kError, errors.front().message + "; nothing is probed");
  } else {
    say(Level::kWarning, "neither UBP_PROBES nor UBP_PROBES_FILE is set: nothing is probed");
  }
  report::release_error_duplicate();
  return !options.help;
}

// A program is about to be executed, and will not be probed. The first process says so where it is replaced, since it
// will not come to an end where it could say anything; its children are counted. (libc tries several paths one after
// the other.)
void before_exec(const char* path) {
  static constinit std::atomic<bool> is_told{false};
  constexpr long kExecutable = 1;  // X_OK
  if (path != nullptr && sys::call4(SYS_access, reinterpret_cast<long>(path), kExecutable) != 0) return;
  if (!is_first_of_family()) return count_unfollowed();
  if (is_told.exchange(true, std::memory_order_relaxed)) return;  // whoever is first
  const SignalsHeld quiet;
  try {
    say(Level::kWarning,
        fmt::format(
            "{} is replaced by {}: it leaves no report, and what replaces it runs unprobed (UBP_FOLLOW=exec probes it, too)",
            g_loaded->program, path != nullptr ? path : "another program"));
  } catch (const std::bad_alloc&) {  // no memory to say so
  }
}

[[noreturn]] void on_raw_exit(int status);

// What is armed, and how, one probe a line.
void print_check() {
  report::Summary its = summary(g_loaded->program, true);
  const auto order = [](const report::ProbeRow& row) { return std::tie(row.module, row.address); };
  std::sort(its.probes.begin(), its.probes.end(), [&](const auto& a, const auto& b) { return order(a) < order(b); });
  std::string text;
  for (const report::ProbeRow& row : its.probes) {
    const bool is_jump = row.tier == "jump";
    text += fmt::format("{}  {}!{}{}{}\n", is_jump ? "jump" : "int3", row.module, row.symbol,
                        is_jump || row.tier.empty() ? "" : "  ", is_jump ? "" : row.tier);
  }
  for (const report::RefusalRow& row : its.refusals) {
    const std::string place = row.symbol.empty() ? fmt::format("0x{:x}", row.address) : row.symbol;
    text += fmt::format("none  {}!{}  {}\n", row.module, place, row.reason);
  }
  if (its.totals.pending != 0) text += fmt::format("{} more wait for their modules\n", its.totals.pending);
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t count = write(STDOUT_FILENO, text.data() + done, text.size() - done);
    if (count <= 0) break;
    done += static_cast<std::size_t>(count);
  }
}

// Ends the process before anything of its own has run, unless it leads to another.
void check(bool is_meant) {
  if (is_meant) print_check();
  while (is_meant || !executes_others()) sys::call4(SYS_exit_group, 0);
}

// Everything up to the first int3. Returns false when the options or the specification are bad.
bool load(const std::vector<OptionError>& errors, const Options& options, const std::optional<SessionTexts>& session) {
  const std::string program = executable_path();
  report::PathFields fields;
  fields.pid = getpid();
  fields.program = program.substr(program.rfind('/') + 1);
  fields.start = std::time(nullptr);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  fields.host = host;
  auto* const process = new Loaded{options, program, {}, {}, fields, {}};
  if (session) process->source = session->name;
  process->has_reader = session.has_value();
  g_loaded = process;
  at_quick_exit(&write_report);
  const auto summary_error =
      process->summary.prepare("UBP_SUMMARY", options.summary, fields);  // first: it tells of the others
  if (!errors.empty()) {
    const std::string_view message = errors.front().message, name = message.substr(0, message.find(':'));
    const bool names_one = name.size() < message.size() && name.starts_with("UBP_");
    process->output.prepare("UBP_OUTPUT", options.output, fields);  // it tells of them, too
    keep_error("an option cannot be used", names_one ? name : "the environment",
               names_one ? message.substr(name.size() + 2) : message, "");
    say(Level::kError, std::string(message) + "; nothing is probed");
    return false;
  }
  auto problem = process->output.prepare("UBP_OUTPUT", options.output, fields);
  if (problem) keep_error("a file cannot be written", "UBP_OUTPUT", *problem, "");
  if (!problem) problem = summary_error;
  if (!problem && process->output.is_set() && process->summary.is_set() &&
      process->output.path(fields) == process->summary.path(fields)) {
    problem =
        fmt::format("UBP_SUMMARY: '{}' is where UBP_OUTPUT goes (choose another path)", process->summary.path(fields));
    keep_error("a file cannot be written", "UBP_SUMMARY", *problem, "");
  }
  if (problem) {
    say(Level::kError, *problem + "; nothing is probed");
    return false;
  }
  // The report goes elsewhere: no descriptor is kept that the application could meet.
  if (process->output.is_set()) report::release_error_duplicate();
  set_flush(&flush_files);
  trap::g_process.upcalls.on_exit = &on_raw_exit;
  return register_probes(options);
}

__attribute__((constructor)) void on_load(int argc, char** argv) {
  // A program's own _exit stands in front of that of a copy which is preloaded.
  if (Probepoints::is_in_program()) g_next_exit = reinterpret_cast<void (*)(int)>(dlsym(RTLD_NEXT, "_exit"));
  if (!is_addressed()) return;
  const KeptFloating floating;
  char** const block = argv + argc + 1;
  if (getauxval(AT_SECURE) != 0)
    return hide_from_children(block);  // a privileged program: its caller has no say, nor in its children
  std::vector<OptionError> errors;
  Options options = read_options(environ, errors);
  report::set_level(options.log);
  std::optional<SessionTexts> session;
  if (const char* const path = find_variable(kSessionVariable)) {
    session = join_session(path);
    if (!session) return hide_from_children(block);  // it has its process
    options.probes = session->text;
    options.has_probes = true;
    options.follow_exec |= session->follows;
  }
  if (!options.has_probes) {
    if (tell_of_nothing(errors, options) && options.missing == Missing::kError) _exit(kNotStarted);
    return;
  }
  report::error_stream();  // before the application can close or reuse descriptor 2
  if (options.help) report::error_stream().write(options_help());
  if (signals::is_taken_by_another()) {  // and has read the same variables
    if (!options.follow_exec) hide_from_children(block);
    return;
  }
  bool good = false;
  const SignalsHeld quiet;
  try {
    join_family(find_variable(kFirstVariable));
    good = load(errors, options, session);
    if (session && session->checks) check(good && has_session());
    const bool is_followed = options.follow_exec || (g_loaded != nullptr && g_loaded->passes_on);
    if (!is_followed && good) trap::g_process.upcalls.before_exec = &before_exec;
    is_followed ? announce_to_children(block, first_of_family()) : hide_from_children(block);
    reserve_arena();
    prepare_death();
  } catch (const std::bad_alloc&) {
    if (g_loaded != nullptr) g_loaded->error = report::Failure{"memory was denied", "at load", "out of memory", ""};
    say(Level::kError, "out of memory at load; nothing more is probed");
  }
  if (!good && options.missing == Missing::kError) _exit(kNotStarted);  // why has been said
}

__attribute__((destructor)) void on_exit() try {
  write_report();
  if (g_loaded != nullptr && !signals::forbids_report() && is_reporting_process()) leave_consumers();
} catch (const std::bad_alloc&) {  // no memory to say so, and the process is ending
}

// In place of an exit_group that the program makes by itself.
[[noreturn]] void on_raw_exit(int status) {
  write_report();
  for (;;) sys::call4(SYS_exit_group, status);
}

[[noreturn]] void exit_now(int status) {
  write_report();
  if (g_next_exit != nullptr) g_next_exit(status);
  for (;;) sys::call4(SYS_exit_group, status);
}

}  // namespace
}  // namespace ubp::runtime

// The ways out that run no destructor. runtime/ubp.map exports these names.
extern "C" {
__attribute__((visibility("default"))) void _exit(int status) { ubp::runtime::exit_now(status); }
__attribute__((visibility("default"))) void _Exit(int status) noexcept { ubp::runtime::exit_now(status); }
}
