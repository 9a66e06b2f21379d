// Programs as a tree: what the text says, before anything is known of types. See program_parser.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ubp::language {

// 1-based place in the text; columns count bytes.
struct Position {
  int line = 1;
  int column = 1;
};

// From its first byte to behind its last one.
struct Span {
  Position begin, end;
};

enum class NodeKind : std::uint8_t {
  // Expressions. What their children are stands behind them.
  kNumber,
  kBool,
  kString,
  kName,         // a builtin: pid, arg0
  kVariable,     // $x; text without the $
  kMap,          // @x[key, ...]; text with the @; without children: the map itself, or its only value
  kCall,         // text(arguments)
  kUnary,        // operand
  kIncrement,    // a variable or map; see Operator
  kBinary,       // left, right
  kConditional,  // condition, value if it holds, value if not
  kTuple,        // elements
  kMember,       // tuple; number: the element's index. Or a struct, or a pointer to one; text: the member's name
  kIndex,        // array, pointer, tuple or string, and which element
  kCast,         // value, kType
  kSizeOf,       // kType or an expression
  kOffsetOf,     // kType or an expression; text: the member's path
  kType,         // text: a type by its name (types.h). With a child, what stands behind it ("*", "[2]"): behind another
                 // kType, or behind the type of an expression
  kParameter,    // $1 by its number; $#: 0
  // Statements.
  kExpression,  // expression; number 1: its value is thrown away on purpose
  kAssign,      // a variable or map, value; operation: of a compound one
  kDeclare,     // let $x: kType if there is one, value if there is one
  kIf,          // condition, block, and an else: a block or another kIf; also an expression, as kBlock is
  kWhile,       // condition, block
  kUnroll,      // count, block
  kForRange,    // text: the variable; from, to, block
  kForMap,      // text: the variable; map, block
  kBlock,       // statements; number 1: the last one is an expression that it is worth
  kBreak,
  kContinue,
  kReturn,  // a value, if there is one
};

enum class Operator : std::uint8_t {
  kNone,
  kMultiply,
  kDivide,
  kModulo,
  kAdd,
  kSubtract,
  kShiftLeft,
  kShiftRight,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kEqual,
  kNotEqual,
  kBitAnd,
  kBitXor,
  kBitOr,
  kAnd,
  kOr,
  kNot,         // unary, as those below
  kComplement,  // ~
  kNegate,
  kDereference,   // *
  kAddressOf,     // &
  kPreIncrement,  // of kIncrement, as those below
  kPreDecrement,
  kPostIncrement,
  kPostDecrement,
};

struct Node {
  NodeKind kind;
  Span span;
  std::uint32_t id = 0;         // within its program, from 0
  std::uint32_t height = 1;     // of the tree below it
  std::uint32_t expansion = 0;  // which of the program's it comes from; 0: it stands in the text itself
  std::string text{};
  std::uint64_t number = 0;  // kNumber, kBool, kMember
  Operator operation = Operator::kNone;
  std::vector<std::unique_ptr<Node>> children{};
};
using NodePointer = std::unique_ptr<Node>;

// One block, and when it runs.
struct Probe {
  enum class Event : std::uint8_t { kItems, kBegin, kEnd, kInterval };
  Event event = Event::kItems;
  std::string name{};        // of all but kItems
  std::uint64_t period = 0;  // kInterval: ns
  bool has_marks = false;    // some of its attach points are static marks
  // kItems: an attach point is returns; one is calls; one is something else.
  bool has_returns = false, has_calls = false, has_entries = false;
  Span span;           // of its attach points
  NodePointer filter;  // null: none
  NodePointer block;   // null: a bare target with a filter, which counts
};

// A member of a C struct. type: its name, as Node::text of a kType has it; name: empty, where it has none.
struct Field {
  std::string name, type;
  int bits = -1;  // of a bit field
};
struct StructDefinition {
  std::string name;  // with its "struct " or "union "
  bool is_union = false, is_packed = false;
  std::uint32_t alignment = 0;  // 0: as its members need it
  std::vector<Field> fields;
};
struct EnumDefinition {
  std::string name;  // with its "enum "
  std::vector<std::pair<std::string, std::uint64_t>> values;
};
// Where a probe's arguments are at an address of a module: a line "#place PROBE BUILD-ID ADDRESS PLACE..." before the
// text (program/argument_places.h).
struct PlaceRow {
  std::uint32_t probe = 0;
  std::string build_id;  // "-": it has none
  std::uint64_t address = 0;
  std::vector<std::string> places;
};
// Where a line of a source file begins: a line "#statement ITEM BUILD-ID ADDRESS...".
struct StatementRow {
  std::uint32_t item = 0;
  std::string build_id;
  std::vector<std::uint64_t> addresses;
};
// A symbol that a probe takes the address of: a line "#symbol PROBE BUILD-ID ADDRESS BYTES NAME", and behind the name,
// each behind a tab, why it has none and what may be meant.
struct SymbolRow {
  std::uint32_t probe = 0;
  std::string build_id;  // "-": the file has none
  std::uint64_t address = 0, bytes = 0;
  std::string name, problem, hint;
};
// The part of a program that is C's, and what debug information says.
struct Definitions {
  std::vector<PlaceRow> places;
  std::vector<StatementRow> statements;
  std::vector<SymbolRow> symbols;
  std::vector<StructDefinition> structs;
  std::vector<EnumDefinition> enums;
  std::map<std::string, std::string, std::less<>> typedefs;
  std::map<std::string, std::uint64_t, std::less<>> constants;  // of enums, and #define
  std::map<std::string, std::string, std::less<>> texts;        // of #define
};

// config = { name = value; }
struct Setting {
  Span span;  // of the name and its value
  std::string name, value;
};

// let @m = hash(100);
struct MapDeclaration {
  Span span;
  std::string name;  // with its @
  std::string kind;
  NodePointer capacity;
};

// macro name($variable, expression, @map) { ... }
struct Macro {
  Span span;  // of its head
  std::string name;
  std::vector<std::string> parameters;  // with their $ or @
  NodePointer body;                     // a kBlock
};

// Where a macro was used.
struct Expansion {
  Span span;
  std::uint32_t expansion = 0;  // within which other one
};

struct Program {
  Definitions definitions;
  std::vector<Probe> probes;  // in the order of the text
  std::vector<Setting> settings;
  std::vector<MapDeclaration> maps;
  std::vector<Macro> macros;
  std::vector<Expansion> expansions;  // Node::expansion is 1 for the first
  std::uint32_t nodes = 0;            // ids are below
};

}  // namespace ubp::language
