// UBP_PROBES text -> items. Pure text: knows no module, no symbol, no address.
//
// The grammar is that of ubp-probes(7); this part reads targets and exclusions and refuses, by name and column, the
// parts of the full grammar that are not built yet (other kinds, options, captures). Filters and blocks are
// program_parser.h's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/language/tree.h"

namespace ubp::language {

enum class Kind : std::uint8_t {
  kEntry,      // "u", "uprobe", the default: one instruction
  kReturn,     // "ur", "uretprobe": the returns of a function
  kCall,       // "call": the same, with what is kept from the entry on
  kInsn,       // "insn": every instruction of a function or an address range
  kMark,       // "U", "usdt": where the program's author has put a static mark
  kStatement,  // "stmt": every statement of functions or source lines, by debug information
  kInline,     // "inline": where inlined instances of a function begin, and the function itself, likewise
};
std::string_view kind_name(Kind kind);  // "uprobe", as reports print it
inline bool is_of_returns(Kind kind) { return kind == Kind::kReturn || kind == Kind::kCall; }

// symbol-glob[@version][+offset]
struct SymbolTarget {
  std::string pattern;       // glob; when quoted, exact text first. With its @VERSION or @@VERSION
  bool quoted = false;       // written in quotes: may hold spaces, colons and parentheses
  std::uint64_t offset = 0;  // bytes from the function's entry
};

// module:0xADDR or, for Kind::kInsn, module:0xA-0xB: ELF virtual addresses of the module
struct AddressTarget {
  std::uint64_t address = 0;
  std::uint64_t end = 0;  // one past the range; address + 1 for a single address
};

// For Kind::kMark, module:provider:name or module:name; globs
struct MarkTarget {
  std::string provider;  // empty: any
  std::string name;
};

// module@file:line or module@file:line:column, module@file:*
struct LineTarget {
  std::string file;                    // a path's last parts: "a.c", "src/a.c"; a glob
  std::uint32_t line = 0, column = 0;  // 0: any
};

// Where an item is by debug information. It stands in the text, from whoever has read that (Definitions::statements).
struct FoundPlaces {
  std::string build_id;                  // of the module that has the addresses; "-": it has none
  std::vector<std::uint64_t> addresses;  // ELF virtual addresses, ascending
};

// Item::probe of a target without a filter or block: its hits are counted.
inline constexpr std::uint32_t kBare = ~std::uint32_t{0};

struct Item {
  std::string text;            // as typed, without surrounding space; reports show it
  Position position{};         // of the item's first character
  Position target_position{};  // of the symbol or address
  bool exclude = false;        // "!item": removes what an earlier item matched
  bool pending = false;        // [missing=pending]: also for modules that are loaded later
  bool awaited = false;        // pending, if no such module is loaded when the plan is made
  Kind kind = Kind::kEntry;
  std::string module;  // basename glob; empty: the executable
  std::variant<SymbolTarget, AddressTarget, MarkTarget, LineTarget> target;
  std::uint32_t probe = kBare;  // which of the program's it is an attach point of
  std::vector<FoundPlaces> found{};

  // Only debug information says where it is.
  bool is_by_debug_information() const {
    return kind == Kind::kStatement || kind == Kind::kInline || std::holds_alternative<LineTarget>(target);
  }
};

struct Error {
  Position position{};
  std::string message;  // one line, no final full stop, e.g. "expected a symbol after ':'"
  Position end{0, 0};   // behind what is wrong, where that is known: in a filter or a block
};

// True when `text` holds a glob character (* ? [).
bool is_glob(std::string_view text);

// Matches a shell-style glob: * any run, ? any character, [a-z] [!a-z] a class, \ quotes the next character.
// Not anchored to path separators. Never recurses: random patterns cost O(pattern x text).
bool glob_match(std::string_view pattern, std::string_view text);

inline constexpr std::size_t kMaxItems = std::size_t{1} << 22;

// Parses a whole specification, of at most so many items.
// text: any bytes, at most 16 MiB; NUL and invalid UTF-8 are errors, not undefined behaviour. program: receives the
// filters and blocks; null: there may be none. parameters: those of them that begin with no "--" stand for $1, $2, ...
// in targets. Returns the items in order (empty when there is nothing but space and comments), or the first error.
// Context: load time. Async-signal-safe: no (allocates). Thread-safe: yes.
std::variant<std::vector<Item>, Error> parse(std::string_view text, std::size_t most = kMaxItems,
                                             Program* program = nullptr,
                                             const std::vector<std::string>& parameters = {});

}  // namespace ubp::language
