// Where a function's parameters and variables are at an address, from DWARF's location expressions and, at the
// function's entry, from the calling convention.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/analysis/argument_places.h"
#include "runtime/debuginfo/calling_convention.h"
#include "runtime/debuginfo/place_expressions.h"

namespace ubp::debuginfo {

class PlaceFinder {
 public:
  // As for PlaceExpressions.
  PlaceFinder(Dwarf_Die& function, std::uint64_t entry, std::uint64_t address, bool is_entry, Dwarf_CFI* frames)
      : convention_(function), expressions_(function, entry, address, is_entry, frames) {}

  // The parameters one behind the other, all of them: the convention counts.
  program::ArgumentPlace find(Dwarf_Die& parameter);
  // Any other variable.
  program::ArgumentPlace find_variable(Dwarf_Die& variable);
  // What lies at an offset from where a pointer at this place leads to.
  program::ArgumentPlace behind(const program::ArgumentPlace& pointer, std::int64_t offset, Dwarf_Die& member) const;

 private:
  // None: nothing is known of this address. may_be_rule: since its one place holds behind the function's beginning.
  std::optional<program::ArgumentPlace> by_location(Dwarf_Die& parameter, bool& may_be_rule);
  program::ArgumentPlace of_operations(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count);
  // Of one piece, or of the whole. result: receives it; its steps go to `steps`. Returns why it cannot be read.
  std::string simple(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count,
                     PlaceExpressions::Steps& steps, symbols::ValuePlace& result);

  CallingConvention convention_;
  PlaceExpressions expressions_;
};

}  // namespace ubp::debuginfo
