// What a program means: the type of every expression, its maps and variables, the events it prints.
//
// Types are inferred over the whole program before code is made: the tree is walked until nothing changes any more, so
// that a map that is read in the first block may get its type in the last one.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/config.h"
#include "runtime/analysis/diagnostic.h"
#include "runtime/analysis/inputs.h"
#include "runtime/analysis/layout.h"
#include "runtime/analysis/types.h"
#include "runtime/language/tree.h"

namespace ubp::program {

inline constexpr std::uint32_t kNone = ~std::uint32_t{0};

struct Map {
  std::string name;  // with its @
  Type key;          // kNone: it has none; several keys: a tuple
  Type value;
  std::uint64_t capacity = 0;
  bool is_cleared = false;                   // its cells are set to zero somewhere: clear(), zero(), delete()
  bool evicts = false;                       // when it is full, a key that was not used lately makes room
  std::uint8_t power = 0;                    // of hist(), tseries(); see MapView
  std::int64_t low = 0, high = 0, step = 0;  // of lhist(), tseries()
  language::Span first{};                    // where it is met first
  bool has_keys = false;
};

// What a reader prints.
struct Event {
  enum class Kind : std::uint8_t {
    kFormat,
    kValue,
    kMap,
    kError,    // errorf(): a message on standard error
    kWarning,  // warnf()
    kTime,     // time(): one value, the time
    kFile,     // cat(): what is in the file of this name
    kCommand,  // system(): what the command prints
    kCall,     // tree(): call_event.h
  };
  Kind kind = Kind::kFormat;
  std::string format{};        // of printf and what is formatted as that
  std::vector<Type> values{};  // kMap: none
  std::uint32_t map = kNone;
  language::Span span{};                        // kError, kWarning: of the call
  std::vector<language::Span> expanded_from{};  // the uses of macros that it is in, innermost first
};

// Where something may go wrong at run time.
struct Site {
  enum class Kind : std::uint8_t { kDivision, kBudget, kAddress, kBounds, kMissingKey, kUnknown };
  Kind kind;
  language::Span span;
};

// What is known of a node.
struct Fact {
  Type type;
  std::uint32_t index = kNone;  // of the map, variable, event, site or symbol address that it uses
  std::uint32_t site = kNone;   // of a map that is read: where its key is missed; of an argument: where it is not known
};

struct Analysis {
  std::shared_ptr<const Types> types;
  std::vector<Fact> facts;  // by Node::id
  std::deque<Map> maps;     // a reference to one stays good
  std::vector<Type> variables;
  std::vector<Event> events;
  std::vector<Site> sites;
  std::vector<bool> reads_registers;      // by probe: those that a call keeps
  std::vector<language::Span> overrides;  // by probe: its first override(); line 0: it has none
  // By probe: which arguments it asks for, bit 0 for the first: of static marks; of functions, by debug information.
  std::vector<std::uint64_t> mark_arguments, named_arguments;
  std::vector<std::string> symbol_files;  // by probe: the build-id of the file that uaddr() looks into; empty: none
  std::vector<std::uint64_t> symbol_addresses;  // of each uaddr(): as its file has it
  std::vector<bool> keeps_arguments;            // by probe: of calls, from their entries to their returns
  std::vector<bool> is_tree;                    // by probe: tree() tells of its calls
  std::uint32_t tree_event = kNone;             // and what; kNone: no probe has it
  std::uint64_t tree_depth = 0;                 // calls in so many others are not told
  bool keeps_calls = false;                     // some probe of calls asks for more than what returns
  bool uses_names = false;                      // `probe` or `func`
  bool uses_stacks = false;
  language::Span first_stack{};           // where one is taken first
  std::shared_ptr<StackText> stack_text;  // null: neither stacks nor names of addresses are printed
  Config config;
  std::uint32_t time_map = kNone;       // tests only: tseries() takes the time from this map
  std::vector<Diagnostic> diagnostics;  // errors first

  const Fact& of(const language::Node& node) const { return facts[node.id]; }
  const Type& type(const language::Node& node) const { return facts[node.id].type; }
  bool has_errors() const { return !diagnostics.empty() && !diagnostics.front().is_warning; }
};

// Puts macros and inputs in their places, in the tree, and then says what it means.
Analysis analyse(language::Program& program, const Inputs& inputs = {});

// Whether a node is `args`.
bool is_arguments(const language::Node& node);
// Whether it is args.NAME.
bool is_argument(const language::Node& node);

// Whether it is uaddr("NAME").
bool is_symbol_address(const language::Node& node);
// Whether a text may be a symbol's name, as #symbol has one.
bool is_symbol_name(std::string_view text);

// Whether an argument of a type is read where it is, and only what is used of it.
inline bool is_read_in_place(const Type& type) {
  constexpr std::uint32_t kMostCopied = 64;
  return type.is_wide() && type.size() > kMostCopied;
}
// How many of a probe's arguments are named one by one (mark_types.h): these are the first.
std::uint32_t named_count(const Types& types, std::uint32_t probe);

// What a block is worth, where it is an expression: its last statement; null: nothing.
const language::Node* value_of_block(const language::Node& block);
// The same of blocks in blocks: what an expression's value comes from.
const language::Node& value_within(const language::Node& expression);

// Whether an operation's sides are handled as unsigned numbers: both are, or the other is a literal that is no negative
// one.
bool are_unsigned(const Analysis& analysis, const language::Node& left, const language::Node& right);

}  // namespace ubp::program
