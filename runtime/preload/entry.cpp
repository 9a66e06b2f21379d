// The preload entry: what happens when libubp.so is loaded, when the process forks, and when it ends.
//
// Context: the constructor runs before main, in the only thread unless another library's constructor made one. Without
// UBP_PROBES (or UBP_PROBES_FILE) it returns at once and the library stays inert.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fmt/format.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/api/api.h"
#include "runtime/base/arena.h"
#include "runtime/api/api_lock.h"
#include "runtime/base/cancellation.h"
#include "runtime/base/executable.h"
#include "runtime/preload/environment.h"
#include "runtime/preload/family.h"
#include "runtime/preload/options.h"
#include "runtime/report/descriptor.h"
#include "runtime/report/output_file.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/signals/sandbox.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

extern "C" char** environ;

namespace ubp::runtime {
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
  std::optional<report::Failure> error;  // why nothing is probed
  bool passes_on = false;  // nothing is, but what this program executes may have it
};
Process* g_loaded = nullptr;
std::atomic<std::uint32_t> g_reporting_pid{0}, g_reporting_thread{0}, g_reported_pid{0}, g_dying_pid{0};
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

// Whose memory is this? A vfork child runs in its parent's and must not report for it.
bool is_reporting_process() {
  if (trap::g_process.fork_state == nullptr) return true;  // nothing armed: nothing that could be shared
  const bool forked = trap::g_process.fork_state->load(std::memory_order_acquire) != trap::kReady;  // wiped: a child
  return forked || sys::is_process(trap::g_process.pid);
}

// Writes the report and the summary. Returns false after saying what cannot be written.
bool write_files(report::Summary summary, bool to_stream, int pid) {
  Process& process = *g_loaded;
  report::PathFields fields = process.fields;
  fields.pid = pid;
  summary.pid = pid;
  if (process.error) summary.error = process.error;
  if (is_first_of_family()) summary.unfollowed = unfollowed();
  const int owner = static_cast<int>(files_owner(is_first_of_family()));
  process.output.set_owner(owner);
  process.summary.set_owner(owner);
  if (process.output.is_set()) summary.output_path = process.output.path(fields);
  bool good = true;
  const auto check = [&](const std::optional<std::string>& error) {
    if (!error) return;
    const std::string_view without_advice = std::string_view(*error).substr(0, error->rfind(" ("));  // it would come too late for the child
    const std::string noted = fmt::format("{} (pid {}): {}", process.fields.program, pid, without_advice);
    if (good && !note_in_family(Note::kUnwritten, noted)) say(Level::kError, *error);
    good = false;
  };
  const bool is_probed = summary.totals.probepoints_armed > 0;
  if (process.output.is_set()) {  // an older report does not stay where this one says why there is none
    if (is_probed || (summary.error && owner == pid)) check(process.output.write(report::format_text(summary), fields));
  } else if (is_probed && to_stream) {  // else a message has said why
    report::error_stream().write(report::format_text(summary));
  }
  if (process.summary.is_set()) check(process.summary.write(report::format_json(summary), fields));
  return good;
}

bool flush() { return write_files(summary(g_loaded->program, g_loaded->summary.is_set()), false, static_cast<int>(sys::getpid())); }

std::uint32_t reporting_pid() { return sys::is_process(trap::g_process.pid) ? trap::g_process.pid : sys::getpid(); }

// Waits until `done`, but not for ever: the process is to end.
template <typename Done>
void wait_until(const Done& done) {
  constexpr int kPatience = 10'000;  // milliseconds; a reader of the report has five seconds
  for (int turn = 0; turn < kPatience && !done(); ++turn) {
    const timespec moment{0, 1'000'000};
    sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
  }
}

// Another thread makes the report already: the process must not end before it is made, but it does end. This thread, interrupted
// in making it, does not wait.
void wait_for_report(std::uint32_t pid) {
  constexpr long kNoSuchProcess = -3;  // -ESRCH
  wait_until([pid] {
    if (g_reported_pid.load(std::memory_order_acquire) == pid) return true;  // pairs with make_report()
    const std::uint32_t thread = g_reporting_thread.load(std::memory_order_relaxed);  // 0: not yet known
    return thread == sys::gettid() || (thread != 0 && sys::call4(SYS_tgkill, pid, thread, 0) == kNoSuchProcess);
  });
}

// A signal that another thread has got ends the process: without UBP, this thread would not come to end it with a status.
void wait_for_death() {
  if (g_dying_pid.load(std::memory_order_relaxed) == reporting_pid()) wait_until([] { return false; });
}

// Whether it is for this thread to make the report; another that is at it is waited for.
bool begin_report() {
  if (g_loaded == nullptr || !is_reporting_process()) return false;
  const std::uint32_t pid = reporting_pid();
  if (g_reporting_pid.exchange(pid, std::memory_order_relaxed) == pid) {  // whoever is first
    wait_for_report(pid);
    return false;
  }
  g_reporting_thread.store(sys::gettid(), std::memory_order_relaxed);
  return true;
}

// Behind begin_report(). is_death: a signal ends the process. Returns whether the text is as it was.
bool make_report(bool is_death) {
  const std::uint32_t pid = g_reporting_pid.load(std::memory_order_relaxed);  // this thread's
  bool is_restored = false;
  try {
    const SignalsHeld quiet;
    std::optional<Uncancelled> uncancelled;
    if (!is_death) uncancelled.emplace();
    write_files(end(g_loaded->program, g_loaded->summary.is_set(), is_death ? nullptr : &quiet, is_restored), true, static_cast<int>(pid));
    if (const std::string mail = mail_of_family(); !mail.empty()) report::error_stream().write(mail);
    for (const Note note : {Note::kUnmatched, Note::kUnwritten}) {
      if (const std::string told = told_by_family(note); !told.empty()) say(Level::kWarning, told);
    }
  } catch (const std::bad_alloc&) {
    report::error_stream().write("ubp: error: out of memory at the end; no report\n");
  }
  g_reported_pid.store(pid, std::memory_order_release);  // pairs with wait_for_report()
  return is_restored;
}

void write_report() {
  if (signals::forbids_report()) return;
  if (begin_report()) make_report(false);
  wait_for_death();
}

// ---- The report of a process that a signal is ending (trap/death.h)
//
// Made in a handler that has interrupted anything: libubp has its own memory and takes no lock of libc's or the dynamic linker's, and
// the interface's only for so long. The interrupted stack may be small, or used up: there is one for this alone.
constexpr std::uint64_t kDeathStackBytes = std::uint64_t{256} << 10;
std::uint64_t g_death_stack = 0;
bool g_death_restored = false;

// Behind begin_report(), on that stack. It is the thread's alternate signal stack too, from here to the return from the handler:
// what a trap would find instead, the handler's frame may lie on.
void report_on_own_stack() {
  const std::uint64_t stack[3] = {g_death_stack, 0, kDeathStackBytes};
  sys::call4(SYS_sigaltstack, reinterpret_cast<long>(stack), 0);
  report::bound_writes();
  g_death_restored = make_report(true);
}

bool report_death() {
  // What a filter of the program's own making forbids may change what it dies of.
  if (sys::is_set(trap::g_process.is_sandboxed)) return false;
  g_dying_pid.store(reporting_pid(), std::memory_order_relaxed);
  if (!begin_report()) return false;
  const std::uint64_t top = g_death_stack + kDeathStackBytes;
  register void (*function)() asm("r12") = &report_on_own_stack;
  register std::uint64_t stack asm("r13") = top;
  asm volatile(
      "xchg %%rsp, %0\n\t"
      "call *%1\n\t"
      "mov %0, %%rsp"
      : "+r"(stack)
      : "r"(function)
      : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
        "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
  return g_death_restored;
}

// A program is about to be executed, and will not be probed. The first process says so where it is replaced, lest nothing be said
// at all; of its children's it counts them. (libc tries several paths one after the other.)
void before_exec(const char* path) {
  static constinit std::atomic<bool> is_told{false};
  constexpr long kExecutable = 1;  // X_OK
  if (path != nullptr && sys::call4(SYS_access, reinterpret_cast<long>(path), kExecutable) != 0) return;
  if (!is_first_of_family()) return count_unfollowed();
  if (is_told.exchange(true, std::memory_order_relaxed)) return;
  const SignalsHeld quiet;
  try {
    say(Level::kWarning, fmt::format("{} is replaced by {}: it leaves no report, and what replaces it runs unprobed (UBP_FOLLOW=exec probes it, too)",
                                     g_loaded->program, path != nullptr ? path : "another program"));
  } catch (const std::bad_alloc&) {  // no memory to say so
  }
}

// At load: without memory for its stack there is none.
void prepare_death() {
  void* const stack =
      mmap(nullptr, kDeathStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return;
  g_death_stack = reinterpret_cast<std::uint64_t>(stack);
  trap::g_process.report_death = &report_death;
}

std::string position_of(std::size_t line, std::size_t column) {
  return line != 0 ? fmt::format("UBP_PROBES:{}:{}", line, column) : std::string("UBP_PROBES");
}

// Says what is wrong with the specification, on one line, with a hint on a second.
void say_problem(Level level, std::string_view where, std::string_view message, std::string_view hint) {
  say(level, fmt::format("{}: {}", where, message));
  if (!hint.empty() && report::says(level)) report::error_stream().write(fmt::format("ubp:   {}\n", hint));
}

// "libc.so.6:malloc+0x4"
std::string place_of(std::string_view module, std::string_view symbol, std::uint64_t elf_address) {
  return !symbol.empty() ? fmt::format("{}:{}", module, symbol) : fmt::format("{}:0x{:x}", module, elf_address);
}

// Whether the first process says at its end that this one lacks what is to be probed: who executed it knows no better.
bool is_noted(const std::string& where, std::string_view why) {
  return was_executed() && g_loaded->options.missing != Missing::kError &&
         note_in_family(Note::kUnmatched, fmt::format("{}: {}: {}", g_loaded->program, where, why));
}

// What the registered specification did not get: mistakes one by one, where they are to be said; refusals in one line.
void say_refusals(const Shortfall& missed, bool says_mistakes) {
  for (const Problem& mistake : missed.mistakes) {
    const std::string where = position_of(mistake.position.line, mistake.position.column);
    if (!says_mistakes || is_noted(where, mistake.message)) break;
    say_problem(Level::kWarning, where, mistake.message, mistake.hint);
  }
  for (const Problem& waiting : missed.waiting) {
    const std::string where = position_of(waiting.position.line, waiting.position.column);
    if (is_noted(where, waiting.message)) break;
    say_problem(Level::kWarning, where, waiting.message, waiting.hint);
  }
  if (missed.refused == 0) return;
  const Problem& first = missed.first;
  say(missed.is_exact ? Level::kWarning : Level::kInfo,
      fmt::format("{} of {} probes refused, first {}: {}; the report lists all", missed.refused, missed.refused + missed.probes,
                  place_of(first.module, first.symbol, first.elf_address), first.message));
}

// Nothing is probed: the summary says why too.
void keep_error(std::string_view what, std::string_view where, std::string_view why, std::string_view hint) {
  g_loaded->error = report::Failure{std::string(what), std::string(where), std::string(why), std::string(hint)};
}

// Registers UBP_PROBES. Returns false when the specification is bad: nothing is armed then.
bool arm(const Options& options) {
  ProbepointsConfig config;
  config.slots = options.slots;
  config.policy = options.policy;
  config.optimize = options.optimize;
  config.probepoints = options.max_probepoints;
  const bool forgives = options.missing == Missing::kWarn || options.missing == Missing::kIgnore;
  std::uint32_t flags = 0;
  if (forgives) flags |= UBP_PROBE_IGNORE_MISSING;
  if (options.missing == Missing::kPending) flags |= UBP_PROBE_PENDING;
  ubp_probe* probe = nullptr;
  ubp_refusal problem{};
  problem.struct_size = sizeof problem;
  ubp_status status = initialise(config, false);
  const bool is_said = status == UBP_E_OTHER_RUNTIME;
  if (status == UBP_OK) status = register_environment(options.probes, flags, &probe, &problem);
  if (status != UBP_OK) {
    if (!is_said) give_up();
    const bool names_place = problem.line == 0 && problem.module[0] != '\0';
    const std::string where = names_place ? place_of(problem.module, problem.symbol, problem.elf_address) : position_of(problem.line, problem.column);
    const std::string why = problem.message[0] != '\0' ? problem.message : ubp_status_string(status);
    keep_error(ubp_status_string(status), where, why, problem.hint);
    if (is_said) return false;
    g_loaded->passes_on = status == UBP_E_NOT_FOUND && options.missing == Missing::kNothing;
    if (is_noted(where, why)) return false;
    const std::string_view so = g_loaded->passes_on ? "; nothing is probed, unless what this program executes has it" : "; nothing is probed";
    if (names_place) {
      say(Level::kError, fmt::format("{}: no probe could be armed, first {}: {}{}", position_of(0, 0), where, why, so));
    } else {
      say_problem(Level::kError, where, fmt::format("{}{}", why, so), problem.hint);
    }
    return false;
  }
  const Shortfall missed = shortfall(probe);
  g_loaded->passes_on = missed.probes == 0;
  if (missed.probes != 0) files_owner(true);
  say_refusals(missed, options.missing == Missing::kWarn);
  if (options.log <= Level::kInfo) say(Level::kInfo, costs(probe));
  return true;
}

[[noreturn]] void on_raw_exit(int status);

// Everything up to the first int3. Returns false when the options or the specification are bad.
bool load(const std::vector<OptionError>& errors, const Options& options) {
  const std::string program = executable_path();
  report::PathFields fields;
  fields.pid = static_cast<int>(getpid());
  fields.program = program.substr(program.rfind('/') + 1);
  fields.start = std::time(nullptr);
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  fields.host = host;
  auto* const process = new Process{options, program, {}, {}, fields, {}};
  g_loaded = process;
  at_quick_exit(&write_report);
  const auto summary_error = process->summary.prepare("UBP_SUMMARY", options.summary, fields);  // first: it tells of the others
  if (!errors.empty()) {
    const std::string_view message = errors.front().message, name = message.substr(0, message.find(':'));
    const bool names_one = name.size() < message.size() && name.starts_with("UBP_");
    process->output.prepare("UBP_OUTPUT", options.output, fields);  // it tells of them, too
    keep_error("an option cannot be used", names_one ? name : "the environment", names_one ? message.substr(name.size() + 2) : message, "");
    say(Level::kError, std::string(message) + "; nothing is probed");
    return false;
  }
  auto problem = process->output.prepare("UBP_OUTPUT", options.output, fields);
  if (problem) keep_error("a file cannot be written", "UBP_OUTPUT", *problem, "");
  if (!problem) problem = summary_error;
  if (!problem && process->output.is_set() && process->summary.is_set() && process->output.path(fields) == process->summary.path(fields)) {
    problem = fmt::format("UBP_SUMMARY: '{}' is where UBP_OUTPUT goes (choose another path)", process->summary.path(fields));
    keep_error("a file cannot be written", "UBP_SUMMARY", *problem, "");
  }
  if (problem) {
    say(Level::kError, *problem + "; nothing is probed");
    return false;
  }
  // The report goes elsewhere: no descriptor is kept that the application could meet.
  if (process->output.is_set()) report::release_error_duplicate();
  set_flush(&flush);
  trap::g_process.on_exit = &on_raw_exit;
  return arm(options);
}

__attribute__((constructor)) void on_load(int argc, char** argv) {
  // A program's own _exit stands in front of that of a copy which is preloaded.
  if (Probepoints::is_in_program()) g_next_exit = reinterpret_cast<void (*)(int)>(dlsym(RTLD_NEXT, "_exit"));
  if (!is_addressed()) return;
  const KeptFloating floating;
  char** const block = argv + argc + 1;
  if (getauxval(AT_SECURE) != 0) return hide_from_children(block);  // a privileged program: its caller has no say, nor in its children
  std::vector<OptionError> errors;
  const Options options = read_options(environ, errors);
  report::set_level(options.log);
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
    good = load(errors, options);
    const bool is_followed = options.follow_exec || (g_loaded != nullptr && g_loaded->passes_on);
    if (!is_followed && good) trap::g_process.before_exec = &before_exec;
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
