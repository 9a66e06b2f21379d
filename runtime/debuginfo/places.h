// Where a function's parameters are at an address, from DWARF's location expressions and, at the function's entry, from
// the calling convention.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <optional>

#include "runtime/analysis/argument_places.h"

namespace ubp::debuginfo {

class PlaceFinder {
 public:
  // function: out of line. is_entry: it is called there. elf: of the file that has the call frame information.
  PlaceFinder(Dwarf_Die& function, std::uint64_t address, bool is_entry, Elf* elf);

  // The parameters one behind the other, all of them: the convention counts.
  program::ArgumentPlace find(Dwarf_Die& parameter);

 private:
  // What the calling convention gives the next parameter.
  program::ArgumentPlace by_convention(Dwarf_Die& parameter);
  // None: nothing is known of this address. may_be_rule: since its one place holds behind the function's beginning.
  std::optional<program::ArgumentPlace> by_location(Dwarf_Die& parameter, bool& may_be_rule);
  std::optional<program::ArgumentPlace> of_operations(const Dwarf_Op* operations, std::size_t count);
  bool find_frame(std::int8_t& base, std::int64_t& offset);

  Dwarf_Die function_;
  std::uint64_t address_;
  Elf* elf_;
  bool is_entry_;
  int integers_ = 0, vectors_ = 0;  // registers that earlier parameters have
  std::int64_t stack_ = 8;          // of the next parameter there, from rsp
};

}  // namespace ubp::debuginfo
