// Parameters and variables at a place. See debug_file.h.
#include <dwarf.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/places.h"
#include "runtime/debuginfo/rows.h"
#include "runtime/debuginfo/scopes.h"
#include "runtime/debuginfo/types.h"
#include "runtime/debuginfo/variables.h"

namespace ubp::debuginfo {
namespace {

bool is_variable(Dwarf_Die& die) {
  return dwarf_tag(&die) == DW_TAG_variable || dwarf_tag(&die) == DW_TAG_formal_parameter;
}
// "extern int x;": it is somewhere else.
bool is_declaration(Dwarf_Die& die) { return dwarf_hasattr(&die, DW_AT_declaration) != 0; }

template <typename Visit>
void for_each_child(Dwarf_Die& parent, const Visit& visit) {
  Dwarf_Die child;
  if (dwarf_child(&parent, &child) != 0) return;
  do {
    visit(child);
  } while (dwarf_siblingof(&child, &child) == 0);
}

bool find_child(Dwarf_Die& parent, const std::string& name, Dwarf_Die& found) {
  bool any = false;
  for_each_child(parent, [&](Dwarf_Die& child) {
    if (any || !is_variable(child) || is_declaration(child) || name_of(child) != name) return;
    found = child;
    any = true;
  });
  return any;
}

// A member of a class, its bases and its unnamed parts; offset: moves on to it. Virtual bases and bit fields: no.
bool find_member(Dwarf_Die& type, const std::string& name, std::uint64_t& offset, Dwarf_Die& found, int depth) {
  bool any = false;
  if (depth > 16) return false;
  for_each_child(type, [&](Dwarf_Die& child) {
    const int tag = dwarf_tag(&child);
    if (any || (tag != DW_TAG_member && tag != DW_TAG_inheritance) || dwarf_hasattr(&child, DW_AT_external) != 0)
      return;
    if (dwarf_hasattr(&child, DW_AT_bit_size) != 0 || number_of(child, DW_AT_virtuality, 0) != 0) return;
    const std::uint64_t its = number_of(child, DW_AT_data_member_location, 0);
    const std::string its_name = name_of(child);
    if (tag == DW_TAG_member && its_name == name) {
      found = child;
      offset += its;
      any = true;
      return;
    }
    Dwarf_Die inner;
    std::uint64_t further = offset + its;
    if ((tag == DW_TAG_member && !its_name.empty()) || !plain_type_of(child, inner)) return;
    any = find_member(inner, name, further, found, depth + 1);
    if (any) offset = further;
  });
  return any;
}

// "120-124, 130", of the lines with code that are among all.
std::string text_of(const std::set<std::uint32_t>& lines, const std::set<std::uint32_t>& all) {
  constexpr int kMost = 5;
  std::string text;
  int groups = 0;
  for (auto line = all.begin(); line != all.end(); ++line) {
    if (!lines.contains(*line)) continue;
    const std::uint32_t first = *line;
    while (std::next(line) != all.end() && lines.contains(*std::next(line))) ++line;
    if (groups++ == kMost) return text + ", ...";
    text += fmt::format("{}{}", text.empty() ? "" : ", ", first);
    if (*line != first) text += fmt::format("-{}", *line);
  }
  return text;
}

}  // namespace

void DebugFile::Globals::add(Dwarf_Die& parent, std::map<std::string, Dwarf_Die>& its, int depth) {
  if (depth > 16) return;
  for_each_child(parent, [&](Dwarf_Die& child) {
    const int tag = dwarf_tag(&child);
    if (tag == DW_TAG_namespace || tag == DW_TAG_module) add(child, its, depth + 1);
    if (tag != DW_TAG_variable || is_declaration(child)) return;
    if (dwarf_hasattr(&child, DW_AT_location) == 0 && dwarf_hasattr(&child, DW_AT_const_value) == 0) return;
    const std::string name = name_of(child);
    its.emplace(name, child);
    if (Dwarf_Attribute flag; dwarf_attr_integrate(&child, DW_AT_external, &flag) != nullptr)
      external.emplace(name, child);
  });
}

bool DebugFile::Globals::find(Units& units, Units::Unit& unit, const std::string& name, Dwarf_Die& found) {
  const auto read = [&](Units::Unit& one) -> std::map<std::string, Dwarf_Die>& {
    const auto [its, is_new] = by_unit.try_emplace(one.whole.addr);
    if (is_new) add(one.whole, its->second, 0);
    return its->second;
  };
  const std::map<std::string, Dwarf_Die>& own = read(unit);
  if (const auto its = own.find(name); its != own.end()) {
    found = its->second;
    return true;
  }
  if (!std::exchange(has_all, true)) {
    for (Units::Unit& one : units.all()) read(one);
  }
  const auto its = external.find(name);
  if (its == external.end()) return false;
  found = its->second;
  return true;
}

void* DebugFile::frames() {
  if (std::exchange(has_frames_, true)) return frames_;
  own_frames_ = elf_ != nullptr ? dwarf_getcfi_elf(static_cast<Elf*>(elf_)) : nullptr;
  frames_ = own_frames_ != nullptr ? own_frames_ : dwarf_getcfi(dwarf_);
  return frames_;
}

bool DebugFile::find_scope(const Place& place, Scope& scope) {
  scope.address = place.address;
  scope.unit = units().unit_at(place.address);
  scope.function = scope.unit != nullptr ? units().function_at(*scope.unit, place.address) : nullptr;
  if (scope.function == nullptr) return false;
  scope.instance = place.is_innermost ? &instance_at(*scope.function, place.address, 0)
                                      : &instance_called(*scope.function, place.instance);
  Dwarf_Die die = scope.instance->die;
  for_each_child(die, [&](Dwarf_Die& child) {
    if (dwarf_tag(&child) == DW_TAG_formal_parameter) scope.parameters.push_back(child);
  });
  return true;
}

void DebugFile::find_places(Scope& scope) {
  PlaceFinder finder = finder_of(scope);
  for (Dwarf_Die& die : scope.parameters) scope.places.push_back(finder.find(die));
}

PlaceFinder DebugFile::finder_of(const Scope& scope) {
  const bool is_entry = scope.instance->parent < 0 && scope.instance->entry == scope.address;
  return {scope.function->die, instances_of(*scope.function).front().entry, scope.address, is_entry,
          static_cast<Dwarf_CFI*>(frames())};
}

// At which lines a variable has a place.
const std::string& DebugFile::lives(Scope& scope, Dwarf_Die& die) {
  const auto [known, is_new] = lives_.try_emplace(die.addr);
  if (!is_new) return known->second;
  Ranges ranges;
  Dwarf_Attribute attribute;
  Dwarf_Addr base = 0, begin = 0, end = 0;
  Dwarf_Op* operations = nullptr;
  std::size_t count = 0;
  if (dwarf_attr_integrate(&die, DW_AT_location, &attribute) != nullptr) {
    for (std::ptrdiff_t next = 0;
         (next = dwarf_getlocations(&attribute, next, &base, &begin, &end, &operations, &count)) > 0;) {
      if (count != 0 && operations[0].atom != DW_OP_entry_value && operations[0].atom != DW_OP_GNU_entry_value)
        ranges.emplace_back(begin, end);
    }
  }
  const char* const path = Units::file_of(*scope.unit, *scope.instance);
  Dwarf_Die function = scope.instance->die;
  int declared = 0;
  const std::uint32_t begins_at = dwarf_decl_line(&function, &declared) == 0 ? static_cast<std::uint32_t>(declared) : 0;
  std::set<std::uint32_t> lines, all;
  for (const auto& [row, instance] : Units::rows(*scope.unit, *scope.function)) {
    if (path == nullptr || row.line < begins_at || instance != scope.instance->die.addr ||
        std::string_view(path) != row.path)
      continue;
    all.insert(row.line);
    if (is_in(ranges, row.address)) lines.insert(row.line);
  }
  known->second = text_of(lines, all);
  return known->second;
}

Parameter DebugFile::describe(Scope& scope, Dwarf_Die& die, TypeWriter* types) {
  Parameter its{name_of(die), spelling_of(die), "", {}};
  if (types != nullptr) its.type = types->declare(die, its.name);
  const auto parameter = std::find_if(scope.parameters.begin(), scope.parameters.end(),
                                      [&](const Dwarf_Die& one) { return one.addr == die.addr; });
  if (parameter != scope.parameters.end()) {
    if (scope.places.empty()) find_places(scope);
    its.where = scope.places[static_cast<std::size_t>(parameter - scope.parameters.begin())];
  } else {
    its.where = finder_of(scope).find_variable(die);
  }
  if (its.where.problem.starts_with(kGone) && !lives(scope, die).empty())
    its.where.problem += "; it lives at lines " + lives(scope, die);
  return its;
}

std::optional<std::vector<Parameter>> DebugFile::parameters(const Place& place, TypeWriter* types) {
  Scope scope;
  if (!find_scope(place, scope)) return std::nullopt;
  std::vector<Parameter> all;
  for (Dwarf_Die& die : scope.parameters) {
    Parameter parameter =
        types != nullptr ? describe(scope, die, nullptr) : Parameter{name_of(die), spelling_of(die), "", {}};
    if (parameter.name.empty()) parameter.name = fmt::format("__unnamed_{}", all.size());
    if (types != nullptr) parameter.type = types->declare(die, parameter.name);
    all.push_back(std::move(parameter));
  }
  return all;
}

std::optional<Parameter> DebugFile::member_of_this(Scope& scope, const std::string& name, TypeWriter& types) {
  for (Dwarf_Die& die : scope.parameters) {
    Dwarf_Die pointer, type, member;
    std::uint64_t offset = 0;
    if (name_of(die) != "this" || !plain_type_of(die, pointer) || !plain_type_of(pointer, type) ||
        !find_member(type, name, offset, member, 0))
      continue;
    Parameter its = describe(scope, die, nullptr);
    its.name = name;
    its.spelling = spelling_of(member);
    its.type = types.declare(member, name);
    its.where = finder_of(scope).behind(its.where, static_cast<std::int64_t>(offset), member);
    return its;
  }
  return std::nullopt;
}

std::optional<Parameter> DebugFile::variable(const Place& place, const std::string& name, TypeWriter& types) {
  Scope scope;
  if (!find_scope(place, scope)) return std::nullopt;
  Dwarf_Die found, origin;
  std::vector<Dwarf_Die> blocks = blocks_at(*scope.instance, place.address);
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    if (find_child(*block, name, found)) return describe(scope, found, &types);
  }
  // Of what is inlined, compilers leave out what has no place anywhere.
  Dwarf_Die die = scope.instance->die;
  if (die_of(die, DW_AT_abstract_origin, origin) && find_child(origin, name, found))
    return describe(scope, found, &types);
  if (auto member = member_of_this(scope, name, types)) return member;
  if (globals_ == nullptr) globals_ = std::make_unique<Globals>();
  if (!globals_->find(units(), *scope.unit, name, found)) return std::nullopt;
  return describe(scope, found, &types);
}

std::optional<Visible> DebugFile::visible(const Place& place) {
  Scope scope;
  if (!find_scope(place, scope)) return std::nullopt;
  Visible all;
  Dwarf_Die die = scope.instance->die;
  all.function = raw_name_of(die);
  if (Dwarf_Line* const row = dwarf_getsrc_die(&scope.unit->skeleton, place.address)) {
    int line = 0;
    const char* const path = dwarf_linesrc(row, nullptr, nullptr);
    if (path != nullptr) all.file = full_path(scope.unit->skeleton, path);
    if (dwarf_lineno(row, &line) == 0) all.line = static_cast<std::uint32_t>(line);
  }
  for (Dwarf_Die& block : blocks_at(*scope.instance, place.address)) {
    for_each_child(block, [&](Dwarf_Die& child) {
      const std::string name = name_of(child);
      if (!is_variable(child) || is_declaration(child) || name.empty()) return;
      std::erase_if(all.variables, [&](const Parameter& outer) { return outer.name == name; });
      all.variables.push_back(describe(scope, child, nullptr));
      all.variables.back().lives = lives(scope, child);
    });
  }
  return all;
}

}  // namespace ubp::debuginfo
