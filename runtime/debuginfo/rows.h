// The rows of line tables at which statements begin.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace ubp::debuginfo {

struct Row {
  std::uint64_t address;
  std::uint32_t line, column;
  const char* path;  // one text for each file of a unit
};

// Calls visit(row) for those of a unit, in the order of the table.
template <typename Visit>
void for_each_row(Dwarf_Die& unit, const Visit& visit) {
  Dwarf_Lines* lines = nullptr;
  std::size_t count = 0;
  if (dwarf_getsrclines(&unit, &lines, &count) != 0) return;
  for (std::size_t i = 0; i < count; ++i) {
    Dwarf_Line* const row = dwarf_onesrcline(lines, i);
    bool is_statement = false, is_end = false;
    int line = 0, column = 0;
    Dwarf_Addr address = 0;
    if (dwarf_linebeginstatement(row, &is_statement) != 0 || !is_statement ||
        dwarf_lineendsequence(row, &is_end) != 0 || is_end || dwarf_lineno(row, &line) != 0 || line <= 0 ||
        dwarf_lineaddr(row, &address) != 0)
      continue;
    const char* const path = dwarf_linesrc(row, nullptr, nullptr);
    if (path == nullptr) continue;
    if (dwarf_linecol(row, &column) != 0) column = 0;
    visit(Row{address, static_cast<std::uint32_t>(line), static_cast<std::uint32_t>(column), path});
  }
}

// A path that is relative is so to where the compiler ran.
std::string full_path(Dwarf_Die& unit, const std::string& path);

}  // namespace ubp::debuginfo
