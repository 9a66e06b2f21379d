// The debug information of one ELF file: functions' parameters, types, lines. libdw reads it, in processes of UBP's own
// alone: see runtime/README.md.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/analysis/argument_places.h"
#include "runtime/stack/source_frame.h"

namespace ubp::debuginfo {

class Package;
class PlaceFinder;
class TypeWriter;
class Units;

// Of a function, or another variable.
struct Parameter {
  std::string name;
  std::string spelling;  // of its type, as C has it: "const char*"
  std::string type;      // as a program's C part has it, with the name: "struct Foo* foo[2]"
  program::ArgumentPlace where;
  std::string lives{};  // of what is visible: at which lines of its function it has a place: "12-14, 17"
};
// What can be seen at a place.
struct Visible {
  std::string function, file;  // the function's raw name, of an inlined one its own
  std::uint32_t line = 0;      // 0: not known
  std::vector<Parameter> variables;
};
// Lines of a function, or of a whole file.
struct SourceLines {
  std::string function, file;        // function: empty for a file
  std::uint32_t first = 0;           // where it is declared; 0: not known
  std::vector<std::uint32_t> lines;  // those with code, ascending
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

// What a file's debug information refers to and is not there, or cannot be read. what: empty: nothing.
struct Lack {
  std::string what, hint;
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

  // Other files that have a part of it: an alternative one (dwz), or all of its split units (.dwo, .dwp).
  const Lack& lack();

  // The parameters of the function at a place, and where they are there. None: no function is known there.
  // types: receives what their types need; null: only names and spellings are wanted.
  std::optional<std::vector<Parameter>> parameters(const Place& place, TypeWriter* types);
  // A variable that can be seen by this name at a place: of the innermost block, of the function, then one that is
  // static or global. In C++ also a member of *this. None: there is none.
  std::optional<Parameter> variable(const Place& place, const std::string& name, TypeWriter& types);
  // The function's parameters and variables that can be seen at a place. None: no function is known there.
  std::optional<Visible> visible(const Place& place);
  // Which lines have code, by functions, or of files.
  std::vector<SourceLines> sources(const FunctionPattern& pattern);
  std::vector<SourceLines> sources(const LineQuery& query);
  // What is at an address, the innermost first; the last one is the function that was compiled. Empty: not known.
  std::vector<stack::SourceFrame> source_frames(std::uint64_t address);
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
  struct Scope;
  struct Globals;
  DebugFile();
  bool open_dwarf(const std::string& path);
  void link_package(const std::string& debug_path);
  Units& units();
  bool is_text(std::uint64_t address) const;
  bool find_scope(const Place& place, Scope& scope);
  void* frames();  // Dwarf_CFI
  void find_places(Scope& scope);
  PlaceFinder finder_of(const Scope& scope);
  Parameter describe(Scope& scope, Dwarf_Die& die, TypeWriter* types);
  std::optional<Parameter> member_of_this(Scope& scope, const std::string& name, TypeWriter& types);
  const std::string& lives(Scope& scope, Dwarf_Die& die);

  int file_ = -1, elf_file_ = -1;
  Elf* dwarf_elf_ = nullptr;  // of the debug file, as this
  Dwarf* dwarf_ = nullptr;
  std::unique_ptr<Package> package_;  // of its split units; null: there is none, or libdw reads it
  void* elf_ = nullptr;               // of the file itself, which has the call frame information
  std::string path_, build_id_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> text_;  // what is executable; code that was left out is at 0
  std::unique_ptr<Units> units_;                               // made when it is first asked for, as these are
  std::unique_ptr<Globals> globals_;
  void *frames_ = nullptr, *own_frames_ = nullptr;
  bool has_frames_ = false;
  std::optional<Lack> lack_;
  std::map<const void*, std::string> lives_;  // by variable: at which lines it has a place
};

}  // namespace ubp::debuginfo
