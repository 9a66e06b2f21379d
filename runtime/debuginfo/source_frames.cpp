// The source of an address: the functions that are inlined there, and their lines.
#include <dwarf.h>
#include <elfutils/libdw.h>

#include "runtime/debuginfo/debug_file.h"
#include "runtime/debuginfo/scopes.h"
#include "runtime/debuginfo/types.h"

namespace ubp::debuginfo {

std::vector<stack::SourceFrame> DebugFile::source_frames(std::uint64_t address) {
  std::vector<stack::SourceFrame> frames;
  Units::Unit* const unit = units().unit_at(address);
  Function* const function = unit != nullptr ? units().function_at(*unit, address) : nullptr;
  if (function == nullptr) return frames;
  std::string path;
  int line = 0;
  if (Dwarf_Line* const row = dwarf_getsrc_die(&unit->skeleton, address)) {
    const char* const its = dwarf_linesrc(row, nullptr, nullptr);
    if (its != nullptr && dwarf_lineno(row, &line) == 0) path = full_path(unit->skeleton, its);
  }
  Dwarf_Files* files = nullptr;
  std::size_t count = 0;
  if (dwarf_getsrcfiles(&unit->skeleton, &files, &count) != 0) count = 0;
  const std::vector<Instance>& all = instances_of(*function);
  const Instance* its = &instance_at(*function, address, static_cast<std::uint32_t>(line));
  while (true) {
    Dwarf_Die die = its->die;
    frames.push_back({raw_name_of(die), path, static_cast<std::uint32_t>(line)});
    if (its->parent < 0) return frames;
    // What it is inlined in is at the call.
    const std::uint64_t file = number_of(die, DW_AT_call_file, 0);
    const char* const its_file = file < count ? dwarf_filesrc(files, file, nullptr, nullptr) : nullptr;
    path = its_file != nullptr ? full_path(unit->skeleton, its_file) : "";
    line = static_cast<int>(its->call_line);
    its = &all[static_cast<std::size_t>(its->parent)];
  }
}

}  // namespace ubp::debuginfo
