// Source lines and statements, of the line tables. See debug_file.h.
#include <dwarf.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/line_files.h"
#include "runtime/debuginfo/name_filter.h"
#include "runtime/debuginfo/rows.h"
#include "runtime/debuginfo/scopes.h"
#include "runtime/debuginfo/types.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"

namespace ubp::debuginfo {
namespace {

// "src/a.c" is "/home/me/src/a.c", and so is "src/*.c".
bool is_file(std::string_view path, std::string_view wanted) {
  if (wanted.starts_with("./")) wanted.remove_prefix(2);
  std::size_t begin = path.size();
  for (auto parts = std::count(wanted.begin(), wanted.end(), '/') + 1; parts > 0 && begin != std::string_view::npos;
       --parts)
    begin = begin == 0 ? std::string_view::npos : path.rfind('/', begin - 1);
  const std::string_view last = begin == std::string_view::npos ? path : path.substr(begin + 1);
  return last == wanted || path == wanted || language::glob_match(wanted, last);
}

// Whether functions are wanted, by their raw names: each name is looked at once.
class Names {
 public:
  explicit Names(const FunctionPattern& pattern) : pattern_(pattern) {}
  bool has(Dwarf_Die& function) { return fits(raw_name_of(function)); }
  bool fits(std::string name) {
    const auto [known, is_new] = known_.try_emplace(std::move(name));
    if (is_new) known->second = symbols::name_fits(pattern_.text, pattern_.is_quoted, known->first);
    return known->second;
  }
  // Of the units that may have some.
  NameFilter filter(Dwarf* dwarf) {
    return {dwarf, pattern_, [this](std::string_view name) { return fits(std::string(name)); }};
  }

 private:
  const FunctionPattern& pattern_;
  std::map<std::string, bool> known_;
};

// Whether a line stands in a function's own source. Some instructions of what is inlined in a function lie between
// others, and no instance says that they are its.
bool is_of(Units::Unit& unit, const Instance& instance, const Row& row) {
  Dwarf_Die die = instance.die;
  const char* const path = Units::file_of(unit, instance);
  int line = 0;
  return path == nullptr || dwarf_decl_line(&die, &line) != 0 ||
         (std::string_view(path) == row.path && row.line >= static_cast<std::uint32_t>(line));
}

void sort(std::vector<Place>& places) {
  const auto before = [](const Place& a, const Place& b) { return a.address < b.address; };
  const auto same = [](const Place& a, const Place& b) { return a.address == b.address; };
  std::stable_sort(places.begin(), places.end(), before);
  places.erase(std::unique(places.begin(), places.end(), same), places.end());
}

}  // namespace

std::string full_path(Dwarf_Die& unit, const std::string& path) {
  Dwarf_Attribute attribute;
  const char* const folder =
      dwarf_attr(&unit, DW_AT_comp_dir, &attribute) != nullptr ? dwarf_formstring(&attribute) : nullptr;
  return (std::filesystem::path(folder != nullptr ? folder : "") / path).lexically_normal().string();
}

Found DebugFile::lines(const LineQuery& query) {
  Found found;
  struct First {
    bool is_apart;  // in a part that was put elsewhere, since it is seldom executed
    std::uint64_t address;
  };
  std::map<std::tuple<const void*, const char*, std::uint32_t>, First> firsts;  // by instance, file and line
  std::uint32_t before = 0, behind = ~std::uint32_t{0};
  const LineFiles files(dwarf_);
  for (Units::Unit& unit : units().all()) {
    if (!files.may_have(unit.skeleton, query.file)) continue;
    std::map<const char*, bool> is_wanted;
    for_each_row(unit.skeleton, [&](const Row& row) {
      const auto [file, is_new] = is_wanted.try_emplace(row.path);
      if (is_new) file->second = is_file(row.path, query.file);
      if (!file->second || !is_text(row.address)) return;
      found.has_file = true;
      if (query.line != 0 && row.line < query.line) before = std::max(before, row.line);
      if (query.line != 0 && row.line > query.line) behind = std::min(behind, row.line);
      if (query.line != 0 && row.line != query.line) return;
      if (query.column != 0 && row.column != query.column) return;
      if (query.all) {
        found.places.push_back({row.address, nullptr, true});
        return;
      }
      Function* const function = units().function_at(unit, row.address);
      if (function == nullptr) return;
      const Instance& instance = instance_at(*function, row.address, row.line);
      if (!is_of(unit, instance, row)) {
        found.places.push_back({row.address, nullptr, true});
        return;
      }
      const auto& [begin, end] = function->ranges.front();
      const First its{row.address < begin || row.address >= end, row.address};
      const auto [first, is_first] = firsts.try_emplace({instance.die.addr, row.path, row.line}, its);
      if (std::pair(its.is_apart, its.address) < std::pair(first->second.is_apart, first->second.address))
        first->second = its;
    });
  }
  for (const auto& [key, first] : firsts) found.places.push_back({first.address, std::get<0>(key)});
  sort(found.places);
  if (before != 0) found.nearest.push_back(before);
  if (behind != ~std::uint32_t{0}) found.nearest.push_back(behind);
  return found;
}

std::vector<Place> DebugFile::statements(const FunctionPattern& pattern) {
  std::vector<Place> places;
  Names names(pattern);
  NameFilter filter = names.filter(dwarf_);
  for (Units::Unit& unit : units().all()) {
    if (!filter.may_have(unit.skeleton, unit.whole)) continue;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> wanted;
    for (Function& function : units().functions(unit)) {
      if (is_text(function.ranges.front().first) && names.has(function.die))
        wanted.insert(wanted.end(), function.ranges.begin(), function.ranges.end());
    }
    if (wanted.empty()) continue;
    std::sort(wanted.begin(), wanted.end());
    for_each_row(unit.skeleton, [&](const Row& row) {
      auto range = std::upper_bound(wanted.begin(), wanted.end(), std::pair(row.address, ~std::uint64_t{0}));
      if (range != wanted.begin() && row.address < (--range)->second) places.push_back({row.address, nullptr, true});
    });
  }
  sort(places);
  return places;
}

std::vector<Place> DebugFile::instances(const FunctionPattern& pattern, std::size_t* inlined) {
  std::vector<Place> places;
  Names names(pattern);
  NameFilter filter = names.filter(dwarf_);
  std::map<const void*, bool> known;  // by what the instances are of
  std::size_t count = 0;
  for (Units::Unit& unit : units().all()) {
    if (!filter.may_have(unit.skeleton, unit.whole)) continue;
    for (Function& function : units().functions(unit)) {
      if (!is_text(function.ranges.front().first)) continue;
      for (const Instance& instance : instances_of(function)) {
        Dwarf_Die die = instance.die, origin;
        const void* const key = die_of(die, DW_AT_abstract_origin, origin) ? origin.addr : die.addr;
        const auto [its, is_new] = known.try_emplace(key);
        if (is_new) its->second = names.has(die);
        if (!its->second) continue;
        places.push_back({instance.entry, die.addr});
        count += instance.parent >= 0 ? 1 : 0;
      }
    }
  }
  if (inlined != nullptr) *inlined = count;
  sort(places);
  return places;
}

namespace {

// Lines by where they belong: a function's name, its file and where that declares it.
using Lines = std::map<std::tuple<std::string, std::string, std::uint32_t>, std::set<std::uint32_t>>;

std::vector<SourceLines> list_of(const Lines& all) {
  std::vector<SourceLines> list;
  for (const auto& [key, lines] : all) {
    const auto& [function, file, first] = key;
    list.push_back({function, file, first, {lines.begin(), lines.end()}});
  }
  return list;
}

}  // namespace

std::vector<SourceLines> DebugFile::sources(const LineQuery& query) {
  Lines all;
  const LineFiles files(dwarf_);
  for (Units::Unit& unit : units().all()) {
    if (!files.may_have(unit.skeleton, query.file)) continue;
    std::map<const char*, std::set<std::uint32_t>*> wanted;
    for_each_row(unit.skeleton, [&](const Row& row) {
      if (!is_text(row.address)) return;
      const auto [its, is_new] = wanted.try_emplace(row.path, nullptr);
      if (is_new && is_file(row.path, query.file)) its->second = &all[{"", full_path(unit.skeleton, row.path), 0}];
      if (its->second != nullptr) its->second->insert(row.line);
    });
  }
  return list_of(all);
}

std::vector<SourceLines> DebugFile::sources(const FunctionPattern& pattern) {
  Lines all;
  Names names(pattern);
  NameFilter filter = names.filter(dwarf_);
  for (Units::Unit& unit : units().all()) {
    if (!filter.may_have(unit.skeleton, unit.whole)) continue;
    struct Wanted {
      std::string path;
      std::uint32_t first;
      std::set<std::uint32_t>* lines;
    };
    std::map<const void*, Wanted> wanted;  // by instance
    std::set<const Function*> within;      // the functions that these are in
    for (Function& function : units().functions(unit)) {
      if (!is_text(function.ranges.front().first)) continue;
      for (const Instance& instance : instances_of(function)) {
        Dwarf_Die die = instance.die;
        const char* const path = Units::file_of(unit, instance);
        int declared = 0;
        if (path == nullptr || !names.has(die) || dwarf_decl_line(&die, &declared) != 0) continue;
        const auto line = static_cast<std::uint32_t>(declared);
        wanted[die.addr] = {path, line, &all[{raw_name_of(die), full_path(unit.skeleton, path), line}]};
        within.insert(&function);
      }
    }
    if (wanted.empty()) continue;
    for_each_row(unit.skeleton, [&](const Row& row) {
      Function* const function = units().function_at(unit, row.address);
      if (!within.contains(function)) return;
      const auto its = wanted.find(instance_at(*function, row.address, row.line).die.addr);
      if (its != wanted.end() && its->second.path == row.path && row.line >= its->second.first)
        its->second.lines->insert(row.line);
    });
  }
  return list_of(all);
}

}  // namespace ubp::debuginfo
