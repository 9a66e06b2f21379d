// What is looked up for one place; what can be seen everywhere. Internal to debuginfo/.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/scopes.h"

namespace ubp::debuginfo {

struct DebugFile::Scope {
  std::uint64_t address = 0;
  Units::Unit* unit = nullptr;
  Function* function = nullptr;
  const Instance* instance = nullptr;
  std::vector<Dwarf_Die> parameters{};           // of the instance
  std::vector<program::ArgumentPlace> places{};  // where these are; none: not known yet
};

struct DebugFile::Globals {
  // One that is of this unit, or external. False: there is none.
  bool find(Units& units, Units::Unit& unit, const std::string& name, Dwarf_Die& found);

 private:
  void add(Dwarf_Die& parent, std::map<std::string, Dwarf_Die>& its, int depth);

  std::map<const void*, std::map<std::string, Dwarf_Die>> by_unit;
  std::map<std::string, Dwarf_Die> external;
  bool has_all = false;
};

}  // namespace ubp::debuginfo
