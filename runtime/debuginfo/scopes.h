// Functions in debug information: which has an address, what is inlined in it, what they are called.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/rows.h"

namespace ubp::debuginfo {

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;  // [first, second)

Ranges ranges_of(Dwarf_Die& die);
bool is_in(const Ranges& ranges, std::uint64_t address);

// A function, or an inlined instance of one. parent: what it is inlined in, an index; -1: it is the function.
struct Instance {
  Dwarf_Die die{};
  int parent = -1;
  std::uint64_t entry = 0;
  std::uint32_t call_line = 0;  // where it would be called
  Ranges ranges{};
};

// A row of the line table, and the innermost instance that it belongs to: its DIE.
struct OwnedRow {
  Row row;
  const void* instance;
};

// A function out of line, with all that is inlined in it: the function first, others behind their parents.
struct Function {
  Dwarf_Die die{};
  Ranges ranges{};                    // the one that has the entry first
  std::vector<Instance> instances{};  // see instances_of
  std::vector<OwnedRow> rows{};       // see Units::rows
};
const std::vector<Instance>& instances_of(Function& function);
// The innermost one at an address; where a statement of this line calls what begins there, it is still outside of it.
const Instance& instance_at(Function& function, std::uint64_t address, std::uint32_t line);
// The same DIE's; the function, where there is none.
const Instance& instance_called(Function& function, const void* die);
// The instance, and the blocks in it that have the address, each in the one before.
std::vector<Dwarf_Die> blocks_at(const Instance& instance, std::uint64_t address);

// As linkers name it; a C function's own name.
std::string raw_name_of(Dwarf_Die& function);

// Compilation units, by their addresses, and their functions.
class Units {
 public:
  explicit Units(Dwarf* dwarf);

  struct Unit {
    Dwarf_Die skeleton{}, whole{};  // of split ones the part that is in the file, and the part with all of it
    std::vector<Function> functions{};
    std::vector<std::pair<std::uint64_t, std::size_t>> by_address{};  // ranges' beginnings, sorted; of functions
    std::vector<Row> rows{};                                          // by address
    bool is_read = false, has_rows = false;
  };
  std::vector<Unit>& all() { return units_; }
  // The file that declares an instance, as line tables name it; null: it is not known.
  static const char* file_of(Unit& unit, const Instance& instance);
  std::vector<Function>& functions(Unit& unit);
  // Those of a function, by address.
  static const std::vector<OwnedRow>& rows(Unit& unit, Function& function);
  // Null: none has the address.
  Function* function_at(std::uint64_t address);
  Function* function_at(Unit& unit, std::uint64_t address);
  Unit* unit_at(std::uint64_t address);

 private:
  struct Range {
    std::uint64_t begin, end;
    std::size_t unit;
  };
  std::vector<Unit> units_;
  std::vector<Range> ranges_;
};

}  // namespace ubp::debuginfo
