// What stands between probes: settings, declarations of maps, macros; and parameters in targets. See parser.h and
// program_parser.h.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/language/parser.h"
#include "runtime/language/program_parser.h"
#include "runtime/language/text.h"

namespace ubp::language {

// $1 in what stands before the item's filter or block, on its line. Behind it columns stay those of the text.
bool Parser::place_parameters() {
  if (program_ == nullptr) return true;
  const std::size_t end = std::min({text_.find_first_of("{\n", offset_), text_.find(" /", offset_), text_.size()});
  std::string placed(text_.substr(offset_, end - offset_));
  for (std::size_t at = placed.find('$'); at != std::string::npos; at = placed.find('$', at)) {
    std::size_t number = 0, digits = at + 1;
    for (; digits < placed.size() && is_digit(placed[digits]) && number < kMaxItems; ++digits)
      number = number * 10 + static_cast<std::size_t>(placed[digits] - '0');
    if (number == 0) return true;  // none: the target's parser says what is wrong
    std::vector<std::string_view> known = positional(parameters_);
    if (number > known.size()) return fail(offset_, fmt::format("there is no parameter ${}", number));
    if (const auto bad = find_bad_byte(known[number - 1])) return fail(offset_, bad->message);
    placed.replace(at, digits - at, known[number - 1]);
    at += known[number - 1].size();
  }
  if (placed == text_.substr(offset_, end - offset_)) return true;
  line_start_ += placed.size() - (end - offset_);  // may wrap: only differences are used
  text_ = texts_.emplace_back(std::string(text_.substr(0, offset_)) + placed + std::string(text_.substr(end)));
  return true;
}

// Settings, a map's declaration, a macro, or a probe's name, where one stands here. They are functions' names, too.
bool Parser::parse_preamble(bool& is_one) {
  is_one = false;
  if (program_ == nullptr || !is_letter(peek())) return true;
  Lexer ahead(text_, cursor());
  const Token word = ahead.next();
  const Cursor behind = ahead.cursor();
  const Token next = ahead.next(), second = ahead.next();
  ProgramParser parser(text_, behind, *program_);
  const auto finish = [&](bool is_good) {
    is_one = true;
    move_to(parser.end());
    if (!is_good) error_ = {parser.span().begin, parser.message(), parser.span().end};
    return is_good;
  };
  if (word.text == "config" && next.is("=") && second.is("{")) return finish(parser.parse(program_->settings));
  if (word.text == "import" && next.kind == TokenKind::kString) {  // what is there stands before the text (sources.h)
    is_one = true;
    move_to(second.is(";") ? second.end : next.end);
    return true;
  }
  if (word.text == "let" && next.kind == TokenKind::kMap) {
    MapDeclaration declaration;
    const bool is_good = parser.parse(declaration);
    program_->maps.push_back(std::move(declaration));
    return finish(is_good);
  }
  if (word.text == "macro" && next.kind == TokenKind::kName && second.is("(")) {
    Macro macro;
    const bool is_good = parser.parse(macro);
    program_->macros.push_back(std::move(macro));
    return finish(is_good);
  }
  if (next.is("=") && word.text != "operator" && second.kind == TokenKind::kName) {  // name = probe
    is_one = true;
    move_to(next.end);
  }
  return true;
}

// = { name = value; ... }
bool ProgramParser::parse(std::vector<Setting>& settings) {
  if (!expect("=") || !expect("{")) return false;
  for (;;) {
    while (accept(";")) {
    }
    if (accept("}")) return true;
    if (token_.kind != TokenKind::kName) {
      fail(token_.span(), "syntax: expected a setting's name or '}'");
      return false;
    }
    Setting setting{token_.span(), std::string(token_.text), {}};
    take();
    if (!expect("=")) return false;
    const bool is_value =
        token_.kind == TokenKind::kName || token_.kind == TokenKind::kNumber || token_.kind == TokenKind::kString;
    if (!is_value) {
      fail(token_.span(), "syntax: expected a setting's value after '='");
      return false;
    }
    setting.value = token_.kind == TokenKind::kString ? token_.value : std::string(token_.text);
    take();
    setting.span.end = last_end_.position();
    settings.push_back(std::move(setting));
    if (!token_.is(";") && !token_.is("}")) {
      fail(token_.span(), "syntax: expected ';' or '}'");
      return false;
    }
  }
}

// @name = kind(capacity); the ';' stays.
bool ProgramParser::parse(MapDeclaration& declaration) {
  const Cursor begin = token_.begin;
  if (token_.kind != TokenKind::kMap) {
    fail(token_.span(), "syntax: expected a map after 'let'");
    return false;
  }
  declaration.name = token_.text;
  take();
  if (!expect("=")) return false;
  if (token_.kind != TokenKind::kName) {
    fail(token_.span(), "syntax: expected a kind of map after '='");
    return false;
  }
  declaration.kind = token_.text;
  take();
  if (!expect("(")) return false;
  declaration.capacity = expression();
  if (declaration.capacity == nullptr || !expect(")")) return false;
  declaration.span = {begin.position(), last_end_.position()};
  return true;
}

// name($variable, expression, @map) { ... }
bool ProgramParser::parse(Macro& macro) {
  const Cursor begin = token_.begin;
  if (token_.kind != TokenKind::kName) {
    fail(token_.span(), "syntax: expected a macro's name");
    return false;
  }
  macro.name = token_.text;
  take();
  if (!expect("(")) return false;
  while (!token_.is(")")) {
    const bool is_parameter =
        token_.kind == TokenKind::kName || token_.kind == TokenKind::kVariable || token_.kind == TokenKind::kMap;
    if (!is_parameter) {
      fail(token_.span(), "syntax: expected a macro's parameter or ')'");
      return false;
    }
    macro.parameters.emplace_back(token_.text);
    take();
    if (!accept(",")) break;
  }
  if (!expect(")")) return false;
  macro.span = {begin.position(), last_end_.position()};
  macro.body = block();
  return macro.body != nullptr;
}

}  // namespace ubp::language
