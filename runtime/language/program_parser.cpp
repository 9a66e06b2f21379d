// Statements. See program_parser.h; expressions: expressions.cpp.
#include "runtime/language/program_parser.h"

#include <algorithm>
#include <utility>

#include "runtime/language/type_parser.h"

namespace ubp::language {

void ProgramParser::take() {
  last_end_ = token_.end;
  token_ = lexer_.next();
}

NodePointer ProgramParser::make(NodeKind kind, Cursor begin) {
  auto node = std::make_unique<Node>(Node{kind, {begin.position(), begin.position()}, nodes_++});
  return node;
}

NodePointer ProgramParser::finish(NodePointer node) {
  constexpr std::uint32_t kHighest = 1000;  // chains of operators need no depth to be read
  node->span.end = last_end_.position();
  for (const auto& child : node->children) node->height = std::max(node->height, child->height + 1);
  return node->height <= kHighest ? std::move(node) : fail_too_deep();
}

bool ProgramParser::accept(std::string_view sign) {
  if (!token_.is(sign)) return false;
  take();
  return true;
}

bool ProgramParser::expect(std::string_view sign) {
  if (accept(sign)) return true;
  if (token_.kind == TokenKind::kError) {
    unexpected();
  } else {
    fail(token_.span(), "syntax: expected '" + std::string(sign) + "'");
  }
  return false;
}

NodePointer ProgramParser::fail(const Span& span, std::string message) {
  if (message_.empty()) {
    error_span_ = span;
    message_ = std::move(message);
  }
  return nullptr;
}

NodePointer ProgramParser::unexpected() {
  if (token_.kind == TokenKind::kError) return fail(token_.span(), "syntax: " + token_.value);
  if (token_.kind == TokenKind::kEnd) return fail(token_.span(), "syntax: unexpected end of the program");
  return fail(token_.span(), "syntax: unexpected '" + std::string(token_.text) + "'");
}

bool ProgramParser::parse(Probe& probe) {
  if (token_.is("/")) {
    in_filter_ = true;
    take();
    probe.filter = expression();
    if (probe.filter == nullptr || !expect("/")) return false;
    in_filter_ = false;
  }
  if (!token_.is("{")) return probe.filter != nullptr || unexpected() != nullptr;
  probe.block = block();
  return probe.block != nullptr;
}

NodePointer ProgramParser::block() {
  const Depth depth(*this);
  if (depth.is_too_deep()) return fail_too_deep();
  auto node = make(NodeKind::kBlock, token_.begin);
  if (!expect("{")) return nullptr;
  for (;;) {
    while (accept(";")) {
    }
    if (token_.is("}")) break;
    if (token_.kind == TokenKind::kEnd) return fail(token_.span(), "syntax: expected '}'");
    NodePointer one = statement();
    if (one == nullptr) return nullptr;
    const bool is_block = one->kind == NodeKind::kIf || one->kind == NodeKind::kBlock || is_loop(one->kind);
    node->number = one->kind == NodeKind::kExpression && one->number == 0 && token_.is("}") ? 1 : 0;
    node->children.push_back(std::move(one));
    if (!is_block && !ends_statement()) return fail(token_.span(), "syntax: expected ';' or '}'");
  }
  take();
  return finish(std::move(node));
}

bool ProgramParser::is_loop(NodeKind kind) {
  return kind == NodeKind::kWhile || kind == NodeKind::kUnroll || kind == NodeKind::kForRange ||
         kind == NodeKind::kForMap;
}

bool ProgramParser::ends_statement() const { return token_.is(";") || token_.is("}"); }

NodePointer ProgramParser::statement() {
  if (token_.is("{")) return block();
  if (token_.kind != TokenKind::kName) return simple_statement();
  if (token_.text == "if") return if_statement();
  if (token_.text == "for") return for_loop();
  if (token_.text == "return") return return_statement();
  if (token_.text == "while") return loop(NodeKind::kWhile);
  if (token_.text == "unroll") return loop(NodeKind::kUnroll);
  if (token_.text == "let") return declaration();
  constexpr std::pair<std::string_view, NodeKind> kWords[] = {{"break", NodeKind::kBreak},
                                                              {"continue", NodeKind::kContinue}};
  for (const auto& [word, kind] : kWords) {
    if (token_.text != word) continue;
    auto node = make(kind, token_.begin);
    take();
    return finish(std::move(node));
  }
  return simple_statement();
}

NodePointer ProgramParser::if_statement() {
  const Depth depth(*this);
  if (depth.is_too_deep()) return fail_too_deep();
  auto node = make(NodeKind::kIf, token_.begin);
  take();
  NodePointer condition = expression();
  if (condition == nullptr) return nullptr;
  NodePointer then = block();
  if (then == nullptr) return nullptr;
  node->children.push_back(std::move(condition));
  node->children.push_back(std::move(then));
  if (token_.is_name("else")) {
    take();
    NodePointer otherwise = token_.is_name("if") ? if_statement() : block();
    if (otherwise == nullptr) return nullptr;
    node->children.push_back(std::move(otherwise));
  }
  return finish(std::move(node));
}

NodePointer ProgramParser::loop(NodeKind kind) {
  auto node = make(kind, token_.begin);
  take();
  NodePointer head = expression();
  if (head == nullptr) return nullptr;
  NodePointer body = block();
  if (body == nullptr) return nullptr;
  node->children.push_back(std::move(head));
  node->children.push_back(std::move(body));
  return finish(std::move(node));
}

// for ($i : from..to) { }, for ($entry : @map) { }; without the parentheses, too
NodePointer ProgramParser::for_loop() {
  auto node = make(NodeKind::kForMap, token_.begin);
  take();
  const bool has_parentheses = accept("(");
  if (token_.kind != TokenKind::kVariable) return fail(token_.span(), "syntax: expected a variable after 'for'");
  node->text = token_.text.substr(1);
  take();
  if (!expect(":")) return nullptr;
  NodePointer from = expression();
  if (from == nullptr) return nullptr;
  if (accept("..")) {
    node->kind = NodeKind::kForRange;
    NodePointer to = expression();
    if (to == nullptr) return nullptr;
    node->children.push_back(std::move(from));
    node->children.push_back(std::move(to));
  } else if (from->kind != NodeKind::kMap || !from->children.empty()) {
    return fail(from->span, "syntax: expected a map or a range (0..10) after ':'");
  } else {
    node->children.push_back(std::move(from));
  }
  if (has_parentheses && !expect(")")) return nullptr;
  NodePointer body = block();
  if (body == nullptr) return nullptr;
  node->children.push_back(std::move(body));
  return finish(std::move(node));
}

NodePointer ProgramParser::return_statement() {
  auto node = make(NodeKind::kReturn, token_.begin);
  take();
  if (ends_statement()) return finish(std::move(node));
  NodePointer value = expression();
  if (value == nullptr) return nullptr;
  node->children.push_back(std::move(value));
  return finish(std::move(node));
}

// let $x; let $x: T; let $x = value; let $x: T = value
NodePointer ProgramParser::declaration() {
  auto node = make(NodeKind::kDeclare, token_.begin);
  take();
  if (token_.kind != TokenKind::kVariable) return fail(token_.span(), "syntax: expected a variable after 'let'");
  node->text = token_.text.substr(1);
  take();
  if (accept(":")) {
    if (!begins_type()) return fail(token_.span(), "syntax: expected a type after ':'");
    NodePointer its = type();
    if (its == nullptr) return nullptr;
    node->children.push_back(std::move(its));
  }
  if (accept("=")) {
    NodePointer value = expression();
    if (value == nullptr) return nullptr;
    node->children.push_back(std::move(value));
  }
  return finish(std::move(node));
}

// An assignment, or an expression for what it does.
NodePointer ProgramParser::simple_statement() {
  constexpr std::pair<std::string_view, Operator> kAssignments[] = {
      {"=", Operator::kNone},        {"+=", Operator::kAdd},        {"-=", Operator::kSubtract},
      {"*=", Operator::kMultiply},   {"/=", Operator::kDivide},     {"%=", Operator::kModulo},
      {"|=", Operator::kBitOr},      {"&=", Operator::kBitAnd},     {"^=", Operator::kBitXor},
      {"<<=", Operator::kShiftLeft}, {">>=", Operator::kShiftRight}};
  const Cursor begin = token_.begin;
  if (token_.is_name("_") && lexer_.peek().is("=")) {  // _ = value
    take();
    take();
    auto node = make(NodeKind::kExpression, begin);
    node->number = 1;
    NodePointer value = expression();
    if (value == nullptr) return nullptr;
    node->children.push_back(std::move(value));
    return finish(std::move(node));
  }
  NodePointer value = expression();
  if (value == nullptr) return nullptr;
  for (const auto& [sign, operation] : kAssignments) {
    if (!token_.is(sign)) continue;
    if (value->kind != NodeKind::kVariable && value->kind != NodeKind::kMap)
      return fail(value->span, "syntax: only variables and maps can be assigned to");
    take();
    auto node = make(NodeKind::kAssign, begin);
    node->operation = operation;
    NodePointer right = expression();
    if (right == nullptr) return nullptr;
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(right));
    return finish(std::move(node));
  }
  auto node = make(NodeKind::kExpression, begin);
  node->children.push_back(std::move(value));
  return finish(std::move(node));
}

}  // namespace ubp::language
