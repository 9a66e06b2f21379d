// See programs.h.
#include "runtime/api/programs.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "runtime/analysis/checked.h"
#include "runtime/analysis/mark_types.h"
#include "runtime/api/argument_rows.h"
#include "runtime/api/debug_types.h"
#include "runtime/api/stacks.h"
#include "runtime/plan/plan.h"
#include "runtime/report/report.h"

namespace ubp::runtime {
namespace {

using language::Item;
using program::Diagnostic;
using program::Program;

program::ReaderOptions reader_options(const program::Sources& sources, const Program& program) {
  program::ReaderOptions options;
  options.sources = sources;
  options.most_file_bytes = program.analysis().config.max_cat_bytes;
  return options;
}

// A line of the text with what it imports, as one of the file that it stands in. Returns that file, where it is
// another.
std::string place_line(const program::Sources& sources, language::Position& position) {
  const auto [name, line] = sources.of(position.line);
  position.line = line;
  return name != sources.name() ? std::string(name) : "";
}

// By their handles. Never destroyed: hits run them to the very end.
std::map<std::uint64_t, std::unique_ptr<OwnProgram>>& programs() {
  static auto& all = *new std::map<std::uint64_t, std::unique_ptr<OwnProgram>>;
  return all;
}

// The further registrations of handles.
std::map<std::uint64_t, std::vector<std::uint64_t>>& others() {
  static auto& all = *new std::map<std::uint64_t, std::vector<std::uint64_t>>;
  return all;
}

// How the hits of a registration come about.
enum class Way : std::uint8_t { kHits, kReturns, kCalls };
Way way_of(const Item& item) {
  if (item.kind == language::Kind::kCall) return Way::kCalls;
  return item.kind == language::Kind::kReturn ? Way::kReturns : Way::kHits;
}

// What is one registration: the bare items of one way, or an attach point of a block, and whatever excludes some of
// them. So a block of two attach points at one address runs twice.
struct Group {
  std::uint32_t probe;
  Way way = Way::kHits;
  std::vector<Item> items{};
};

std::vector<Group> groups_of(const std::vector<Item>& all, bool has_bare) {
  const auto is_bare = [&](const Item& item) { return item.probe == language::kBare; };  // exclusions are, too
  std::vector<Group> groups;  // in the order of their first items
  const auto add_bare = [&](Way way) {
    const bool is_there = std::any_of(groups.begin(), groups.end(), [&](const Group& group) {
      return group.probe == language::kBare && group.way == way;
    });
    if (is_there) return;
    groups.push_back({language::kBare, way});
    std::copy_if(all.begin(), all.end(), std::back_inserter(groups.back().items),
                 [&](const Item& item) { return is_bare(item) && (item.exclude || way_of(item) == way); });
  };
  if (has_bare) {
    const auto first =
        std::find_if(all.begin(), all.end(), [&](const Item& item) { return is_bare(item) && !item.exclude; });
    add_bare(first != all.end() ? way_of(*first) : Way::kHits);
  }
  for (const Item& item : all) {
    if (item.exclude) {
      for (Group& group : groups) {
        if (group.probe != language::kBare) group.items.push_back(item);
      }
    } else if (!is_bare(item)) {
      groups.push_back({item.probe, way_of(item), {item}});
    } else {
      add_bare(way_of(item));
    }
  }
  if (groups.empty() && !all.empty()) add_bare(Way::kHits);  // exclusions alone
  return groups;
}

// "uprobe:libc:malloc", with the module as it was typed. A static mark's has that, and where its arguments are.
program::Program::NewName name_of(const NamedPoint& point, const Item& item) {
  program::Program::NewName its{{point.point, point.action, {}, {}}, point.arguments};
  its.count = static_cast<std::uint32_t>(point.arguments.size());
  program::PointName& name = its.name;
  name.module_bias = point.its->bias;
  const bool is_spelt = !item.module.empty() && (point.mark.empty() || !language::is_glob(item.module));
  const std::string probe =
      fmt::format("{}:{}:{}", language::kind_name(item.kind), is_spelt ? item.module : point.module,
                  point.mark.empty() ? point.symbol : point.mark);
  probe.copy(name.probe, sizeof name.probe - 1);
  point.symbol.copy(name.function, sizeof name.function - 1);
  return its;
}

Request request_of(Program* program, const Group& group, const Request& bare,
                   const std::shared_ptr<const ArgumentRows>& rows, const KeptCalls& kept) {
  const std::uint32_t probe = group.probe;
  const std::vector<Item>& items = group.items;
  const bool keeps = group.way == Way::kCalls && program != nullptr && program->analysis().keeps_calls;
  if (probe == language::kBare) {
    Request request = bare;
    request.wants_returns = group.way != Way::kHits;
    if (keeps) request.family = program;
    request.keeps_calls = request.keeps_arguments = group.way == Way::kCalls && bare.action.kind == ActionKind::kCall;
    request.is_net &= request.keeps_calls;
    return request;
  }
  Request request;
  request.wants_returns = group.way != Way::kHits;
  if (keeps) request.family = program;
  request.keeps_arguments = keeps && program->analysis().keeps_arguments[probe];
  request.is_net = keeps && !program->analysis().config.count_probe_time;
  if (keeps) request.entered = program->entered(probe);
  request.entered_data = program->entered_data();
  request.forgives_missing = bare.forgives_missing;
  request.is_environment = bare.is_environment;
  request.action = {ActionKind::kCall, program->function(probe), program, {}};
  request.action.needs.reads = program->reads_registers(probe);
  request.action.needs.xmm = rows->has_vectors();  // so detours save them
  request.action.needs.overrides = program->overrides(probe);
  // The code of detours is kept for the next ones, and has to outlive no program but the environment's.
  if (bare.is_environment && group.way == Way::kHits) request.action.needs.shortcut = program->shortcut(probe);
  request.mark_arguments = program->analysis().mark_arguments[probe];
  const std::string& symbol_file = program->analysis().symbol_files[probe];
  if (rows->is_wanted() || !symbol_file.empty()) {
    request.refuse = [rows, kept, symbol_file](const symbols::Module& module,
                                               std::uint64_t address) -> std::optional<std::string> {
      if (!symbol_file.empty() && row_build_id(module.build_id) != symbol_file)
        return "the symbols that uaddr() names are another file's";
      if (!rows->is_wanted()) return std::nullopt;
      auto problem = rows->problem(module, address);
      return problem ? problem : kept.problem_of(module.build_id, rows->entries_at(module.build_id, address));
    };
  }
  if (program->needs_names(probe)) {
    request.name_points = [program, items, rows, kept](const std::vector<NamedPoint>& points) {
      std::vector<Program::NewName> names;
      names.reserve(points.size());
      for (const NamedPoint& point : points) {
        names.push_back(name_of(point, items[point.item]));
        if (!rows->is_wanted()) continue;
        rows->put(point, names.back());
        if (kept.id) names.back().name.entries = interface().registry.owner_of_calls(*kept.id);
      }
      program->add_names(std::move(names));
    };
  }
  return request;
}

// What a program that is gone leaves to say.
void say_rest(OwnProgram& own) {
  report::error_stream().write(own.reader.events());
  report::error_stream().write(own.reader.open_calls());
  for (const Diagnostic& error : run_time_errors(own.program->analysis(), own.program->place(), false))
    say(report::Level::kWarning, fmt::format("{}: {}", own.sources.place(error.span), error.message));
}

}  // namespace

ReadText read_text(std::string_view name, std::string_view own, const program::Inputs& inputs,
                   const program::Session* session) {
  ReadText read;
  std::vector<Diagnostic>& diagnostics = read.diagnostics;
  read.text = session != nullptr ? std::string(own) : program::with_sources(name, own, {}, diagnostics);
  if (!diagnostics.empty()) return read;
  if (session == nullptr)
    read.text = program::with_mark_types(name, std::move(read.text), inputs.parameters, plan::marks_meant_by);
  if (session == nullptr) read.text = with_debug_types(name, std::move(read.text), inputs.parameters, diagnostics);
  if (!diagnostics.empty()) return read;
  auto checked = program::check(read.text, inputs, diagnostics);
  if (!checked) return read;
  if (checked->is_empty()) {
    diagnostics = {{{{1, 1}, {0, 0}}, "no probe given; nothing is probed", "try 'libc:malloc'"}};
    return read;
  }
  read.items = std::move(checked->items);
  if (session == nullptr && read.text != own) {
    const program::Sources sources{std::string(name), read.text};
    for (Item& item : read.items) {
      place_line(sources, item.position);
      place_line(sources, item.target_position);
    }
  }
  read.is_good = true;
  if (checked->tree.probes.empty()) return read;
  read.program = Program::compile(std::move(checked->tree), std::move(checked->analysis), diagnostics, session);
  read.is_good = read.program != nullptr;
  return read;
}

Problem problem_of(const Diagnostic& diagnostic, std::string_view name, std::string_view text) {
  Problem problem{UBP_E_SPEC, diagnostic.span.begin, 0, 0, "", "", diagnostic.message, diagnostic.hint};
  const std::string file = place_line({std::string(name), text}, problem.position);
  if (!file.empty()) problem.message += fmt::format(" (in {})", file);
  if (diagnostic.span.end.line == 0) return problem;
  problem.end = diagnostic.span.end;
  problem.end.line += problem.position.line - diagnostic.span.begin.line;
  problem.excerpt = program::excerpt(text, diagnostic.span);
  return problem;
}

OwnProgram::OwnProgram(std::string_view text, std::unique_ptr<Program> its_program)
    : sources(kTextName, text),
      program(std::move(its_program)),
      reader(program->analysis(), program->place().maps(), program->place().machine(),
             reader_options(sources, *program)) {}

std::optional<std::vector<std::uint64_t>> prepare(const std::vector<Item>& items, Program* program, const Request& bare,
                                                  bool has_bare, std::optional<std::uint32_t> module,
                                                  const std::function<void(std::size_t)>& progress, Problem& problem) {
  Registry& registry = interface().registry;
  std::vector<Group> groups = groups_of(items, has_bare);
  if (groups.size() > 1) registry.make_room_for(items, module);
  std::vector<std::uint64_t> ids;
  std::vector<std::uint32_t> left, excluded;  // blocks that have something to run at; that an attach point lost
  bool is_good = true;
  for (Group& group : groups) {
    std::shared_ptr<const ArgumentRows> rows;
    KeptCalls kept;
    if (group.probe != language::kBare) {
      rows = std::make_shared<const ArgumentRows>(*program, group.probe, group.way == Way::kCalls);
      kept = prepare_kept_calls(rows->entries(), group.items, module, bare.is_environment);
    }
    Request request = request_of(program, group, bare, rows, kept);
    if (has_bare && !ids.empty()) request.handle = ids.front();
    const auto id = registry.prepare(std::move(group.items), module, request, progress, problem);
    if (kept.id && id) ids.push_back(*kept.id);
    if (kept.id && !id) registry.apply({{{Operation::kUnregister, *kept.id}}});
    is_good &= id || (problem.is_excluded && (group.probe != language::kBare || group.way != Way::kHits));
    if (!is_good) break;
    if (id) ids.push_back(*id);
    (id ? left : excluded).push_back(group.probe);
  }
  for (const std::uint32_t probe : excluded) is_good &= std::find(left.begin(), left.end(), probe) != left.end();
  if (is_good) return ids;
  std::vector<Operation> operations;
  operations.reserve(ids.size());
  for (const std::uint64_t prepared : ids) operations.push_back({Operation::kUnregister, prepared});
  registry.apply(operations);  // nothing of them is armed
  return std::nullopt;
}

void keep(std::uint64_t id, std::unique_ptr<OwnProgram> own) { programs().insert_or_assign(id, std::move(own)); }

OwnProgram* program_of(std::uint64_t id) {
  const auto found = programs().find(id);
  return found != programs().end() ? found->second.get() : nullptr;
}

void keep_others(std::uint64_t id, std::vector<std::uint64_t> ids) {
  if (!ids.empty()) others().insert_or_assign(id, std::move(ids));
}

std::vector<std::uint64_t> registrations_of(std::uint64_t id) {
  std::vector<std::uint64_t> ids{id};
  if (const auto found = others().find(id); found != others().end())
    ids.insert(ids.end(), found->second.begin(), found->second.end());
  return ids;
}

std::optional<std::string> apply(std::span<const Operation> operations) {
  Registry& registry = interface().registry;
  const auto goes = [&](std::uint64_t id) {
    return std::any_of(operations.begin(), operations.end(), [&](const Operation& operation) {
      return operation.kind == Operation::kUnregister && operation.id == id;
    });
  };
  for (const Operation& operation : operations) {
    OwnProgram* const own = operation.kind == Operation::kRegister ? program_of(operation.id) : nullptr;
    if (own == nullptr || goes(operation.id)) continue;
    own->has_begun = true;
    follow_modules(*own->program);
    own->program->run(language::Probe::Event::kBegin);
  }
  auto denied = registry.apply(operations);
  std::erase_if(others(), [&](const auto& entry) { return !registry.is_known(entry.first); });
  for (auto entry = programs().begin(); entry != programs().end();) {
    OwnProgram& own = *entry->second;
    if (registry.is_known(entry->first)) {
      ++entry;
      continue;
    }
    if (own.has_begun && !denied) {
      own.program->close();
      own.program->run(language::Probe::Event::kEnd);
      say_rest(own);
    }
    entry = programs().erase(entry);
  }
  return denied;
}

void set_up_programs_in_child() {
  for (auto& [id, own] : programs()) own->reader.restart();
}

}  // namespace ubp::runtime
