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
#include <utility>
#include <vector>

#include "runtime/analysis/argument_places.h"

struct Dwarf;

namespace ubp::debuginfo {

class TypeWriter;
class Units;

struct Parameter {
  std::string name;
  std::string spelling;  // of its type, as C has it: "const char*"
  std::string type;      // as a program's C part has it, with the name: "struct Foo* foo[2]"
  program::ArgumentPlace where;
};

// A place in the code, as an ELF virtual address.
struct Place {
  std::uint64_t address = 0;
  // In which function, or inlined instance of one, the source is there: its DIE. Null: the function out of line.
  const void* instance = nullptr;
  bool is_innermost = false;  // in whichever is innermost
};

// Functions by name. text: as for symbols::name_fits().
struct FunctionPattern {
  std::string text;
  bool is_quoted = false;
};
struct LineQuery {
  std::string file;                    // a path, or its last parts; a glob
  std::uint32_t line = 0, column = 0;  // 0: any
  bool all = false;  // every statement; else one for each line in each function, and in each inlined instance of one
};
struct Found {
  std::vector<Place> places{};           // ascending, no two alike; none: there is no code
  bool has_file = false;                 // a source file of this name is known
  std::vector<std::uint32_t> nearest{};  // of a line: those with code next to it, one before and one behind
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

  // The parameters of the function at a place, and where they are there. None: no function is known there.
  // types: receives what their types need; null: only names and spellings are wanted.
  std::optional<std::vector<Parameter>> parameters(const Place& place, TypeWriter* types);
  // Where statements of source lines begin.
  Found lines(const LineQuery& query);
  // All statements of functions, with what is inlined in them. Ascending, no two alike.
  std::vector<Place> statements(const FunctionPattern& pattern);
  // Where functions and their inlined instances begin. Likewise. inlined: receives how many instances there are; or
  // null.
  std::vector<Place> instances(const FunctionPattern& pattern, std::size_t* inlined);
  // Adds the type with this name, as a program spells it: "struct Foo". False: there is none.
  bool add_type(std::string_view name, TypeWriter& types);

 private:
  DebugFile();
  Units& units();
  bool is_text(std::uint64_t address) const;

  int file_ = -1, elf_file_ = -1;
  Dwarf* dwarf_ = nullptr;  // of the debug file
  void* elf_ = nullptr;     // of the file itself, which has the call frame information
  std::string build_id_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> text_;  // what is executable; code that was left out is at 0
  std::unique_ptr<Units> units_;                               // made when it is first asked for
};

}  // namespace ubp::debuginfo
