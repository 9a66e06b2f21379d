// UBP_PROBES: bare targets and programs, registered together.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>
#include <variant>

#include "runtime/api/api.h"
#include "runtime/api/calls.h"
#include "runtime/api/debug_types.h"
#include "runtime/api/programs.h"
#include "runtime/api/stacks.h"
#include "runtime/arm/process_memory.h"
#include "runtime/base/cancellation.h"
#include "runtime/base/executable.h"
#include "runtime/output/reader.h"
#include "runtime/program/program.h"
#include "runtime/report/report.h"

namespace ubp::runtime {
namespace {

using language::Item;
using program::Diagnostic;
using program::Program;

// The environment's program, and its text. Never destroyed: hits run it to the very end.
struct LoadedProgram {
  std::string text;
  std::unique_ptr<Program> program;
};
LoadedProgram* g_loaded_program = nullptr;
program::Session* g_session = nullptr;  // of `ubp run`; never closed

constexpr std::string_view kName = "UBP_PROBES";

// A library may be loaded later, where a program is there from the beginning.
bool may_come_later(const Item& item) {
  const std::string_view name = std::string_view(item.module).substr(item.module.rfind('/') + 1);
  return !item.exclude && (name.starts_with("lib") || name.find(".so") != std::string_view::npos);
}

// Whether the process's executable is called so.
bool is_called_one_of(std::initializer_list<std::string_view> names) {
  const std::string path = executable_link();
  return std::find(names.begin(), names.end(), std::string_view(path).substr(path.rfind('/') + 1)) != names.end();
}

// Programs that are there to execute another one.
bool is_wrapper() {
  return is_called_one_of({"chrt", "env", "ionice", "nice", "nohup", "prlimit", "setarch", "setsid", "stdbuf",
                           "taskset", "timeout", "unshare"});
}
// What all processes have, such as libc, is meant in the one that is executed.
bool is_passed_over(const std::vector<Item>& items) {
  const auto may_be_any = [](const Item& item) { return item.exclude || may_come_later(item); };
  return std::all_of(items.begin(), items.end(), may_be_any) && is_wrapper();
}

Problem not_found(std::string message) { return {UBP_E_NOT_FOUND, {0, 0}, 0, 0, "", "", std::move(message), ""}; }

// Whether anything is there that this process can be probed for. Of a session.
bool has_what_is_meant(const std::vector<Item>& items, const std::vector<Operation>& operations) {
  std::size_t found = 0;
  for (const Operation& operation : operations) found += interface().registry.attached(operation.id);
  return found != 0 || std::all_of(items.begin(), items.end(), [](const Item& item) { return item.exclude; }) ||
         std::any_of(items.begin(), items.end(), [](const Item& item) { return item.pending; });
}

// Fits the items to a session. False: they are meant for another process.
bool suit_session(std::vector<Item>& items, Request& request) {
  request.forgives_missing |= g_session->header().forgives_missing != 0;
  for (Item& item : items) item.awaited = may_come_later(item);
  return !is_passed_over(items);
}

// From here on the session's reader sees what this process counts, whatever becomes of it.
void count_in_session() {
  const trap::Tasks& tasks = trap::g_process.tasks;
  if (g_session == nullptr || tasks.counters == nullptr) return;
  g_session->count_here(tasks.blocks, tasks.counter_bytes, tasks.counted, &share_counters);
}

void write_session_runs() {
  if (g_session == nullptr) return;
  using program::CountedRun;
  static_assert(CountedItem::kAction + 0 == CountedRun::kAction + 0 &&
                CountedItem::kMissed + 0 == CountedRun::kMissed + 0);
  std::vector<CountedRun> runs;
  for (const CountedItem& item : interface().registry.counted_items()) {
    runs.push_back({static_cast<std::uint32_t>(item.position.line), static_cast<std::uint32_t>(item.position.column),
                    item.is_bare ? 1U : 0U, item.kind, item.first, item.count});
  }
  g_session->write_runs(runs);
}

// Runs begin, where that is for this process. Returns whether its probes are to be armed.
bool begin(Program* program) {
  using Event = language::Probe::Event;
  const bool is_its = g_session == nullptr || g_session->claim();
  const bool is_more = !is_its && g_session->header().follows != 0;  // begin has run in another process
  const bool is_check = g_session != nullptr && g_session->header().checks != 0;
  if (program != nullptr && is_its && !is_check) program->run(Event::kBegin);
  const bool is_over = program != nullptr && program->is_closed();  // begin has called exit()
  if (is_over && is_its) program->run(Event::kEnd);
  const bool goes = !is_over && (is_its || is_more);
  if (goes && !is_check) count_in_session();
  return goes;
}

// A function that is not found may be there all the same, in others.
void say_if_inlined(const std::vector<Item>& items, Problem& problem) {
  if (problem.status != UBP_E_NOT_FOUND || problem.lacks_module) return;
  for (const Item& item : items) {
    const auto* const symbol = std::get_if<language::SymbolTarget>(&item.target);
    const language::Position &its = item.target_position, &wrong = problem.position;
    if (symbol == nullptr || its.line != wrong.line || its.column != wrong.column) continue;
    const std::size_t count = !symbol->quoted && language::is_glob(symbol->pattern) ? 0 : inlined_instances(item);
    if (count == 0) continue;
    problem.message =
        fmt::format("'{}' is inlined only ({} instance{})", symbol->pattern, count, count == 1 ? "" : "s");
    problem.hint = fmt::format("use inline:{}{}{}", item.module, item.module.empty() ? "" : ":", symbol->pattern);
  }
}

// Registers everything, armed after begin has run. Under the ApiLock.
void register_all(std::vector<Item> items, Program* program, std::uint32_t flags, Registered& registered) {
  const auto fail = [&](Problem problem) {
    registered.status = problem.status;
    registered.problems.push_back(std::move(problem));
  };
  Registry& registry = interface().registry;
  if ((flags & UBP_PROBE_PENDING) != 0) {
    for (Item& item : items) item.pending = !item.exclude;
  }
  Request request;
  request.forgives_missing = (flags & UBP_PROBE_IGNORE_MISSING) != 0;
  request.is_environment = true;
  if (g_session != nullptr && !suit_session(items, request))
    return fail(not_found(fmt::format("{} executes no other program", executable_link())));
  report::Progress progress;
  const auto show = [&](std::size_t found) { progress.show(fmt::format("{} probes found", found)); };
  Problem problem;
  const auto ids = prepare(items, program, request, false, std::nullopt, show, problem);
  progress.clear();
  if (!ids) {
    say_if_inlined(items, problem);
    return fail(std::move(problem));
  }
  std::vector<Operation> operations;
  for (const std::uint64_t id : *ids) operations.push_back({Operation::kRegister, id});
  const bool is_meant = g_session == nullptr || has_what_is_meant(items, operations);
  if (!is_meant || !begin(program)) {
    for (Operation& operation : operations) operation.kind = Operation::kUnregister;
    registry.apply(operations);  // nothing of them is armed
    if (is_meant) return;
    Problem absent = not_found(fmt::format("no module '{}' is loaded", items.front().module));
    absent.lacks_module = true;
    absent.position = items.front().position;
    return fail(std::move(absent));
  }
  if (program != nullptr) follow_modules(*program);
  if (auto denied = registry.apply(operations))
    return fail({UBP_E_SYSTEM, {0, 0}, 0, 0, "", "", std::move(*denied), ""});
  for (const std::uint64_t id : *ids) registered.probes.push_back(handle_of(id));
}

// Tells the session's reader how many probes are attached. Under the ApiLock.
void tell_session(const Program* program, const Registered& registered) {
  if (!has_session()) return;
  std::uint32_t probes = 0;
  for (ubp_probe* const probe : registered.probes)
    probes += static_cast<std::uint32_t>(interface().registry.attached(id_of(probe)));
  if (program != nullptr) {
    for (const language::Probe& probe : program->tree().probes) probes += probe.event != language::Probe::Event::kItems;
  }
  g_session->attach(probes);
}

void read_and_register(std::string_view spec, std::uint32_t flags, Registered& registered) {
  const program::Inputs inputs =
      g_session != nullptr ? g_session->inputs() : program::Inputs{{}, program::settings_of_environment()};
  ReadText read = read_text(kName, spec, inputs, g_session);
  for (const Diagnostic& diagnostic : read.diagnostics)
    (diagnostic.is_warning ? registered.warnings : registered.problems)
        .push_back(problem_of(diagnostic, kName, read.text));
  if (!read.is_good) {
    registered.status = UBP_E_SPEC;
    return;
  }
  if (read.program != nullptr && g_session == nullptr) {
    const auto missing = read.program->analysis().config.missing_probes;
    if (missing != program::Config::Missing::kError) flags |= UBP_PROBE_IGNORE_MISSING;
    registered.says_missing = missing == program::Config::Missing::kWarn;
  }
  std::unique_ptr<LoadedProgram> loaded(new LoadedProgram{std::move(read.text), std::move(read.program)});
  const ApiLock lock;
  registered.status = lock.status();
  if (lock.status() != UBP_OK) return;
  registered.counts =
      std::any_of(read.items.begin(), read.items.end(), [](const Item& item) { return item.probe == language::kBare; });
  register_all(std::move(read.items), loaded->program.get(), flags, registered);
  if (registered.status == UBP_OK) {
    write_session_runs();
    interface().registry.when_more_is_counted(&write_session_runs);
    tell_session(loaded->program.get(), registered);
  }
  if (registered.status == UBP_OK && loaded->program != nullptr) g_loaded_program = loaded.release();
  loaded.reset();  // under the lock
}

}  // namespace

Registered register_environment(std::string_view spec, std::uint32_t flags) {
  const SignalsHeld quiet;
  const Uncancelled uncancelled;
  Registered registered;
  try {
    read_and_register(spec, flags, registered);
  } catch (const std::bad_alloc&) {
    registered.status = UBP_E_NO_MEMORY;
  } catch (const std::exception& error) {
    registered.status = UBP_E_SYSTEM;
    registered.problems.push_back({UBP_E_SYSTEM, {0, 0}, 0, 0, "", "", error.what(), ""});
  }
  return registered;
}

std::optional<SessionTexts> join_session(const char* path) {
  auto session = program::Session::open(path);
  if (session == nullptr) return std::nullopt;
  const program::SessionHeader& header = session->header();
  const bool follows = header.follows != 0;
  if (__atomic_load_n(&header.process, __ATOMIC_ACQUIRE) != 0 && !follows) return std::nullopt;
  const std::vector<std::string_view> texts = session->texts();
  SessionTexts joined{std::string(texts[0]), std::string(texts[1]), follows, header.checks != 0};
  g_session = session.release();
  return joined;
}

bool has_session() {
  return g_session != nullptr && g_session->header().process == static_cast<std::uint32_t>(getpid());
}

bool executes_others() {
  return is_wrapper() || is_called_one_of({"bash", "busybox", "dash", "ksh", "sh", "xargs", "zsh"});
}

void note_not_run(const Problem& problem) {
  using program::NotRun;
  const NotRun::Nearness nearness = problem.status != UBP_E_NOT_FOUND ? NotRun::kRefused
                                    : problem.lacks_module            ? NotRun::kNoModule
                                                                      : NotRun::kNoFunction;
  g_session->note(nearness, static_cast<std::uint32_t>(problem.position.line),
                  static_cast<std::uint32_t>(problem.position.column), problem.message, problem.hint);
}

void note_report() {
  if (g_session != nullptr) g_session->note_report();
}

std::string program_output(bool is_end) {
  if (g_loaded_program == nullptr) return "";
  Program& program = *g_loaded_program->program;
  if (g_session != nullptr) {  // the reader prints it, and end is for the process that began, unless others go on
    const program::SessionHeader& header = g_session->header();
    is_end &= header.follows == 0 && has_session();
  }
  if (is_end) {
    program.close();
    program.run(language::Probe::Event::kEnd);
  }
  return g_session == nullptr ? program.printed() + program.maps() : "";
}

std::vector<Problem> program_errors() {
  std::vector<Problem> problems;
  if (g_loaded_program == nullptr || g_session != nullptr) return problems;
  const Program& program = *g_loaded_program->program;
  for (const Diagnostic& diagnostic : run_time_errors(program.analysis(), program.place(), false))
    problems.push_back(problem_of(diagnostic, kName, g_loaded_program->text));
  return problems;
}

}  // namespace ubp::runtime
