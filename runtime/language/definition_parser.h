// The part of a program that is C's: structs, unions, enums, typedefs, and #define of a literal.
//
// Called where such a definition begins; leaves the cursor behind it, and behind a ';' that follows.
#pragma once

#include <string>
#include <string_view>

#include "runtime/language/lexer.h"
#include "runtime/language/tree.h"

namespace ubp::language {

class DefinitionParser {
 public:
  DefinitionParser(std::string_view text, Cursor at, Definitions& definitions)
      : text_(text), lexer_(text, at), end_(at), definitions_(definitions) {}

  // One definition. False: span() and message() say what is wrong.
  bool parse();
  // "#define NAME literal", "#include ...", "#!": a line, which begins at the cursor. Other lines are comments.
  bool parse_line();

  const Cursor& end() const { return end_; }
  const Span& span() const { return error_span_; }
  const std::string& message() const { return message_; }

 private:
  void take();
  void parse_place(std::string_view line);
  void parse_statement(std::string_view line);
  void parse_symbol(std::string_view line);
  bool accept(std::string_view sign);
  bool expect(std::string_view sign);
  bool fail(std::string message);
  bool parse_base(std::string& type);
  bool parse_fields(StructDefinition& definition);
  bool parse_enum(const std::string& type);
  bool parse_attributes(StructDefinition& definition);
  bool parse_declarator(const std::string& base, Field& field);
  bool parse_constant(std::uint64_t& value);

  std::string_view text_;
  Lexer lexer_;
  Token token_;
  Cursor end_;  // behind what was read
  Definitions& definitions_;
  int depth_ = 0;
  Span error_span_;
  std::string message_;
};

}  // namespace ubp::language
