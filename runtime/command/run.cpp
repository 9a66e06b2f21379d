// See run.h.
#include "runtime/command/run.h"

#include <fmt/format.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86gprintrin.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <system_error>

#include "runtime/analysis/mark_types.h"
#include "runtime/command/compiled.h"
#include "runtime/command/counts.h"
#include "runtime/command/debug_types.h"
#include "runtime/command/files.h"
#include "runtime/command/frame_source.h"
#include "runtime/command/launch.h"
#include "runtime/command/marks.h"
#include "runtime/command/shell.h"
#include "runtime/command/targets.h"
#include "runtime/output/functions.h"
#include "runtime/output/reader.h"
#include "runtime/program/program.h"
#include "runtime/session/place.h"
#include "runtime/session/session.h"

namespace ubp::command {
namespace {

using program::Control;
using program::Format;
using program::Session;
using program::SessionHeader;

// One run, from the command's start to its end.
class Run {
 public:
  Run(const RunOptions& options, const Compiled& compiled, const Session& session, std::FILE* output)
      : options_(options),
        compiled_(compiled),
        session_(session),
        header_(session.header()),
        output_(output),
        place_(compiled.analysis, &header_.control, session.memory()),
        reader_(compiled.analysis, place_.maps(), place_.machine(), reader_options()) {}

  // Until the command has ended. Returns the status of this one.
  int watch(pid_t child);

 private:
  program::ReaderOptions reader_options() const;
  void say_attached();
  std::unique_ptr<program::Program> make_program();
  void run_end();
  void say_not_run() const;
  void print(const std::string& text);
  void end();
  bool has_exited() const { return __atomic_load_n(&header_.control.gate, __ATOMIC_ACQUIRE) == Control::kExited; }
  void stop(pid_t child);

  const RunOptions& options_;
  const Compiled& compiled_;
  const Session& session_;
  SessionHeader& header_;
  std::FILE* output_;
  program::Place place_;
  program::Reader reader_;
  std::unique_ptr<program::Program> intervals_;  // the same program once more: what runs from time to time runs here
  bool is_attached_ = false, is_stopped_ = false;
  std::time_t stopped_at_ = 0;
};

program::ReaderOptions Run::reader_options() const {
  program::ReaderOptions options;
  options.format = options_.format;
  options.sources = compiled_.sources();
  options.says_warnings = options_.says_warnings;
  options.most_file_bytes = compiled_.analysis.config.max_cat_bytes;
  options.say = [](const std::string& text) { std::fputs(text.c_str(), stderr); };
  if (options_.is_unsafe) options.run_command = &run_shell;
  options.tree = {.least_ns = options_.least_ns, .says_values = options_.says_counts};
  options.source = frame_source(options_.debug_directories);
  return options;
}

void Run::print(const std::string& text) {
  if (text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), output_);
  std::fflush(output_);
}

void Run::say_attached() {
  if (is_attached_ || __atomic_load_n(&header_.state, __ATOMIC_ACQUIRE) != SessionHeader::kAttached) return;
  is_attached_ = true;
  const std::uint32_t probes = header_.attached;
  if (!options_.is_quiet && options_.format == Format::kJson) {
    print(fmt::format("{{\"type\": \"attached_probes\", \"count\": {0}, \"data\": {{\"probes\": {0}}}}}\n", probes));
  } else if (!options_.is_quiet) {
    std::fputs(fmt::format("Attached {} probe{}\n", probes, probes == 1 ? "" : "s").c_str(), stderr);
  }
  const auto is_interval = [](const language::Probe& probe) {
    return probe.event == language::Probe::Event::kInterval;
  };
  const auto& probes_of_tree = compiled_.tree.probes;
  if (!options_.checks && std::any_of(probes_of_tree.begin(), probes_of_tree.end(), is_interval))
    intervals_ = make_program();
  __atomic_store_n(&header_.is_read, 1, __ATOMIC_RELEASE);  // pairs with Session::attach()
  syscall(SYS_futex, &header_.is_read, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// The program's run is over: the command is asked to end, and after a while made to.
void Run::stop(pid_t child) {
  constexpr std::time_t kMostSeconds = 5;
  const std::time_t now = std::time(nullptr);
  if (!is_stopped_) {
    is_stopped_ = true;
    stopped_at_ = now;
    kill(child, SIGTERM);
    // A shell or the like ends, and leaves what it has started.
    const auto process = static_cast<pid_t>(__atomic_load_n(&header_.process, __ATOMIC_ACQUIRE));
    if (process != child && descends_from(process, child)) kill(process, SIGTERM);
  } else if (now - stopped_at_ > kMostSeconds) {
    kill(child, SIGKILL);
  }
}

int Run::watch(pid_t child) {
  constexpr long kAttachNs = 1'000'000, kReadNs = 20'000'000;
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) sigaddset(&signals, number);
  bool is_interrupted = false;
  std::uint64_t settled = 0;  // what happened before has been written down
  int status = 0;
  std::optional<std::uint64_t> next;  // ns until an interval's time comes
  for (;;) {
    const long longest = is_attached_ ? kReadNs : kAttachNs;
    const timespec turn{0, next && *next < static_cast<std::uint64_t>(longest) ? static_cast<long>(*next) : longest};
    const int signal = sigtimedwait(&signals, nullptr, &turn);
    if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP) {
      std::uint32_t gate = Control::kOpen;
      __atomic_compare_exchange_n(&header_.control.gate, &gate, Control::kExited, false, __ATOMIC_ACQ_REL,
                                  __ATOMIC_RELAXED);
      is_interrupted = true;
    }
    say_attached();
    if (intervals_ != nullptr) next = intervals_->run_intervals();
    const std::uint64_t now = __rdtsc();
    if (is_attached_) {  // nothing comes before that has been said
      print(reader_.events(settled));
      reader_.recycle();
      __atomic_fetch_add(&header_.control.passes, 1, __ATOMIC_RELEASE);  // pairs with the hits that wait
      syscall(SYS_futex, &header_.control.passes, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    }
    settled = now;
    if (waitpid(child, &status, WNOHANG) == child) break;
    if (has_exited()) stop(child);
  }
  say_attached();  // it may have ended meanwhile
  run_end();
  print(reader_.events());
  print(reader_.open_calls());
  end();
  if (!is_attached_) return EXIT_FAILURE;
  if (has_exited()) return is_interrupted ? 0 : static_cast<int>(header_.control.status & 0xff);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The program in this process, over the session's memory.
std::unique_ptr<program::Program> Run::make_program() {
  std::vector<program::Diagnostic> diagnostics;
  auto checked = program::check(compiled_.text, session_.inputs(), diagnostics);
  if (!checked) return nullptr;
  return program::Program::compile(std::move(checked->tree), std::move(checked->analysis), diagnostics, &session_);
}

// In place of a process that could not: it was killed, or replaced, or is one of several.
void Run::run_end() {
  const auto is_end = [](const language::Probe& probe) { return probe.event == language::Probe::Event::kEnd; };
  const auto& probes = compiled_.tree.probes;
  if (!is_attached_ || options_.checks || std::none_of(probes.begin(), probes.end(), is_end)) return;
  if (__atomic_load_n(&header_.has_ended, __ATOMIC_ACQUIRE) != 0) return;
  const auto program = make_program();
  if (program == nullptr) return;
  program->close();
  program->run(language::Probe::Event::kEnd);
}

void Run::say_not_run() const {
  const program::NotRun& why = header_.not_run;
  constexpr std::string_view kNothing = "nothing was probed";
  if (why.nearness == program::NotRun::kNothing)
    return say_error(fmt::format("{}: the command did not get so far, or libubp is not let into it", kNothing));
  const language::Position place{static_cast<int>(why.line), static_cast<int>(why.column)};
  for (const language::Item& item : compiled_.items) {
    if (item.position.line != place.line || item.position.column > place.column) continue;
    const language::Span span = item_span(item);
    if (span.end.column <= place.column) continue;
    return say(compiled_, {span, fmt::format("{}; {}", why.message, kNothing), why.hint, false});
  }
  say_error(fmt::format("{}: {}", kNothing, why.message), why.hint);
}

void Run::end() {
  if (!is_attached_) return say_not_run();
  if (options_.checks) return;
  if (compiled_.analysis.config.print_maps_on_exit)
    print((options_.format == Format::kText ? "\n\n" : "") + reader_.all_maps());
  if (!options_.functions.empty())
    print(program::function_table(compiled_.analysis, place_.maps(), options_.functions, options_.format));
  for (const program::Diagnostic& error : run_time_errors(compiled_.analysis, place_, options_.says_reads)) {
    options_.format == Format::kJson ? print(json_error(error, compiled_.sources())) : say(compiled_, error);
  }
  if (!options_.is_quiet) say_counts(compiled_, session_, options_.says_counts);
  const std::uint64_t lost = __atomic_load_n(place_.machine().lost, __ATOMIC_RELAXED);  // a number
  if (lost == 0) return;
  if (options_.format == Format::kJson) {
    print(fmt::format("{{\"type\": \"lost_events\", \"data\": {{\"events\": {}}}}}\n", lost));
  } else {
    std::fputs(fmt::format("Lost {} events\n", lost).c_str(), stderr);
  }
}

// What changes the command, or runs others, is not done unasked.
bool is_allowed(const Compiled& compiled, const RunOptions& options) {
  for (const program::Event& event : compiled.analysis.events) {
    if (event.kind != program::Event::Kind::kCommand || options.is_unsafe) continue;
    say(compiled, {event.span, "system() is an unsafe function being used in safe mode", "ubp run --unsafe"});
    return false;
  }
  for (const language::Span& span : compiled.analysis.overrides) {
    if (span.begin.line == 0 || options.is_unsafe) continue;
    say(compiled, {span, "override() is an unsafe function being used in safe mode", "ubp run --unsafe"});
    return false;
  }
  return true;
}

}  // namespace

int run(const RunOptions& options) {
  program::Inputs inputs{options.parameters, program::settings_of_environment()};
  if (!options.tree.empty()) inputs.settings.emplace_back(program::kTreeSetting, options.tree);
  if (!options.functions.empty()) inputs.settings.emplace_back(program::kFunctionsSetting, "1");
  if (options.is_net) inputs.settings.emplace_back("count_probe_time", "0");
  auto text = whole_text(options.name, options.text, options.sources);
  const auto marks_of = [&](const language::Item& item) {
    return marks_meant_by(item, find_in_path(options.command.front()));
  };
  if (text) {
    text = program::with_mark_types(options.name, std::move(*text), options.parameters, marks_of);
    std::vector<program::Diagnostic> diagnostics;
    text = with_debug_types(options.name, std::move(*text), options.parameters,
                            {{find_in_path(options.command.front())}, options.debug_directories}, diagnostics);
    for (const program::Diagnostic& diagnostic : diagnostics) say({options.name, *text}, diagnostic);
    if (!diagnostics.empty()) return EXIT_FAILURE;
  }
  const auto compiled = text ? compile(options.name, *text, inputs, options.says_warnings) : std::nullopt;
  if (!compiled) return EXIT_FAILURE;
  const program::Config::Missing missing = compiled->analysis.config.missing_probes;
  if (!check_targets(*compiled, missing, options.says_warnings, options.debug_directories)) return EXIT_FAILURE;
  if (!is_allowed(*compiled, options)) return EXIT_FAILURE;
  std::string found;
  Obstacle obstacle;
  const std::string library = library_path();
  if (library.empty()) {
    say_error("libubp.so is not beside this command, nor in ../lib");
    return kFailed;
  }
  if (!can_be_probed(options.command.front(), found, obstacle)) {
    say_error(obstacle.message, obstacle.hint);
    return obstacle.status;
  }
  if (options.is_dry) return EXIT_SUCCESS;
  const char* const full = std::getenv("UBP_FULL");
  const bool waits = full != nullptr && std::string_view(full) == "block";
  if (full != nullptr && !waits && std::string_view(full) != "drop") {
    say_error(fmt::format("UBP_FULL: '{}' is not one of drop, block", full));
    return EXIT_FAILURE;
  }
  std::FILE* output = stdout;
  if (!options.output.empty()) {
    output = std::fopen(options.output.c_str(), "we");
    if (output == nullptr) {
      say_error(fmt::format("Failed to open output file: \"{}\": {}", options.output, strerrordesc_np(errno)));
      return EXIT_FAILURE;
    }
  }
  try {
    const auto session = Session::create(options.name, *text, inputs, program::Place::bytes(compiled->analysis));
    session->header().checks = options.checks ? 1 : 0;
    session->header().follows = options.follows ? 1 : 0;
    session->header().forgives_missing = missing != program::Config::Missing::kError ? 1 : 0;
    if (waits) session->header().control.reader = static_cast<std::uint32_t>(getpid());
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, nullptr);
    const pid_t child = launch(options.command, library, session->path(), obstacle);
    if (child < 0) {
      say_error(obstacle.message, obstacle.hint);
      return obstacle.status;
    }
    const int status = Run(options, *compiled, *session, output).watch(child);
    if (output != stdout) std::fclose(output);
    return status;
  } catch (const std::system_error& error) {
    say_error(fmt::format("no memory can be shared with the command: {}", error.what()));
    return kFailed;
  }
}

}  // namespace ubp::command
