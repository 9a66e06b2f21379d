// DWARF's location expressions as the steps that programs compute. Source: DWARF 5, 2.5 and 2.6; psABI 3.6.2 ("DWARF
// Register Number Mapping").
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/symbols/value_place.h"

namespace ubp::debuginfo {

// Begins the problem of a variable that has no place at an address, where it may have one at others.
inline constexpr const char* kGone = "it is optimised out here";
inline constexpr const char* kInWideVector = "it is in a vector register of more than 16 bytes";

inline constexpr std::int8_t kStackPointer = 4;
// By DWARF's number. None: it is no general one; nor one of %xmm0 to %xmm15.
std::optional<std::int8_t> general_register(std::uint64_t number);
std::optional<std::int8_t> value_register(std::uint64_t number);
symbols::ValuePlace place_in(symbols::ValuePlace::Kind kind, std::int8_t base, std::int64_t offset);

class PlaceExpressions {
 public:
  using Steps = std::vector<symbols::PlaceStep>;

  // function: out of line; its entry. is_entry: it is called at the address. frames: call frame information; null:
  // there is none.
  PlaceExpressions(Dwarf_Die& function, std::uint64_t entry, std::uint64_t address, bool is_entry, Dwarf_CFI* frames)
      : function_(function), entry_(entry), address_(address), is_entry_(is_entry), frames_(frames) {}

  std::uint64_t address() const { return address_; }
  bool is_entry() const { return is_entry_; }

  // Adds the steps of an attribute's expression. Returns why they cannot be computed; empty: they can.
  std::string compile(Dwarf_Attribute& attribute, const Dwarf_Op* operations, std::size_t count, Steps& steps);

 private:
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
};

}  // namespace ubp::debuginfo
