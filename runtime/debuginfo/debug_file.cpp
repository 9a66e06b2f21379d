// See debug_file.h.
#include "runtime/debuginfo/debug_file.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include "runtime/debuginfo/places.h"
#include "runtime/debuginfo/types.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::debuginfo {
namespace {

// Calls visit(unit) for each compilation unit, of split ones the part with all of the information, until it returns
// false.
template <typename Visit>
void for_each_unit(Dwarf* dwarf, const Visit& visit) {
  Dwarf_CU* unit = nullptr;
  Dwarf_Die die, split;
  std::uint8_t kind = 0;
  while (dwarf_get_units(dwarf, unit, &unit, nullptr, &kind, &die, &split) == 0) {
    const bool is_split = kind == DW_UT_skeleton && dwarf_tag(&split) == DW_TAG_compile_unit;
    if (kind == DW_UT_type || kind == DW_UT_partial) continue;
    if (!visit(die, is_split ? split : die)) return;
  }
}

// The function, out of line, that has an address.
bool scope_at(Dwarf_Die& unit, std::uint64_t address, Dwarf_Die& function) {
  Dwarf_Die* scopes = nullptr;
  const int count = dwarf_getscopes(&unit, address, &scopes);
  bool found = false;
  for (int i = 0; i < count && !found; ++i) {
    found = dwarf_tag(&scopes[i]) == DW_TAG_subprogram;
    if (found) function = scopes[i];
  }
  std::free(scopes);
  return found;
}

// The innermost function or inlined instance, as something to compare.
const void* instance_at(Dwarf_Die& unit, std::uint64_t address) {
  Dwarf_Die* scopes = nullptr;
  const int count = dwarf_getscopes(&unit, address, &scopes);
  const void* instance = nullptr;
  for (int i = 0; i < count && instance == nullptr; ++i) {
    const int tag = dwarf_tag(&scopes[i]);
    if (tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine) instance = scopes[i].addr;
  }
  std::free(scopes);
  return instance;
}

// "src/a.c" is "/home/me/src/a.c".
bool is_file(std::string_view path, std::string_view wanted) {
  if (wanted.starts_with("./")) wanted.remove_prefix(2);
  if (!path.ends_with(wanted)) return false;
  return path.size() == wanted.size() || path[path.size() - wanted.size() - 1] == '/';
}

Dwarf* open_dwarf(const std::string& path, int& file) {
  file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Dwarf* const dwarf = file >= 0 ? dwarf_begin(file, DWARF_C_READ) : nullptr;
  Dwarf_CU* unit = nullptr;
  if (dwarf != nullptr && dwarf_get_units(dwarf, nullptr, &unit, nullptr, nullptr, nullptr, nullptr) == 0) return dwarf;
  if (dwarf != nullptr) dwarf_end(dwarf);
  if (file >= 0) close(file);
  file = -1;
  return nullptr;
}

}  // namespace

struct DebugFile::Units {
  struct Range {
    std::uint64_t begin, end;
    Dwarf_Die unit;
  };

  explicit Units(Dwarf* dwarf) {
    for_each_unit(dwarf, [&](Dwarf_Die& skeleton, Dwarf_Die& whole) {
      Dwarf_Addr base = 0, begin = 0, end = 0;
      for (std::ptrdiff_t next = 0; (next = dwarf_ranges(&skeleton, next, &base, &begin, &end)) > 0;)
        ranges.push_back({begin, end, whole});
      return true;
    });
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  }

  // Null: none has the address.
  Dwarf_Die* at(std::uint64_t address) {
    auto range = std::upper_bound(ranges.begin(), ranges.end(), address,
                                  [](std::uint64_t wanted, const Range& its) { return wanted < its.begin; });
    return range != ranges.begin() && address < (--range)->end ? &range->unit : nullptr;
  }

  // The function, out of line, that has an address of a unit. False: none is known.
  bool function_at(Dwarf_Die& unit, std::uint64_t address, Dwarf_Die& function) {
    const auto [its, is_new] = functions.try_emplace(unit.addr);
    Dwarf_Die child;
    Dwarf_Addr entry = 0;
    if (is_new && dwarf_child(&unit, &child) == 0) do {
        if (dwarf_tag(&child) == DW_TAG_subprogram && dwarf_entrypc(&child, &entry) == 0)
          its->second.emplace(entry, child);
      } while (dwarf_siblingof(&child, &child) == 0);
    const auto known = its->second.find(address);
    if (known == its->second.end()) return scope_at(unit, address, function);
    function = known->second;
    return true;
  }

  std::vector<Range> ranges;
  std::map<const void*, std::map<std::uint64_t, Dwarf_Die>> functions;  // by unit, by entry
};

DebugFile::DebugFile() = default;

std::unique_ptr<DebugFile> DebugFile::open(const std::string& path, const std::vector<std::string>& directories) {
  const symbols::ElfFile file = symbols::ElfFile::open(path);
  const std::string build_id = file.build_id();
  const auto link = file.debug_link();
  std::vector<std::string> candidates{path};
  const std::string base = path.substr(path.rfind('/') + 1);
  std::vector<std::string> folders;
  for (const std::string& directory : directories) {  // one that is relative: from here, or from the file
    folders.push_back(directory);
    if (!directory.starts_with('/')) folders.push_back(path.substr(0, path.rfind('/') + 1) + directory);
  }
  for (const std::string& directory : folders) {
    if (link) candidates.push_back(directory + '/' + link->name);
    candidates.push_back(directory + '/' + base + ".debug");
    candidates.push_back(directory + '/' + base);
    if (build_id.size() > 2)
      candidates.push_back(
          fmt::format("{}/.build-id/{}/{}.debug", directory, build_id.substr(0, 2), build_id.substr(2)));
  }
  for (std::string& other : symbols::debug_file_candidates(path, build_id, link ? link->name : ""))
    candidates.push_back(std::move(other));
  elf_version(EV_CURRENT);
  for (const std::string& candidate : candidates) {
    std::unique_ptr<DebugFile> its(new DebugFile);
    its->dwarf_ = access(candidate.c_str(), R_OK) == 0 ? open_dwarf(candidate, its->file_) : nullptr;
    if (its->dwarf_ == nullptr) continue;
    if (candidate != path && symbols::ElfFile::open(candidate).build_id() != build_id) continue;
    its->build_id_ = build_id.empty() ? "-" : build_id;
    its->elf_file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    its->elf_ = elf_begin(its->elf_file_, ELF_C_READ, nullptr);
    return its;
  }
  return nullptr;
}

DebugFile::~DebugFile() {
  if (dwarf_ != nullptr) dwarf_end(dwarf_);
  if (elf_ != nullptr) elf_end(static_cast<Elf*>(elf_));
  if (file_ >= 0) close(file_);
  if (elf_file_ >= 0) close(elf_file_);
}

std::optional<std::vector<Parameter>> DebugFile::parameters(std::uint64_t address, TypeWriter* types) {
  if (units_ == nullptr) units_ = std::make_unique<Units>(dwarf_);
  Dwarf_Die* const unit = units_->at(address);
  Dwarf_Die function, child;
  if (unit == nullptr || !units_->function_at(*unit, address, function)) return std::nullopt;
  std::vector<Parameter> all;
  std::vector<Dwarf_Die> dies;
  if (dwarf_child(&function, &child) == 0) do {
      if (dwarf_tag(&child) == DW_TAG_formal_parameter) dies.push_back(child);
    } while (dwarf_siblingof(&child, &child) == 0);
  PlaceFinder places(function, address, static_cast<Elf*>(elf_));
  for (Dwarf_Die& die : dies) {
    Parameter parameter;
    parameter.name = name_of(die);
    if (parameter.name.empty()) parameter.name = fmt::format("__unnamed_{}", all.size());
    parameter.spelling = spelling_of(die);
    if (types != nullptr) {
      parameter.type = types->declare(die, parameter.name);
      parameter.where = places.find(die);
    }
    all.push_back(std::move(parameter));
  }
  return all;
}

Line DebugFile::line(std::string_view file, std::uint32_t number, std::uint32_t column) {
  Line found;
  std::map<const void*, std::uint64_t> first;  // by instance
  std::uint32_t before = 0, behind = ~std::uint32_t{0};
  for_each_unit(dwarf_, [&](Dwarf_Die& skeleton, Dwarf_Die& whole) {
    Dwarf_Lines* lines = nullptr;
    std::size_t count = 0;
    if (dwarf_getsrclines(&skeleton, &lines, &count) != 0) return true;
    std::map<const char*, bool> is_wanted;  // libdw has one text for each file
    for (std::size_t i = 0; i < count; ++i) {
      Dwarf_Line* const row = dwarf_onesrcline(lines, i);
      const char* const path = dwarf_linesrc(row, nullptr, nullptr);
      bool is_statement = false, is_end = false;
      int its_line = 0, its_column = 0;
      Dwarf_Addr address = 0;
      if (path == nullptr || dwarf_linebeginstatement(row, &is_statement) != 0 || !is_statement ||
          dwarf_lineendsequence(row, &is_end) != 0 || is_end || dwarf_lineno(row, &its_line) != 0 || its_line <= 0 ||
          dwarf_lineaddr(row, &address) != 0)
        continue;
      const auto [entry, is_new] = is_wanted.try_emplace(path);
      if (is_new) entry->second = is_file(path, file);
      if (!entry->second) continue;
      found.has_file = true;
      const auto its_number = static_cast<std::uint32_t>(its_line);
      if (its_number < number) before = std::max(before, its_number);
      if (its_number > number) behind = std::min(behind, its_number);
      if (its_number != number) continue;
      if (column != 0 && (dwarf_linecol(row, &its_column) != 0 || static_cast<std::uint32_t>(its_column) != column))
        continue;
      const void* const instance = instance_at(whole, address);
      if (instance == nullptr) continue;
      const auto [place, is_first] = first.try_emplace(instance, address);
      place->second = std::min<std::uint64_t>(place->second, address);
    }
    return true;
  });
  for (const auto& [instance, address] : first) found.addresses.push_back(address);
  std::sort(found.addresses.begin(), found.addresses.end());
  if (before != 0) found.nearest.push_back(before);
  if (behind != ~std::uint32_t{0}) found.nearest.push_back(behind);
  return found;
}

bool DebugFile::add_type(std::string_view name, TypeWriter& types) {
  const std::size_t blank = name.find(' ');
  const std::string_view keyword = name.substr(0, blank), rest = name.substr(std::min(blank + 1, name.size()));
  bool found = false;
  for_each_unit(dwarf_, [&](Dwarf_Die&, Dwarf_Die& unit) {
    Dwarf_Die child;
    if (dwarf_child(&unit, &child) != 0) return true;
    do {
      const int tag = dwarf_tag(&child);
      const bool is_kind = keyword == "enum"    ? tag == DW_TAG_enumeration_type
                           : keyword == "union" ? tag == DW_TAG_union_type
                                                : tag == DW_TAG_structure_type || tag == DW_TAG_class_type;
      if (!is_kind || dwarf_hasattr(&child, DW_AT_declaration) != 0 || name_of(child) != rest) continue;
      types.define(child);
      found = true;
    } while (!found && dwarf_siblingof(&child, &child) == 0);
    return !found;
  });
  return found;
}

}  // namespace ubp::debuginfo
