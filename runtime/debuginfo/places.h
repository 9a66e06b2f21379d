// Where a function's parameters and variables are at an address, from DWARF's location expressions and, at the
// function's entry, from the calling convention.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/analysis/argument_places.h"

namespace ubp::debuginfo {

// Begins the problem of a variable that has no place at an address, where it may have one at others.
inline constexpr const char* kGone = "it is optimised out here";

class PlaceFinder {
 public:
  // function: out of line; its entry. is_entry: it is called at the address. frames: call frame information; null:
  // there is none.
  PlaceFinder(Dwarf_Die& function, std::uint64_t entry, std::uint64_t address, bool is_entry, Dwarf_CFI* frames);

  // The parameters one behind the other, all of them: the convention counts.
  program::ArgumentPlace find(Dwarf_Die& parameter);
  // Any other variable.
  program::ArgumentPlace find_variable(Dwarf_Die& variable);
  // What lies at an offset from where a pointer at this place leads to.
  program::ArgumentPlace behind(const program::ArgumentPlace& pointer, std::int64_t offset, Dwarf_Die& member) const;

 private:
  using Steps = std::vector<symbols::PlaceStep>;

  // What the calling convention gives the next parameter.
  program::ArgumentPlace by_convention(Dwarf_Die& parameter);
  // None: nothing is known of this address. may_be_rule: since its one place holds behind the function's beginning.
  std::optional<program::ArgumentPlace> by_location(Dwarf_Die& parameter, bool& may_be_rule);
  program::ArgumentPlace of_operations(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count);
  // Of one piece, or of the whole. result: receives it; its steps go to `steps`. Returns why it cannot be read.
  std::string simple(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count, Steps& steps,
                     symbols::ValuePlace& result);
  std::string compile(const Dwarf_Op* operations, std::size_t count, Steps& steps, int depth);
  std::string compile_one(const Dwarf_Op& operation, Steps& steps, int depth);
  std::string compile_typed(Dwarf_Attribute& attribute, const Dwarf_Op& operation, Steps& steps);
  std::string entry_value(const Dwarf_Op& operation, Steps& steps, int depth);
  std::string frame_base(Steps& steps, int depth);
  std::string frame_address(Steps& steps, int depth);

  Dwarf_Die function_;
  std::uint64_t entry_, address_;
  bool is_entry_;
  Dwarf_CFI* frames_;
  Dwarf_Attribute* attribute_ = nullptr;  // whose expression is compiled
  int integers_ = 0, vectors_ = 0;        // registers that earlier parameters have
  std::int64_t stack_ = 8;                // of the next parameter there, from rsp
};

}  // namespace ubp::debuginfo
