// See scopes.h.
#include "runtime/debuginfo/scopes.h"

#include <dwarf.h>

#include <algorithm>
#include <utility>

#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {
namespace {

bool holds_functions(int tag) {
  return tag == DW_TAG_namespace || tag == DW_TAG_module || tag == DW_TAG_structure_type || tag == DW_TAG_class_type ||
         tag == DW_TAG_union_type;
}

// Where it begins. Source: DWARF 5, 2.18; without an entry, the first of its ranges, as compilers write them.
std::uint64_t entry_of(Dwarf_Die& die, const Ranges& ranges) {
  Dwarf_Attribute attribute;
  Dwarf_Addr address = 0;
  Dwarf_Word offset = 0;
  if (dwarf_attr(&die, DW_AT_entry_pc, &attribute) != nullptr) {
    if (dwarf_formaddr(&attribute, &address) == 0) return address;
    if (dwarf_formudata(&attribute, &offset) == 0 && !ranges.empty()) return ranges.front().first + offset;
  }
  return ranges.empty() ? 0 : ranges.front().first;
}

void add_functions(Dwarf_Die& parent, std::vector<Function>& functions, int depth) {
  Dwarf_Die child;
  if (depth > 16 || dwarf_child(&parent, &child) != 0) return;
  do {
    const int tag = dwarf_tag(&child);
    if (holds_functions(tag)) add_functions(child, functions, depth + 1);
    if (tag != DW_TAG_subprogram) continue;
    Ranges ranges = ranges_of(child);
    if (!ranges.empty()) functions.push_back({child, std::move(ranges)});
  } while (dwarf_siblingof(&child, &child) == 0);
}

void add_instances(Dwarf_Die& die, int parent, std::vector<Instance>& instances, int depth) {
  constexpr std::size_t kMost = std::size_t{1} << 20;
  Dwarf_Die child;
  if (depth > 256 || instances.size() > kMost || dwarf_child(&die, &child) != 0) return;
  do {
    const int tag = dwarf_tag(&child);
    if (tag == DW_TAG_lexical_block) add_instances(child, parent, instances, depth + 1);
    if (tag != DW_TAG_inlined_subroutine) continue;
    Ranges ranges = ranges_of(child);
    if (ranges.empty()) continue;  // nothing is left of it
    const std::uint64_t entry = entry_of(child, ranges);
    const auto line = static_cast<std::uint32_t>(number_of(child, DW_AT_call_line, 0));
    instances.push_back({child, parent, entry, line, std::move(ranges)});
    add_instances(child, static_cast<int>(instances.size()) - 1, instances, depth + 1);
  } while (dwarf_siblingof(&child, &child) == 0);
}

}  // namespace

Ranges ranges_of(Dwarf_Die& die) {
  Ranges ranges;
  Dwarf_Addr base = 0, begin = 0, end = 0;
  for (std::ptrdiff_t next = 0; (next = dwarf_ranges(&die, next, &base, &begin, &end)) > 0;) {
    if (begin < end) ranges.emplace_back(begin, end);
  }
  return ranges;
}

bool is_in(const Ranges& ranges, std::uint64_t address) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const auto& range) { return address >= range.first && address < range.second; });
}

const std::vector<Instance>& instances_of(Function& function) {
  if (!function.instances.empty()) return function.instances;
  function.instances.push_back({function.die, -1, entry_of(function.die, function.ranges), 0, function.ranges});
  add_instances(function.die, 0, function.instances, 0);
  return function.instances;
}

const Instance& instance_at(Function& function, std::uint64_t address, std::uint32_t line) {
  const std::vector<Instance>& all = instances_of(function);
  std::size_t found = 0;
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (is_in(all[i].ranges, address)) found = i;
  }
  for (int i = static_cast<int>(found); i > 0; i = all[static_cast<std::size_t>(i)].parent) {
    const Instance& its = all[static_cast<std::size_t>(i)];
    if (its.entry == address && its.call_line == line) found = static_cast<std::size_t>(its.parent);
  }
  return all[found];
}

const Instance& instance_called(Function& function, const void* die) {
  for (const Instance& instance : instances_of(function)) {
    if (instance.die.addr == die) return instance;
  }
  return function.instances.front();
}

std::vector<Dwarf_Die> blocks_at(const Instance& instance, std::uint64_t address) {
  std::vector<Dwarf_Die> blocks{instance.die};
  for (bool again = true; again && blocks.size() < 256;) {
    again = false;
    Dwarf_Die child;
    if (dwarf_child(&blocks.back(), &child) != 0) break;
    do {
      again = dwarf_tag(&child) == DW_TAG_lexical_block && is_in(ranges_of(child), address);
      if (again) blocks.push_back(child);
    } while (!again && dwarf_siblingof(&child, &child) == 0);
  }
  return blocks;
}

std::string raw_name_of(Dwarf_Die& function) {
  Dwarf_Attribute value;
  for (const unsigned attribute : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name}) {
    const char* const text =
        dwarf_attr_integrate(&function, attribute, &value) != nullptr ? dwarf_formstring(&value) : nullptr;
    if (text != nullptr) return text;
  }
  return name_of(function);
}

Units::Units(Dwarf* dwarf) {
  Dwarf_CU* unit = nullptr;
  Dwarf_Die die, split;
  std::uint8_t kind = 0;
  while (dwarf_get_units(dwarf, unit, &unit, nullptr, &kind, &die, &split) == 0) {
    if (kind == DW_UT_type || kind == DW_UT_partial) continue;
    const bool is_split = kind == DW_UT_skeleton && dwarf_tag(&split) == DW_TAG_compile_unit;
    for (const auto& [begin, end] : ranges_of(die)) ranges_.push_back({begin, end, units_.size()});
    units_.push_back({die, is_split ? split : die});
  }
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
}

// libdw cannot say it of split units; there, the file of the instance's first line is taken.
const char* Units::file_of(Unit& unit, const Instance& instance) {
  Dwarf_Die die = instance.die;
  if (unit.skeleton.addr == unit.whole.addr) return dwarf_decl_file(&die);
  Dwarf_Line* const row = dwarf_getsrc_die(&unit.skeleton, instance.entry);
  return row != nullptr ? dwarf_linesrc(row, nullptr, nullptr) : nullptr;
}

const std::vector<OwnedRow>& Units::rows(Unit& unit, Function& function) {
  if (!std::exchange(unit.has_rows, true)) {
    for_each_row(unit.skeleton, [&](const Row& row) { unit.rows.push_back(row); });
    std::stable_sort(unit.rows.begin(), unit.rows.end(),
                     [](const Row& a, const Row& b) { return a.address < b.address; });
  }
  if (!function.rows.empty()) return function.rows;
  for (const auto& [low, high] : function.ranges) {
    auto row = std::lower_bound(unit.rows.begin(), unit.rows.end(), low,
                                [](const Row& its, std::uint64_t address) { return its.address < address; });
    for (; row != unit.rows.end() && row->address < high; ++row)
      function.rows.push_back({*row, instance_at(function, row->address, row->line).die.addr});
  }
  return function.rows;
}

std::vector<Function>& Units::functions(Unit& unit) {
  if (unit.is_read) return unit.functions;
  unit.is_read = true;
  add_functions(unit.whole, unit.functions, 0);
  for (std::size_t i = 0; i < unit.functions.size(); ++i) {
    for (const auto& range : unit.functions[i].ranges) unit.by_address.emplace_back(range.first, i);
  }
  std::sort(unit.by_address.begin(), unit.by_address.end());
  return unit.functions;
}

Function* Units::function_at(Unit& unit, std::uint64_t address) {
  functions(unit);
  auto its = std::upper_bound(unit.by_address.begin(), unit.by_address.end(), std::pair(address, ~std::size_t{0}));
  if (its == unit.by_address.begin()) return nullptr;
  Function& function = unit.functions[(--its)->second];
  return is_in(function.ranges, address) ? &function : nullptr;
}

Units::Unit* Units::unit_at(std::uint64_t address) {
  auto range = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                [](std::uint64_t wanted, const Range& its) { return wanted < its.begin; });
  return range != ranges_.begin() && address < (--range)->end ? &units_[range->unit] : nullptr;
}

Function* Units::function_at(std::uint64_t address) {
  Unit* const unit = unit_at(address);
  return unit != nullptr ? function_at(*unit, address) : nullptr;
}

}  // namespace ubp::debuginfo
