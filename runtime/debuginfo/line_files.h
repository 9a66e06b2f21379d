// Which source files a unit's line table has, from the table's head alone: libdw reads whole tables, and a target of
// source lines means few of them.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <string_view>

#include "runtime/debuginfo/sections.h"

namespace ubp::debuginfo {

class LineFiles {
 public:
  // dwarf: outlives this.
  explicit LineFiles(Dwarf* dwarf);

  // Whether a unit has a file whose name, without folders, fits the last part of a path or glob. True where that cannot
  // be told.
  bool may_have(Dwarf_Die& unit, std::string_view wanted) const;

 private:
  Bytes lines_, texts_, line_texts_;  // .debug_line, .debug_str, .debug_line_str
};

}  // namespace ubp::debuginfo
