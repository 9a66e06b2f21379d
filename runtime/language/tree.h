// Programs as a tree: what the text says, before anything is known of types. See program_parser.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
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
  kMember,       // tuple; number: the element's index
  kCast,         // value; text: the type's name
  // Statements.
  kExpression,  // expression
  kAssign,      // a variable or map, value; operation: of a compound one
  kDeclare,     // let $x: text also the type's name, behind a ':', value if there is one
  kIf,          // condition, block, and an else: a block or another kIf
  kWhile,       // condition, block
  kUnroll,      // count, block
  kBlock,       // statements
  kBreak,
  kContinue,
  kReturn,
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
  kPreIncrement,  // of kIncrement, as those below
  kPreDecrement,
  kPostIncrement,
  kPostDecrement,
};

struct Node {
  NodeKind kind;
  Span span;
  std::uint32_t id = 0;      // within its program, from 0
  std::uint32_t height = 1;  // of the tree below it
  std::string text{};
  std::uint64_t number = 0;  // kNumber, kBool, kMember
  Operator operation = Operator::kNone;
  std::vector<std::unique_ptr<Node>> children{};
};
using NodePointer = std::unique_ptr<Node>;

// One block, and when it runs.
struct Probe {
  enum class Event : std::uint8_t { kItems, kBegin, kEnd };
  Event event = Event::kItems;
  Span span;           // of its attach points
  NodePointer filter;  // null: none
  NodePointer block;   // null: a bare target with a filter, which counts
};

struct Program {
  std::vector<Probe> probes;  // in the order of the text
  std::uint32_t nodes = 0;    // ids are below
};

}  // namespace ubp::language
