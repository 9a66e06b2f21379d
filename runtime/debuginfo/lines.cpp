// Source lines and statements, of the line tables. See debug_file.h.
#include <dwarf.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/scopes.h"
#include "runtime/debuginfo/types.h"
#include "runtime/language/spec.h"
#include "runtime/symbols/names.h"
#include "runtime/symbols/symbols.h"

namespace ubp::debuginfo {
namespace {

struct Row {
  std::uint64_t address;
  std::uint32_t line, column;
  const char* path;  // one text for each file of a unit
};

// Where statements begin. Calls visit(row).
template <typename Visit>
void for_each_row(Dwarf_Die& unit, const Visit& visit) {
  Dwarf_Lines* lines = nullptr;
  std::size_t count = 0;
  if (dwarf_getsrclines(&unit, &lines, &count) != 0) return;
  for (std::size_t i = 0; i < count; ++i) {
    Dwarf_Line* const row = dwarf_onesrcline(lines, i);
    bool is_statement = false, is_end = false;
    int line = 0, column = 0;
    Dwarf_Addr address = 0;
    if (dwarf_linebeginstatement(row, &is_statement) != 0 || !is_statement ||
        dwarf_lineendsequence(row, &is_end) != 0 || is_end || dwarf_lineno(row, &line) != 0 || line <= 0 ||
        dwarf_lineaddr(row, &address) != 0)
      continue;
    const char* const path = dwarf_linesrc(row, nullptr, nullptr);
    if (path == nullptr) continue;
    if (dwarf_linecol(row, &column) != 0) column = 0;
    visit(Row{address, static_cast<std::uint32_t>(line), static_cast<std::uint32_t>(column), path});
  }
}

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
  bool has(Dwarf_Die& function) {
    const auto [known, is_new] = known_.try_emplace(raw_name_of(function));
    if (is_new) known->second = symbols::name_fits(pattern_.text, pattern_.is_quoted, known->first);
    return known->second;
  }

 private:
  const FunctionPattern& pattern_;
  std::map<std::string, bool> known_;
};

// Whether a line stands in a function's own source. Some instructions of what is inlined in a function lie between
// others, and no instance says that they are its.
bool is_of(const Instance& instance, const Row& row) {
  Dwarf_Die die = instance.die;
  const char* const path = dwarf_decl_file(&die);
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

Found DebugFile::lines(const LineQuery& query) {
  Found found;
  struct First {
    bool is_apart;  // in a part that was put elsewhere, since it is seldom executed
    std::uint64_t address;
  };
  std::map<std::tuple<const void*, const char*, std::uint32_t>, First> firsts;  // by instance, file and line
  std::uint32_t before = 0, behind = ~std::uint32_t{0};
  for (Units::Unit& unit : units().all()) {
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
      if (!is_of(instance, row)) {
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
  for (Units::Unit& unit : units().all()) {
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
  std::map<const void*, bool> known;  // by what the instances are of
  std::size_t count = 0;
  for (Units::Unit& unit : units().all()) {
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

}  // namespace ubp::debuginfo
