// UBP_PROBES: bare targets and programs, registered together.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <initializer_list>
#include <memory>
#include <new>
#include <utility>

#include "runtime/api/api.h"
#include "runtime/base/cancellation.h"
#include "runtime/base/executable.h"
#include "runtime/program/program.h"
#include "runtime/program/reader.h"
#include "runtime/program/sources.h"
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

// A line of the text with what it imports, as one of the file that it stands in. Returns that file, where it is
// another.
std::string place_line(std::string_view text, language::Position& position) {
  const program::Sources sources{std::string(kName), text};
  const auto [name, line] = sources.of(position.line);
  position.line = line;
  return name != kName ? std::string(name) : "";
}

Problem problem_of(const Diagnostic& diagnostic, std::string_view text) {
  Problem problem{UBP_E_SPEC, diagnostic.span.begin, 0, 0, "", "", diagnostic.message, diagnostic.hint};
  problem.end = diagnostic.span.end;
  problem.excerpt = program::excerpt(text, diagnostic.span);
  const std::string file = place_line(text, problem.position);
  problem.end.line += problem.position.line - diagnostic.span.begin.line;
  if (!file.empty()) problem.message += fmt::format(" (in {})", file);
  return problem;
}

Problem problem_of(const language::Error& error, std::string_view text) {
  if (error.end.line != 0) return problem_of(Diagnostic{{error.position, error.end}, error.message}, text);
  Problem problem{UBP_E_SPEC, error.position, 0, 0, "", "", error.message, ""};
  const std::string file = place_line(text, problem.position);
  if (!file.empty()) problem.message += fmt::format(" (in {})", file);
  return problem;
}

// The items of one block, or the bare ones, and whatever excludes some of them.
std::vector<Item> items_of(const std::vector<Item>& all, std::uint32_t probe) {
  std::vector<Item> items;
  for (const Item& item : all) {
    if (item.probe == probe || (item.exclude && !items.empty())) items.push_back(item);
  }
  return items;
}

// "uprobe:libc:malloc", with the module as it was typed.
program::PointName name_of(const NamedPoint& point, const Item& item) {
  program::PointName name{point.point, {}, {}};
  const std::string probe = fmt::format("{}:{}:{}", language::kind_name(item.kind),
                                        item.module.empty() ? point.module : item.module, point.symbol);
  probe.copy(name.probe, sizeof name.probe - 1);
  point.symbol.copy(name.function, sizeof name.function - 1);
  return name;
}

Request request_of(Program* program, std::uint32_t probe, const std::vector<Item>& items, std::uint32_t flags) {
  Request request;
  request.forgives_missing = (flags & UBP_PROBE_IGNORE_MISSING) != 0;
  request.is_environment = true;
  if (probe == language::kBare) return request;
  request.action = {ActionKind::kCall, program->function(probe), program, {}};
  request.action.needs.reads = program->reads_registers(probe);
  if (program->analysis().uses_names) {
    request.name_points = [program, items](const std::vector<NamedPoint>& points) {
      std::vector<program::PointName> names;
      names.reserve(points.size());
      for (const NamedPoint& point : points) names.push_back(name_of(point, items[point.item]));
      program->add_names(std::move(names));
    };
  }
  return request;
}

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

// How many probes a registration has.
std::uint64_t probes_of(std::uint64_t id) {
  ubp_probe_stats stats{};
  interface().registry.read(id, stats);
  return stats.probes;
}

// Whether anything is there that this process can be probed for. Of a session.
bool has_what_is_meant(const std::vector<Item>& items, const std::vector<Operation>& operations) {
  std::uint64_t found = 0;
  for (const Operation& operation : operations) found += probes_of(operation.id);
  return found != 0 || std::all_of(items.begin(), items.end(), [](const Item& item) { return item.exclude; }) ||
         std::any_of(items.begin(), items.end(), [](const Item& item) { return item.pending; });
}

// Registers everything, armed after begin has run. Under the ApiLock.
void register_all(std::vector<Item> items, Program* program, std::uint32_t flags, Registered& registered) {
  Registry& registry = interface().registry;
  if ((flags & UBP_PROBE_PENDING) != 0) {
    for (Item& item : items) item.pending = !item.exclude;
  }
  if (g_session != nullptr) {
    if (g_session->header().forgives_missing != 0) flags |= UBP_PROBE_IGNORE_MISSING;
    for (Item& item : items) item.awaited = may_come_later(item);
    if (is_passed_over(items)) {
      registered.status = UBP_E_NOT_FOUND;
      registered.problems.push_back(not_found(fmt::format("{} executes no other program", executable_link())));
      return;
    }
  }
  std::vector<std::uint32_t> groups;  // in the order of their first items
  for (const Item& item : items) {
    const bool is_known = std::find(groups.begin(), groups.end(), item.probe) != groups.end();
    if (!is_known && !item.exclude) groups.push_back(item.probe);
  }
  if (groups.empty() && !items.empty()) groups.push_back(language::kBare);  // exclusions alone
  if (groups.size() > 1 && registry.config().probepoints == 0) {
    ProbepointsConfig config = registry.config();  // the first group is not all that the table is to hold
    config.probepoints = std::uint32_t{1} << 20;
    registry.configure(config);
  }
  report::Progress progress;
  std::vector<Operation> operations;
  for (const std::uint32_t group : groups) {
    std::vector<Item> its = items_of(items, group);
    const Request request = request_of(program, group, its, flags);
    Problem problem;
    const auto show = [&](std::size_t found) { progress.show(fmt::format("{} probes found", found)); };
    const auto id = registry.prepare(std::move(its), std::nullopt, request, show, problem);
    if (!id) {
      registered.status = problem.status;
      registered.problems.push_back(std::move(problem));
      break;
    }
    operations.push_back({Operation::kRegister, *id});
  }
  progress.clear();
  if (g_session != nullptr && registered.status == UBP_OK && !has_what_is_meant(items, operations)) {
    registered.status = UBP_E_NOT_FOUND;
    registered.problems.push_back(not_found(fmt::format("{}{}' is loaded", plan::kNoModule, items.front().module)));
    registered.problems.back().position = items.front().position;
  }
  const bool is_its = g_session == nullptr || registered.status != UBP_OK || g_session->claim();
  const bool is_more = !is_its && g_session->header().follows != 0;  // begin has run in another process
  const bool is_check = g_session != nullptr && g_session->header().checks != 0;
  if (registered.status == UBP_OK && program != nullptr && is_its && !is_check)
    program->run(language::Probe::Event::kBegin);
  const bool is_over = program != nullptr && program->is_closed();  // begin has called exit()
  if (is_over && is_its) program->run(language::Probe::Event::kEnd);
  if (registered.status != UBP_OK || is_over || (!is_its && !is_more)) {
    for (Operation& operation : operations) operation.kind = Operation::kUnregister;
    registry.apply(operations);  // nothing of them is armed
    return;
  }
  if (auto denied = registry.apply(operations)) {
    registered.status = UBP_E_SYSTEM;
    registered.problems.push_back({UBP_E_SYSTEM, {0, 0}, 0, 0, "", "", std::move(*denied), ""});
    return;
  }
  for (const Operation& operation : operations) registered.probes.push_back(reinterpret_cast<ubp_probe*>(operation.id));
}

// Tells the session's reader how many probes are attached. Under the ApiLock.
void tell_session(const Program* program, const Registered& registered) {
  if (!has_session()) return;
  std::uint32_t probes = 0;
  for (ubp_probe* const probe : registered.probes)
    probes += static_cast<std::uint32_t>(probes_of(reinterpret_cast<std::uint64_t>(probe)));
  if (program != nullptr) {
    for (const language::Probe& probe : program->tree().probes) probes += probe.event != language::Probe::Event::kItems;
  }
  g_session->attach(probes);
}

void read_and_register(std::string_view own, std::uint32_t flags, Registered& registered) {
  language::Program tree;
  std::vector<Diagnostic> missing;  // of what it imports; a session's has it already
  const std::string spec = g_session != nullptr ? std::string(own) : program::with_sources(kName, own, {}, missing);
  if (!missing.empty()) {
    registered.status = UBP_E_SPEC;
    for (const Diagnostic& diagnostic : missing) registered.problems.push_back(problem_of(diagnostic, spec));
    return;
  }
  const program::Inputs inputs =
      g_session != nullptr ? g_session->inputs() : program::Inputs{{}, program::settings_of_environment()};
  auto parsed = language::parse(spec, language::kMaxItems, &tree, inputs.parameters);
  const auto fail = [&](ubp_status status, Problem problem) {
    registered.status = status;
    registered.problems.push_back(std::move(problem));
  };
  if (const auto* error = std::get_if<language::Error>(&parsed)) return fail(UBP_E_SPEC, problem_of(*error, spec));
  auto& items = std::get<std::vector<Item>>(parsed);
  for (Item& item : items) {
    if (g_session == nullptr) place_line(spec, item.position);
  }
  if (items.empty() && tree.probes.empty()) {
    return fail(UBP_E_SPEC,
                {UBP_E_SPEC, {1, 1}, 0, 0, "", "", "no probe given; nothing is probed", "try 'libc:malloc'"});
  }
  auto loaded = std::make_unique<LoadedProgram>();
  loaded->text = spec;
  if (!tree.probes.empty()) {
    std::vector<Diagnostic> diagnostics;
    loaded->program = Program::compile(std::move(tree), diagnostics, g_session, inputs);
    for (const Diagnostic& diagnostic : diagnostics)
      (diagnostic.is_warning ? registered.warnings : registered.problems).push_back(problem_of(diagnostic, spec));
    if (loaded->program == nullptr) {
      registered.status = UBP_E_SPEC;
      return;
    }
  }
  const ApiLock lock;
  registered.status = lock.status();
  if (lock.status() != UBP_OK) return;
  registered.counts =
      std::any_of(items.begin(), items.end(), [](const Item& item) { return item.probe == language::kBare; });
  register_all(std::move(items), loaded->program.get(), flags, registered);
  if (registered.status == UBP_OK) tell_session(loaded->program.get(), registered);
  if (registered.status == UBP_OK && loaded->program != nullptr) g_loaded_program = loaded.release();
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
                                    : lacks_module(problem.message)   ? NotRun::kNoModule
                                                                      : NotRun::kNoFunction;
  g_session->note(nearness, static_cast<std::uint32_t>(problem.position.line),
                  static_cast<std::uint32_t>(problem.position.column), problem.message, problem.hint);
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
    problems.push_back(problem_of(diagnostic, g_loaded_program->text));
  return problems;
}

}  // namespace ubp::runtime
