// Plans: static marks, places that debug information has found. Load time only.
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "runtime/plan/found.h"

namespace ubp::plan {

using language::MarkTarget;
using symbols::Mark;

// Nothing when it has all arguments that are wanted.
std::optional<std::string> Plan::argument_problem(const Mark& mark) const {
  std::string detail;
  for (std::size_t number = 0; number < 64 && detail.empty(); ++number) {
    if ((wanted_arguments_ >> number & 1) == 0) continue;
    if (number >= mark.arguments.size()) {
      detail = fmt::format("arg{}: {}:{} has {}", number, mark.provider, mark.name, mark.arguments.size());
    } else if (const symbols::MarkArgument& argument = mark.arguments[number]; !argument.problem.empty()) {
      detail =
          fmt::format("arg{} of {}:{}, '{}', {}", number, mark.provider, mark.name, argument.text, argument.problem);
    }
  }
  if (detail.empty()) return std::nullopt;
  return reason_text(Reason::kNoArgument, decoder::Refusal::kNone, detail);
}

std::optional<Mistake> Plan::find_mark(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                       Found& found) {
  const auto& target = std::get<MarkTarget>(item.target);
  bool any = false;
  for (const std::uint32_t module : modules) {
    for (const Mark& mark : modules_.marks_of(module)) {
      if (!symbols::mark_matches(mark, target.provider, target.name)) continue;
      any = true;
      const symbols::Function* const function = modules_.table_of(module).containing(mark.address);
      if (auto problem = argument_problem(mark)) {
        refuse(module, function, mark.address, std::move(*problem), found);
      } else {
        add_one(module, function, mark.address, found);
      }
    }
  }
  if (any || item.exclude || (item.pending && only_module_)) return std::nullopt;
  return wait_or_fail(item, unknown_mark(item, modules));
}

Mistake Plan::unknown_mark(const language::Item& item, const std::vector<std::uint32_t>& modules) const {
  const auto& target = std::get<MarkTarget>(item.target);
  const std::string name = target.provider.empty() ? target.name : target.provider + ':' + target.name;
  std::size_t count = 0;
  std::vector<std::string> near;
  for (const std::uint32_t module : modules) {
    const std::vector<Mark>& marks = modules_.marks_of(module);
    count += marks.size();
    if (near.empty()) near = symbols::nearest_marks(marks, target.provider, target.name);
  }
  const symbols::Module& first = modules_.all()[modules.front()];
  std::string where = item.module.empty() ? first.path : first.name;
  if (modules.size() > 1) where += fmt::format(" nor in {} more modules", modules.size() - 1);
  Mistake mistake{item.target_position, "", ""};
  mistake.message = count == 0 ? fmt::format("no static mark '{}' in {}: there are none", name, where)
                               : fmt::format("no static mark '{}' in {} ({} places of marks)", name, where, count);
  std::string all;
  for (const std::string& one : near) all += fmt::format("{}'{}'", all.empty() ? "" : ", ", one);
  if (!all.empty()) mistake.hint = fmt::format("did you mean {}?", all);
  return mistake;
}

// The addresses stand in the item, from whoever has read the debug information.
std::optional<Mistake> Plan::find_places(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                         Found& found) {
  if (item.found.empty() && !item.exclude) {
    return Mistake{item.target_position,
                   fmt::format("nothing says where {} is: no debug information was read", item.text), ""};
  }
  bool any = false;
  for (const std::uint32_t module : modules) {
    const std::string& build_id = modules_.all()[module].build_id;
    for (const language::FoundPlaces& places : item.found) {
      if ((build_id.empty() ? "-" : build_id) != places.build_id) continue;
      any = true;
      add_addresses(module, places.addresses, found);
    }
  }
  if (any || item.exclude || (item.pending && only_module_)) return std::nullopt;
  return wait_or_fail(item, {item.target_position,
                             fmt::format("{} is another file than the one whose debug information was read",
                                         modules_.all()[modules.front()].path),
                             ""});
}

const Mark* mark_of(const Modules& modules, const language::Item& item, const Probe& probe) {
  const auto* const target = std::get_if<MarkTarget>(&item.target);
  if (target == nullptr) return nullptr;
  const std::vector<Mark>& marks = modules.marks_of(probe.module);
  const std::uint64_t address = address_of(modules, probe);
  auto mark = std::lower_bound(marks.begin(), marks.end(), address,
                               [](const Mark& its, std::uint64_t wanted) { return its.address < wanted; });
  for (; mark != marks.end() && mark->address == address; ++mark) {
    if (symbols::mark_matches(*mark, target->provider, target->name)) return &*mark;
  }
  return nullptr;
}

std::vector<Mark> marks_meant_by(const language::Item& item) {
  std::vector<Mark> meant;
  const auto* const target = std::get_if<MarkTarget>(&item.target);
  if (target == nullptr) return meant;
  const Modules modules;
  for (const std::uint32_t module : Plan(modules, {item}).modules_matching(item)) try {
      for (const Mark& mark : modules.marks_of(module)) {
        if (symbols::mark_matches(mark, target->provider, target->name)) meant.push_back(mark);
      }
    } catch (const std::runtime_error&) {  // it is said when the item is looked up
    }
  return meant;
}

}  // namespace ubp::plan
