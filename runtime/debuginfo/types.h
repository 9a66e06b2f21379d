// DWARF's types as C's: for programs, and as people write them.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ubp::debuginfo {

// What an attribute refers to. False: it is not there.
bool die_of(Dwarf_Die& die, unsigned attribute, Dwarf_Die& result);
std::string name_of(Dwarf_Die& die);
// Its type without typedefs and qualifiers. False: it is void.
bool plain_type_of(Dwarf_Die& die, Dwarf_Die& result);
std::uint64_t number_of(Dwarf_Die& die, unsigned attribute, std::uint64_t otherwise);

// As C writes it, a pointer's star behind its type: "const char*", "struct Foo*".
std::string spelling_of(Dwarf_Die& declared);

// Collects types as a program's C part.
class TypeWriter {
 public:
  // known: names that the program defines by itself ("struct Foo"): they stay as they are there.
  explicit TypeWriter(std::set<std::string> known) : known_(std::move(known)) {}

  // A declaration of something that has a type: "struct Foo* name[2]".
  std::string declare(Dwarf_Die& declared, const std::string& name);
  // A struct, union or enum, which a program then knows. Returns its name there.
  std::string define(Dwarf_Die& type);
  // All that was needed, in an order in which C could read it.
  std::string take();

 private:
  struct Shape {
    std::string base, suffix;  // "struct Foo*", "[2]"
    std::uint64_t size = 0, alignment = 1;
  };
  struct MemberShape {
    std::string text;
    std::uint64_t offset = 0, size = 0, alignment = 1;
    int bits = -1;
    std::uint64_t bit_offset = 0;
  };
  Shape shape(Dwarf_Die* type);  // null: void
  Shape struct_shape(Dwarf_Die& type, const std::string& alias);
  Shape array_shape(Dwarf_Die& type);
  Shape base_shape(Dwarf_Die& type) const;
  std::string body(Dwarf_Die& type, std::uint64_t& alignment);
  std::vector<MemberShape> members(Dwarf_Die& type);
  std::string alias_of(Dwarf_Die& type);

  std::set<std::string> known_;
  std::map<std::string, std::uint64_t> done_;              // their alignment, by name
  std::deque<std::pair<Dwarf_Die, std::string>> waiting_;  // behind pointers
  std::string text_;
  std::size_t count_ = 0;
};

}  // namespace ubp::debuginfo
