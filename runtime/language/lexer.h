// The tokens of programs. Pure text, load time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/language/tree.h"

namespace ubp::language {

// Where in the text something stands.
struct Cursor {
  std::size_t offset = 0;
  int line = 1;
  std::size_t line_start = 0;
  // In a target that parameters are placed in, it may seem to begin before its line.
  Position position() const { return {line, std::max(static_cast<int>(offset - line_start), 0) + 1}; }
};

enum class TokenKind : std::uint8_t { kEnd, kNumber, kString, kName, kVariable, kMap, kSign, kError };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string_view text{};   // as typed
  std::string value{};       // kString: what it stands for; kError: what is wrong
  std::uint64_t number = 0;  // kNumber
  Cursor begin{}, end{};
  Span span() const { return {begin.position(), end.position()}; }
  bool is(std::string_view sign) const { return kind == TokenKind::kSign && text == sign; }
  bool is_name(std::string_view name) const { return kind == TokenKind::kName && text == name; }
};

class Lexer {
 public:
  Lexer(std::string_view text, Cursor at) : text_(text), at_(at) {}

  // The next token, and past it. kEnd at the end of the text; kError for what is none.
  Token next();
  // What the next token would be.
  Token peek() const { return Lexer(*this).next(); }
  // Moves over blanks and comments, and returns what stands there; '\0' at the end.
  char skip_blanks();
  // The same within a line: a newline is what stands there.
  char skip_spaces();

  const Cursor& cursor() const { return at_; }

 private:
  char at(std::size_t offset) const { return offset < text_.size() ? text_[offset] : '\0'; }
  char look(std::size_t ahead = 0) const { return at(at_.offset + ahead); }
  void advance(std::size_t bytes = 1);
  bool skip_comment();
  void read_number(Token& token);
  void read_string(Token& token);
  bool read_escape(Token& token);
  void read_word();

  std::string_view text_;
  Cursor at_;
};

}  // namespace ubp::language
