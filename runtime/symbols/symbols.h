// What is loaded in this process and which functions it has. Load time only.
//
// modules.cpp asks the dynamic linker; elf_functions.cpp gathers functions: mapped_file.cpp reads .dynsym and .eh_frame
// where they are mapped, and elf_file.cpp .symtab and separate debug files where there are such; match.cpp picks
// functions by glob; nearest.cpp finds what a misspelt name may have meant; versions.cpp reads the versions of symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ubp::symbols {

class Readable;

struct Segment {                // one PT_LOAD
  std::uint64_t address = 0;    // ELF virtual address
  std::uint64_t size = 0;       // bytes in memory
  std::uint64_t file_size = 0;  // of them from the file; zeros follow
  bool executable = false;
  bool writable = false;
  bool readable = true;

  bool operator==(const Segment&) const = default;
};

struct Module {
  std::string path;        // as the dynamic linker names it; the executable's real path for the executable
  std::string name;        // basename of path ("libc.so.6"); "linux-vdso.so.1" for the vDSO
  std::uint64_t bias = 0;  // run-time address = ELF virtual address + bias
  std::vector<Segment> segments;
  std::uint64_t unwind_index = 0;                // ELF address of .eh_frame_hdr; 0: none
  std::uint64_t dynamic = 0, dynamic_bytes = 0;  // the dynamic section; 0 bytes: none
  std::string build_id;                          // of the mapped image, in hexadecimal; empty when it carries none
  bool is_executable = false;                    // the main program
  bool is_runtime = false;                       // libubp itself
  bool is_vdso = false;
  // From every thread's pointer (%fs:0) to what it has of the module's thread-local variables; none: there are none, or
  // they lie elsewhere in each thread, as those of libraries that come later do.
  std::optional<std::int64_t> thread_storage;
  std::uint64_t thread_storage_bytes = 0;
  bool has_go_note = false;           // Go's linker has left its build-id
  bool is_relocated = true;           // false: just mapped; its code must not run yet, its data not be believed
  bool has_text_relocations = false;  // the dynamic linker writes into its code, too, when it relocates it

  std::uint64_t low() const;  // lowest and one-past-highest run-time address of all segments
  std::uint64_t high() const;
  const Segment* segment_at(std::uint64_t elf_address) const;
  // The mapped bytes from an ELF virtual address on; nullptr when not all `size` of them lie in its segment and can be
  // read, as the program has its memory now.
  const std::uint8_t* bytes_at(std::uint64_t elf_address, std::uint64_t size) const;
  // The same for one of many pieces: `readable` remembers what it has asked.
  const std::uint8_t* bytes_at(std::uint64_t elf_address, std::uint64_t size, Readable& readable) const;
};

// Every module of the main namespace, the executable first, then in load order.
// Context: load time. Async-signal-safe: no (takes the dynamic linker's lock). Thread-safe: yes.
std::vector<Module> loaded_modules();

// Changes whenever the dynamic linker has loaded or unloaded a module.
std::uint64_t modules_generation();

// The path with its links followed; as it is when they lead nowhere.
std::string real_path(const std::string& path);

// True when `glob` names the module: it matches the basename, the basename without its version ("libc.so",
// "libc"), or, with a slash in it, the whole path as listed or with its links followed ("*/libc.so.6", or
// "./app", relative to the working directory). "libc" finds libc.so.6 and not libcrypto.so.3.
bool module_matches(const Module& module, std::string_view glob);

enum class Binding : std::uint8_t { kLocal, kWeak, kGlobal };

// The start of a probed program makes thousands of these: small, and without text of their own.
class Function {
 public:
  // ELF virtual address of the entry (an IFUNC's chosen implementation, not its resolver).
  std::uint64_t address = 0;
  std::uint64_t size = 0;  // bytes: the symbol's, or an alias's, or .eh_frame's; 0 when none of them says
  // One past the last byte that can belong to it: by size, else the next function or segment end.
  std::uint64_t end = 0;
  Binding binding;
  std::uint16_t version = 0;  // of the symbol, to FunctionTable; 0: none

  Function(std::uint64_t at, std::uint64_t bytes, Binding bound, std::string_view symbol,
           std::uint16_t symbol_version = 0)
      : address(at),
        size(bytes),
        binding(bound),
        version(symbol_version),
        symbol_size_(static_cast<std::uint32_t>(symbol.size())),
        symbol_(symbol.data()) {}

  // As in the symbol table, without @VERSION; empty: known from .eh_frame only. Valid as long as the FunctionTable.
  std::string_view symbol() const { return {symbol_, symbol_size_}; }
  bool has_symbol() const { return symbol_size_ != 0; }
  // The symbol, or without one sub_<address>: "sub_1a2b0".
  std::string name() const;

 private:
  std::uint32_t symbol_size_;
  const char* symbol_;
};
static_assert(sizeof(Function) == 40);

// In Function::version: the static linker chooses another version of the symbol.
inline constexpr std::uint16_t kNotDefault = 0x8000;

// A name as it may be asked for: "memcpy", "memcpy@GLIBC_2.14" (that version), "memcpy@@GLIBC_2.14" (that version,
// if it is the one that the static linker chooses).
struct VersionedName {
  explicit VersionedName(std::string_view text);
  std::string_view name;
  std::string_view version;  // empty: any
  bool is_default = false;
};

// The functions of one module: sorted by address, then global before weak before local, then fewer leading
// underscores, then shorter, then by name, then the default version first. Aliases are separate entries with equal
// addresses, and so are the versions of a symbol.
class FunctionTable {
 public:
  // Reads the module's symbol tables, and .eh_frame for what they leave out: the linker's stubs in .plt are
  // one function there. Throws std::runtime_error with one line that says what and why when the file cannot
  // be read or is not the one mapped; a file without any function gives an empty table. Calls the module's
  // IFUNC resolvers when it is mapped in this process, as the dynamic linker did.
  static FunctionTable load(const Module& module);

  FunctionTable(FunctionTable&&) = default;
  FunctionTable& operator=(FunctionTable&&) = default;

  const std::vector<Function>& functions() const { return functions_; }
  // The best-named function whose [address, end) holds the ELF address; nullptr when none does. Thread-safe: no.
  const Function* containing(std::uint64_t elf_address) const;
  // Which tables were read, joined by '+', for messages: "symtab", "dynsym", "debug file", "eh_frame";
  // or "no symbols".
  const std::string& sources() const { return sources_; }

  // What a name is when it is not a function: kData (an object here), kUndefined (imported),
  // kElsewhere (an IFUNC whose chosen implementation lies in another module: libc's time is the vDSO's).
  enum class Other : std::uint8_t { kAbsent, kData, kUndefined, kElsewhere };
  Other other(std::string_view name) const;  // thread-safe: no

  // All functions that `pattern` names, by address. A pattern is a glob over the raw name, the demangled
  // name, the demangled name without parameters, and that without template arguments and return type. An
  // exact raw name beats every other match; a quoted pattern that equals one of these forms beats its meaning
  // as a glob ("operator*"). A version behind it (VersionedName) has to be the symbol's. Aliases at one address
  // are returned once, under the name that matched (best-ranked first). Thread-safe: no (fills a cache of
  // demangled names).
  std::vector<const Function*> match(std::string_view pattern, bool quoted) const;
  // Up to three function names nearest to `name` by edit distance (raw or demangled), best first; empty when
  // none is near. Functions without symbol are among them only for a name that begins with sub_.
  std::vector<std::string> nearest(std::string_view name) const;
  // "@GLIBC_2.2.5", "@@GLIBC_2.14" for the default version; empty: the symbol has none.
  std::string version_of(const Function& function) const;
  // Whether another function of this module has the same name: only the version tells them apart. Thread-safe: no.
  bool needs_version(const Function& function) const;

 private:
  FunctionTable() = default;
  bool has_version(const Function& function, const VersionedName& wanted) const;
  std::string_view demangled(std::size_t index) const;

  std::vector<Function> functions_;
  std::unique_ptr<char[]> text_;  // all names, which the others refer to
  std::string sources_;
  std::vector<std::string> versions_;  // by Function::version without kNotDefault
  // Made when they are first asked for: most starts ask for none.
  mutable std::vector<std::uint64_t> reach_;                        // the highest end among functions_[0..i]
  mutable std::vector<std::pair<std::string_view, Other>> others_;  // sorted by name when is_sorted_
  mutable bool is_sorted_ = false;
  mutable std::optional<std::vector<std::string_view>> ambiguous_;  // names of several functions, sorted
  mutable std::vector<std::string> demangled_;  // beside functions_; an entry is filled when first asked for
};

// The demangled C++ name, or the name itself when it is not a mangled one.
std::string demangle(std::string name);

}  // namespace ubp::symbols
