// Expressions. See program_parser.h.
#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "runtime/language/characters.h"
#include "runtime/language/program_parser.h"
#include "runtime/language/type_parser.h"

namespace ubp::language {
namespace {

struct BinarySign {
  std::string_view sign;
  Operator operation;
  int level;  // the higher, the tighter
};
constexpr BinarySign kBinarySigns[] = {
    {"||", Operator::kOr, 0},         {"&&", Operator::kAnd, 1},          {"|", Operator::kBitOr, 2},
    {"^", Operator::kBitXor, 3},      {"&", Operator::kBitAnd, 4},        {"==", Operator::kEqual, 5},
    {"!=", Operator::kNotEqual, 5},   {"<", Operator::kLess, 6},          {"<=", Operator::kLessEqual, 6},
    {">", Operator::kGreater, 6},     {">=", Operator::kGreaterEqual, 6}, {"<<", Operator::kShiftLeft, 7},
    {">>", Operator::kShiftRight, 7}, {"+", Operator::kAdd, 8},           {"-", Operator::kSubtract, 8},
    {"*", Operator::kMultiply, 9},    {"/", Operator::kDivide, 9},        {"%", Operator::kModulo, 9},
};
constexpr int kTightest = 9;

constexpr std::uint64_t kMostParameters = 1024;

}  // namespace

NodePointer ProgramParser::expression() {
  const Depth depth(*this);
  if (depth.is_too_deep()) return fail_too_deep();
  const Cursor begin = token_.begin;
  NodePointer condition = binary(0);
  if (condition == nullptr || !accept("?")) return condition;
  auto node = make(NodeKind::kConditional, begin);
  node->children.push_back(std::move(condition));
  if (!token_.is(":")) {  // "?:" stands for the condition's own value
    NodePointer then = expression();
    if (then == nullptr) return nullptr;
    node->children.push_back(std::move(then));
  }
  if (!expect(":")) return nullptr;
  NodePointer otherwise = expression();
  if (otherwise == nullptr) return nullptr;
  node->children.push_back(std::move(otherwise));
  return finish(std::move(node));
}

// Behind the '/' that is the current token: does the filter end here? A block follows, or the item ends.
bool ProgramParser::is_filter_end() const {
  Lexer ahead = lexer_;
  const char next = ahead.skip_spaces();
  if (next == '\0' || next == ';' || next == '\n' || next == '#' || next == '{') return true;
  return ahead.skip_blanks() == '{';
}

NodePointer ProgramParser::binary(int level) {
  if (level > kTightest) return unary();
  const Cursor begin = token_.begin;
  NodePointer left = binary(level + 1);
  while (left != nullptr) {
    const auto* const found =
        std::find_if(std::begin(kBinarySigns), std::end(kBinarySigns),
                     [&](const BinarySign& known) { return known.level == level && token_.is(known.sign); });
    if (found == std::end(kBinarySigns)) break;
    if (in_filter_ && found->operation == Operator::kDivide && is_filter_end()) break;
    take();
    NodePointer right = binary(level + 1);
    if (right == nullptr) return nullptr;
    auto node = make(NodeKind::kBinary, begin);
    node->operation = found->operation;
    node->children.push_back(std::move(left));
    node->children.push_back(std::move(right));
    left = finish(std::move(node));
  }
  return left;
}

NodePointer ProgramParser::unary() {
  const Depth depth(*this);
  if (depth.is_too_deep()) return fail_too_deep();
  constexpr std::pair<std::string_view, Operator> kUnary[] = {
      {"!", Operator::kNot},          {"~", Operator::kComplement}, {"-", Operator::kNegate},
      {"*", Operator::kDereference},  {"&", Operator::kAddressOf},  {"++", Operator::kPreIncrement},
      {"--", Operator::kPreDecrement}};
  for (const auto& [sign, operation] : kUnary) {
    if (!token_.is(sign)) continue;
    const bool changes = operation == Operator::kPreIncrement || operation == Operator::kPreDecrement;
    auto node = make(changes ? NodeKind::kIncrement : NodeKind::kUnary, token_.begin);
    node->operation = operation;
    take();
    NodePointer operand = unary();
    if (operand == nullptr) return nullptr;
    if (changes && operand->kind != NodeKind::kVariable && operand->kind != NodeKind::kMap)
      return fail(operand->span, "syntax: only variables and maps can be incremented");
    node->children.push_back(std::move(operand));
    return finish(std::move(node));
  }
  return postfix();
}

NodePointer ProgramParser::postfix() {
  const Cursor begin = token_.begin;
  NodePointer value = primary();
  while (value != nullptr) {
    const bool is_increment = token_.is("++"), is_decrement = token_.is("--");
    if (is_increment || is_decrement) {
      if (value->kind != NodeKind::kVariable && value->kind != NodeKind::kMap) break;
      auto node = make(NodeKind::kIncrement, begin);
      node->operation = is_increment ? Operator::kPostIncrement : Operator::kPostDecrement;
      take();
      node->children.push_back(std::move(value));
      value = finish(std::move(node));
      continue;
    }
    if (!token_.is(".") && !token_.is("->") && !token_.is("[")) break;
    value = member(begin, std::move(value));
  }
  return value;
}

// value.0, value.name, value->name, value[index]
NodePointer ProgramParser::member(Cursor begin, NodePointer value) {
  const bool is_index = token_.is("["), is_arrow = token_.is("->");
  const bool in_filter = std::exchange(in_filter_, in_filter_ && !is_index);
  take();
  auto node = make(is_index ? NodeKind::kIndex : NodeKind::kMember, begin);
  node->span.begin = value->span.begin;  // messages show what is read, without a parenthesis before it
  node->children.push_back(std::move(value));
  if (is_index) {
    NodePointer index = expression();
    in_filter_ = in_filter;
    if (index == nullptr || !expect("]")) return nullptr;
    node->children.push_back(std::move(index));
    return finish(std::move(node));
  }
  if (token_.kind == TokenKind::kName) {
    node->text = token_.text;
  } else if (token_.kind == TokenKind::kNumber && !is_arrow) {
    node->number = token_.number;
  } else {
    return fail(token_.span(), "syntax: expected a member's name or an element's number");
  }
  take();
  return finish(std::move(node));
}

// T, typeof(T), typeof(value)
bool ProgramParser::begins_type() const {
  return language::begins_type(token_, definitions_) || (token_.is_name("typeof") && lexer_.peek().is("("));
}

NodePointer ProgramParser::type() {
  const Depth depth(*this);
  if (depth.is_too_deep()) return fail_too_deep();
  auto node = make(NodeKind::kType, token_.begin);
  if (token_.is_name("typeof")) {
    take();
    take();
    NodePointer its = type_or_value();
    if (its == nullptr || !expect(")")) return nullptr;
    node->children.push_back(std::move(its));
  } else {
    node->text = parse_type_base(lexer_, token_, definitions_);
    if (node->text.empty()) return fail(token_.span(), "syntax: expected a type");
  }
  if (!parse_type_suffixes(lexer_, token_, definitions_, node->text))
    return fail(token_.span(), "syntax: expected a size and ']'");
  return finish(std::move(node));
}

// "name*" before a ')' or a ',': the name is a macro's parameter, which a type is passed for. Returns what stands
// behind the name; empty: it is none.
std::string ProgramParser::macro_type() const {
  std::string behind;
  if (token_.kind != TokenKind::kName) return behind;
  Lexer ahead(lexer_);
  Token next = ahead.next();
  for (; next.is("*"); next = ahead.next()) behind += '*';
  return next.is(")") || next.is(",") ? behind : "";
}

NodePointer ProgramParser::type_or_value() {
  if (begins_type()) return type();
  const std::string behind = macro_type();
  if (behind.empty()) return expression();
  auto node = make(NodeKind::kType, token_.begin);
  auto name = make(NodeKind::kName, token_.begin);
  name->text = token_.text;
  take();
  node->children.push_back(finish(std::move(name)));
  node->text = behind;
  while (accept("*")) {
  }
  return finish(std::move(node));
}

// sizeof(type), sizeof(expression)
NodePointer ProgramParser::size_of(Cursor begin) {
  auto node = make(NodeKind::kSizeOf, begin);
  if (!expect("(")) return nullptr;
  NodePointer its = type_or_value();
  if (its == nullptr || !expect(")")) return nullptr;
  node->children.push_back(std::move(its));
  return finish(std::move(node));
}

// offsetof(type, member.member), offsetof(expression, member)
NodePointer ProgramParser::offset_of(Cursor begin) {
  auto node = make(NodeKind::kOffsetOf, begin);
  if (!expect("(")) return nullptr;
  NodePointer its = type_or_value();
  if (its == nullptr || !expect(",") || !member_path(*node)) return nullptr;
  node->children.push_back(std::move(its));
  return finish(std::move(node));
}

// member.member )
bool ProgramParser::member_path(Node& node) {
  while (token_.kind == TokenKind::kName || token_.is(".")) {
    node.text += token_.text;
    take();
  }
  return expect(")");
}

// container_of(pointer, type, member): (type*)((uint64)pointer - offsetof(type, member))
NodePointer ProgramParser::container_of(Cursor begin) {
  const auto number = [&] {
    auto node = make(NodeKind::kType, begin);
    node->text = "uint64";
    return node;
  };
  const auto cast = [&](NodePointer value, NodePointer to) {
    auto node = make(NodeKind::kCast, begin);
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(to));
    return finish(std::move(node));
  };
  if (!expect("(")) return nullptr;
  NodePointer member = expression();
  if (member == nullptr || !expect(",")) return nullptr;
  const Lexer at_type = lexer_;
  const Token first = token_;
  NodePointer outer = type_or_value();
  if (outer == nullptr) return nullptr;
  lexer_ = at_type;  // once more, for the other node
  token_ = first;
  NodePointer pointer = make(NodeKind::kType, begin);
  pointer->text = "*";
  pointer->children.push_back(type_or_value());
  auto offset = make(NodeKind::kOffsetOf, begin);
  if (!expect(",") || !member_path(*offset)) return nullptr;
  offset->children.push_back(std::move(outer));
  auto difference = make(NodeKind::kBinary, begin);
  difference->operation = Operator::kSubtract;
  difference->children.push_back(cast(std::move(member), number()));
  difference->children.push_back(finish(std::move(offset)));
  if (difference->children.front() == nullptr || difference->children.back() == nullptr) return nullptr;
  difference = finish(std::move(difference));
  pointer = finish(std::move(pointer));
  return difference != nullptr && pointer != nullptr ? cast(std::move(difference), std::move(pointer)) : nullptr;
}

NodePointer ProgramParser::primary() {
  auto leaf = [this](NodeKind kind) {
    auto node = make(kind, token_.begin);
    node->text = token_.kind == TokenKind::kString ? token_.value : std::string(token_.text);
    node->number = token_.number;
    take();
    return finish(std::move(node));
  };
  if (token_.is("{")) return block();
  if (token_.is_name("if")) return if_statement();
  switch (token_.kind) {
    case TokenKind::kNumber: return leaf(NodeKind::kNumber);
    case TokenKind::kString: return leaf(NodeKind::kString);
    case TokenKind::kMap: return map();
    case TokenKind::kVariable: return variable();
    case TokenKind::kName: {
      if (token_.text == "true" || token_.text == "false") {
        NodePointer node = leaf(NodeKind::kBool);
        node->number = node->text == "true" ? 1 : 0;
        return node;
      }
      if (begins_type() && token_.text == "typeof") return type();  // for a macro
      const Token name = token_;
      take();
      if (name.text == "sizeof" && token_.is("(")) return size_of(name.begin);
      if (name.text == "offsetof" && token_.is("(")) return offset_of(name.begin);
      if (name.text == "container_of" && token_.is("(")) return container_of(name.begin);
      return call(name);
    }
    default: return token_.is("(") ? parenthesised() : unexpected();
  }
}

// (value), (element, ...), (name=element, ...), (type) value
NodePointer ProgramParser::parenthesised() {
  const Cursor begin = token_.begin;
  const bool in_filter = std::exchange(in_filter_, false);
  take();
  if (begins_type() || !macro_type().empty()) {
    auto node = make(NodeKind::kCast, begin);
    NodePointer to = type_or_value();
    if (to == nullptr || !expect(")")) return nullptr;
    in_filter_ = in_filter;
    NodePointer value = unary();
    if (value == nullptr) return nullptr;
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(to));
    return finish(std::move(node));
  }
  auto tuple = make(NodeKind::kTuple, begin);
  bool is_tuple = token_.is(")");
  const bool is_record = token_.kind == TokenKind::kName && lexer_.peek().is("=");
  while (!token_.is(")")) {
    if (is_record) {
      if (token_.kind != TokenKind::kName) return fail(token_.span(), "syntax: expected a field's name");
      tuple->text += tuple->text.empty() ? "" : ",";
      tuple->text += token_.text;
      take();
      if (!expect("=")) return nullptr;
      is_tuple = true;
    }
    NodePointer element = expression();
    if (element == nullptr) return nullptr;
    tuple->children.push_back(std::move(element));
    if (!accept(",")) break;
    is_tuple = true;
  }
  in_filter_ = in_filter;
  if (!expect(")")) return nullptr;
  if (!is_tuple) return std::move(tuple->children.front());
  return finish(std::move(tuple));
}

// expression { "," expression } close
bool ProgramParser::list(Node& node, std::string_view close) {
  const bool in_filter = std::exchange(in_filter_, false);
  while (!token_.is(close)) {
    NodePointer element = expression();
    if (element == nullptr) return false;
    node.children.push_back(std::move(element));
    if (!accept(",")) break;
  }
  in_filter_ = in_filter;
  return expect(close);
}

// $x, $1, $#
NodePointer ProgramParser::variable() {
  const std::string_view name = token_.text.substr(1);
  const bool is_digits = std::all_of(name.begin(), name.end(), is_digit);
  auto node = make(is_digits || name == "#" ? NodeKind::kParameter : NodeKind::kVariable, token_.begin);
  node->text = name;
  if (is_digits) {
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), node->number);
    if (error != std::errc{} || node->number == 0 || node->number > kMostParameters)
      return fail(token_.span(), "syntax: parameters are $1 to $1024");
  }
  take();
  return finish(std::move(node));
}

NodePointer ProgramParser::map() {
  auto node = make(NodeKind::kMap, token_.begin);
  node->text = token_.text;
  take();
  if (token_.is("[")) {
    const Span bracket = token_.span();
    take();
    if (!list(*node, "]")) return nullptr;
    if (node->children.empty()) return fail(bracket, "syntax: expected a key after '['");
  }
  return finish(std::move(node));
}

NodePointer ProgramParser::call(const Token& name) {
  const bool is_call = token_.is("(");
  auto node = make(is_call ? NodeKind::kCall : NodeKind::kName, name.begin);
  node->text = name.text;
  if (is_call) {
    take();
    if (!list(*node, ")")) return nullptr;
  }
  return finish(std::move(node));
}

}  // namespace ubp::language
