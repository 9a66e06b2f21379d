// See argument_rows.h.
#include "runtime/api/argument_rows.h"

#include <algorithm>

#include "runtime/analysis/mark_types.h"
#include "runtime/api/api_lock.h"

namespace ubp::runtime {

std::string row_build_id(const std::string& build_id) { return build_id.empty() ? "-" : build_id; }

namespace {

bool is_in_vector(const program::ArgumentPlace& argument) {
  const auto is_it = [](const symbols::ValuePlace& place) {
    return place.kind == symbols::ValuePlace::Kind::kRegister &&
           std::max(place.base, place.index) >= symbols::kFirstVector;
  };
  return is_it(argument.place) || std::any_of(argument.pieces.begin(), argument.pieces.end(), is_it);
}

}  // namespace

ArgumentRows::ArgumentRows(const program::Program& program, std::uint32_t probe, bool are_calls)
    : wanted_(program.analysis().named_arguments[probe]), are_calls_(are_calls) {
  if (wanted_ == 0) return;
  std::size_t number = 0;
  for (const std::string& name : {program::variables_name(probe), program::arguments_name(probe)}) {
    const program::Type type = program.analysis().types->named(name);
    if (type.layout == nullptr) continue;
    for (const program::Member& member : type.layout->members) {
      if (number < 64 && program::is_read_in_place(member.type)) in_place_ |= std::uint64_t{1} << number;
      ++number;
    }
  }
  for (const language::PlaceRow& row : program.tree().definitions.places) {
    if (row.probe != probe) continue;
    std::vector<program::ArgumentPlace>& its = rows_[{row.build_id, row.address}];
    for (const std::string& text : row.places)
      its.push_back(program::place_of_text(text).value_or(program::ArgumentPlace{{}, "is not known"}));
  }
}

std::optional<std::string> ArgumentRows::problem(const symbols::Module& module, std::uint64_t address) const {
  const auto found = find(module.build_id, address);
  if (found == rows_.end()) return "no debug information says where arguments are here, or it is of another file";
  for (std::size_t i = 0; i < 64; ++i) {
    if ((wanted_ >> i & 1) == 0) continue;
    if (i >= found->second.size()) return "there are not so many";
    const program::ArgumentPlace& its = found->second[i];
    if (!its.problem.empty()) return its.problem;
    if (are_calls_ && is_in_vector(its)) return "it is in a vector register, and call: keeps general ones";
    const bool is_threads = std::any_of(its.steps.begin(), its.steps.end(), [](const symbols::PlaceStep& step) {
      return step.code == symbols::PlaceStep::Code::kThread;
    });
    if (is_threads && !module.thread_storage)
      return "each thread has its own, and those of a library that was loaded later lie elsewhere in each";
    if ((in_place_ >> i & 1) != 0 && !its.place.is_memory()) return "it is too large for where it is";
  }
  return std::nullopt;
}

bool ArgumentRows::has_vectors() const {
  return std::any_of(rows_.begin(), rows_.end(), [&](const auto& entry) {
    const Row& row = entry.second;
    for (std::size_t i = 0; i < row.size() && i < 64; ++i) {
      if ((wanted_ >> i & 1) != 0 && is_in_vector(row[i])) return true;
    }
    return false;
  });
}

void ArgumentRows::put(const NamedPoint& point, program::Program::NewName& name) const {
  const auto found = find(point.its->build_id, point.address);
  name.arguments.clear();
  name.count = 0;
  if (found == rows_.end()) return;
  const std::vector<program::ArgumentPlace>& all = found->second;
  name.count = static_cast<std::uint32_t>(all.size());
  std::vector<symbols::ValuePlace> pieces;
  for (const program::ArgumentPlace& argument : all) {
    const auto first_step = static_cast<std::uint32_t>(name.steps.size());
    const auto first_piece = static_cast<std::uint32_t>(all.size() + pieces.size());
    const auto moved = [&](const symbols::ValuePlace& place) {
      symbols::ValuePlace its = place.at(point.its->bias);
      its.first += its.kind == symbols::ValuePlace::Kind::kPieces ? first_piece : first_step;
      return its;
    };
    name.arguments.push_back(moved(argument.place));
    for (const symbols::ValuePlace& piece : argument.pieces) pieces.push_back(moved(piece));
    for (symbols::PlaceStep step : argument.steps) {
      if (step.base == symbols::kModuleBase || step.code == symbols::PlaceStep::Code::kKept)
        step.number += static_cast<std::int64_t>(point.its->bias);
      if (step.code == symbols::PlaceStep::Code::kThread) step.number += point.its->thread_storage.value_or(0);
      name.steps.push_back(step);
    }
  }
  name.arguments.insert(name.arguments.end(), pieces.begin(), pieces.end());
}

Entries ArgumentRows::entries() const {
  Entries all;
  for (const auto& [at, row] : rows_) all.merge(entries_of(at.first, row));
  return all;
}

Entries ArgumentRows::entries_at(const std::string& build_id, std::uint64_t address) const {
  const auto found = find(build_id, address);
  return found != rows_.end() ? entries_of(found->first.first, found->second) : Entries{};
}

Entries ArgumentRows::entries_of(const std::string& build_id, const Row& row) const {
  Entries all;
  for (std::size_t i = 0; i < row.size() && i < 64; ++i) {
    if ((wanted_ >> i & 1) == 0) continue;
    for (const symbols::PlaceStep& step : row[i].steps) {
      if (step.code == symbols::PlaceStep::Code::kKept) all.emplace(build_id, static_cast<std::uint64_t>(step.number));
    }
  }
  return all;
}

ArgumentRows::Rows::const_iterator ArgumentRows::find(const std::string& build_id, std::uint64_t address) const {
  return rows_.find({row_build_id(build_id), address});
}

std::optional<std::string> KeptCalls::problem_of(const std::string& build_id, const Entries& entries) const {
  for (const auto& [its, entry] : entries) {
    const auto why = id ? interface().registry.why_no_calls(*id, build_id, entry) : problem;
    if (why) return "it is kept from the function's entry on, and not all of its calls can be seen: " + *why;
  }
  return std::nullopt;
}

KeptCalls prepare_kept_calls(const Entries& entries, const std::vector<language::Item>& block,
                             std::optional<std::uint32_t> module, bool is_environment) {
  KeptCalls kept;
  if (entries.empty()) return kept;
  std::set<std::pair<std::string, std::uint64_t>> known;  // by the module's name in the text
  std::vector<language::Item> items;
  for (const language::Item& its : block) {
    if (its.exclude) continue;
    for (const auto& [build_id, entry] : entries) {
      if (!known.emplace(its.module, entry).second) continue;
      language::Item& item = items.emplace_back(its);
      item.kind = language::Kind::kCall;
      item.target = language::AddressTarget{entry, entry + 1};
      item.found.clear();
    }
  }
  Request request;
  request.wants_returns = request.keeps_calls = request.keeps_arguments = request.is_for_other_hits = true;
  request.forgives_missing = true;  // an entry is one of some of the modules alone
  request.is_environment = is_environment;
  request.refuse = [entries](const symbols::Module& its, std::uint64_t address) -> std::optional<std::string> {
    if (entries.contains({row_build_id(its.build_id), address})) return std::nullopt;
    return "it is another module's";
  };
  Problem problem;
  kept.id = interface().registry.prepare(
      std::move(items), module, request, [](std::size_t) {}, problem);
  kept.problem = std::move(problem.message);
  return kept;
}

}  // namespace ubp::runtime
