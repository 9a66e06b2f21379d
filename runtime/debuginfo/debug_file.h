// The debug information of one ELF file: functions' parameters, types, lines. libdw reads it, in processes of UBP's own
// alone: see runtime/README.md.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/argument_places.h"

struct Dwarf;

namespace ubp::debuginfo {

class TypeWriter;

struct Parameter {
  std::string name;
  std::string spelling;  // of its type, as C has it: "const char*"
  std::string type;      // as a program's C part has it, with the name: "struct Foo* foo[2]"
  program::ArgumentPlace where;
};

struct Line {
  std::vector<std::uint64_t> addresses;  // ELF virtual addresses, ascending; none: there is no code
  bool has_file = false;                 // a source file of this name is known
  std::vector<std::uint32_t> nearest;    // where there is none: lines with code, one before and one behind
};

class DebugFile {
 public:
  // directories: where debug files are looked for first. Null: it has no debug information. Throws std::runtime_error
  // where it is no ELF file.
  static std::unique_ptr<DebugFile> open(const std::string& path, const std::vector<std::string>& directories);
  ~DebugFile();
  DebugFile(const DebugFile&) = delete;
  DebugFile& operator=(const DebugFile&) = delete;

  const std::string& build_id() const { return build_id_; }  // "-": it has none

  // The parameters of the function that has an address, and where they are there. None: no function is known there.
  // types: receives what their types need; null: only names and spellings are wanted.
  std::optional<std::vector<Parameter>> parameters(std::uint64_t address, TypeWriter* types);
  // Where statements of a line begin: one address for each function, and each inlined instance of one, that has some.
  // file: a path, or its last parts. column: 0 for any.
  Line line(std::string_view file, std::uint32_t number, std::uint32_t column);
  // Adds the type with this name, as a program spells it: "struct Foo". False: there is none.
  bool add_type(std::string_view name, TypeWriter& types);

 private:
  struct Units;  // by their addresses
  DebugFile();
  int file_ = -1, elf_file_ = -1;
  Dwarf* dwarf_ = nullptr;  // of the debug file
  void* elf_ = nullptr;     // of the file itself, which has the call frame information
  std::string build_id_;
  std::unique_ptr<Units> units_;  // made when it is first asked for
};

}  // namespace ubp::debuginfo
