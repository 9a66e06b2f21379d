// See definition_parser.h.
#include "runtime/language/definition_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "runtime/language/type_parser.h"

namespace ubp::language {

void DefinitionParser::take() { token_ = lexer_.next(); }

bool DefinitionParser::accept(std::string_view sign) {
  if (!token_.is(sign)) return false;
  take();
  return true;
}

bool DefinitionParser::expect(std::string_view sign) {
  return accept(sign) || fail(fmt::format("syntax: expected '{}'", sign));
}

bool DefinitionParser::fail(std::string message) {
  if (message_.empty()) {
    error_span_ = token_.span();
    message_ = std::move(message);
  }
  return false;
}

bool DefinitionParser::parse_line() {
  const std::size_t newline = std::min(text_.find('\n', end_.offset), text_.size());
  const std::string_view line = text_.substr(end_.offset, newline - end_.offset);
  constexpr std::string_view kDefine = "#define";
  if (line.starts_with(kDefine)) {
    Cursor at = end_;
    at.offset += kDefine.size();
    lexer_ = Lexer(text_.substr(0, newline), at);
    token_ = lexer_.next();
    const std::string name(token_.text);
    if (token_.kind != TokenKind::kName) return fail("syntax: expected a name behind #define");
    token_ = lexer_.next();
    if (token_.kind == TokenKind::kString) {
      definitions_.texts[name] = token_.value;
    } else if (token_.kind != TokenKind::kEnd) {
      std::uint64_t value = 0;
      if (!parse_constant(value)) return fail("syntax: expected a literal behind the name");
      definitions_.constants[name] = value;
    }
  }
  constexpr std::string_view kPlace = "#place ", kStatement = "#statement ", kSymbol = "#symbol ";
  if (line.starts_with(kPlace)) parse_place(line.substr(kPlace.size()));
  if (line.starts_with(kStatement)) parse_statement(line.substr(kStatement.size()));
  if (line.starts_with(kSymbol)) parse_symbol(line.substr(kSymbol.size()));
  end_.offset = newline;
  return true;
}

namespace {

std::string_view take_word(std::string_view& line, char apart = ' ') {
  const std::size_t end = std::min(line.find(apart), line.size());
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(std::min(end + 1, line.size()));
  return word;
}

template <typename Number>
bool take_number(std::string_view& line, Number& number) {
  const std::string_view word = take_word(line);
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number, 16);
  return error == std::errc{} && end == word.data() + word.size();
}

}  // namespace

// In hexadecimal. A line that is no such is a comment.
void DefinitionParser::parse_place(std::string_view line) {
  PlaceRow row;
  if (!take_number(line, row.probe)) return;
  row.build_id = take_word(line);
  if (!take_number(line, row.address)) return;
  while (!line.empty()) row.places.emplace_back(take_word(line));
  definitions_.places.push_back(std::move(row));
}

void DefinitionParser::parse_statement(std::string_view line) {
  StatementRow row;
  if (!take_number(line, row.item)) return;
  row.build_id = take_word(line);
  for (std::uint64_t address = 0; !line.empty() && take_number(line, address);) row.addresses.push_back(address);
  definitions_.statements.push_back(std::move(row));
}

void DefinitionParser::parse_symbol(std::string_view line) {
  SymbolRow row;
  if (!take_number(line, row.probe)) return;
  row.build_id = take_word(line);
  if (!take_number(line, row.address) || !take_number(line, row.bytes)) return;
  row.name = take_word(line, '\t');
  row.problem = take_word(line, '\t');
  row.hint = take_word(line, '\t');
  definitions_.symbols.push_back(std::move(row));
}

bool DefinitionParser::parse() {
  token_ = lexer_.next();
  const bool is_typedef = token_.is_name("typedef");
  if (is_typedef) take();
  std::string base;
  if (!parse_base(base)) return false;
  if (is_typedef) {
    do {
      Field field;
      if (!parse_declarator(base, field)) return false;
      if (field.name.empty()) return fail("syntax: expected the type's new name");
      definitions_.typedefs[field.name] = field.type;
    } while (accept(","));
  }
  if (token_.is(";")) take();
  end_ = token_.begin;
  return true;
}

// A type, which may be defined where it stands.
bool DefinitionParser::parse_base(std::string& type) {
  const bool is_enum = token_.is_name("enum"), is_union = token_.is_name("union");
  if (!is_enum && !is_union && !token_.is_name("struct")) {
    type = parse_type_base(lexer_, token_, definitions_);
    return !type.empty() || fail("syntax: expected a type");
  }
  type = token_.text;
  take();
  StructDefinition definition;
  definition.is_union = is_union;
  if (!parse_attributes(definition)) return false;
  if (token_.kind == TokenKind::kName) {
    type += ' ' + std::string(token_.text);
    take();
  } else {
    type += fmt::format(" <{}>", definitions_.structs.size() + definitions_.enums.size());
  }
  if (is_enum) return parse_enum(type);
  definition.name = type;
  if (!parse_attributes(definition)) return false;
  if (!token_.is("{")) return true;
  take();
  if (++depth_ > 32) return fail("syntax: nested too deeply");
  if (!parse_fields(definition)) return false;
  --depth_;
  if (!parse_attributes(definition)) return false;
  definitions_.structs.push_back(std::move(definition));
  return true;
}

bool DefinitionParser::parse_fields(StructDefinition& definition) {
  while (!accept("}")) {
    if (accept(";")) continue;
    std::string base;
    if (!parse_base(base)) return false;
    if (token_.is(";") || token_.is("}")) {  // its members are this one's
      definition.fields.push_back({"", base});
      continue;
    }
    do {
      Field field;
      if (!parse_declarator(base, field)) return false;
      definition.fields.push_back(std::move(field));
    } while (accept(","));
    if (!token_.is("}") && !expect(";")) return false;
  }
  return true;
}

// *name[2], name : 3, (*name)(int)
bool DefinitionParser::parse_declarator(const std::string& base, Field& field) {
  field.type = base;
  while (token_.is("*") || token_.is_name("const") || token_.is_name("volatile")) {
    if (token_.is("*")) field.type += '*';
    take();
  }
  if (token_.is("(")) {  // a pointer to a function
    take();
    if (!expect("*")) return false;
    field.name = token_.text;
    take();
    if (!expect(")") || !expect("(")) return false;
    for (int open = 1; open > 0; take()) {
      if (token_.kind == TokenKind::kEnd) return fail("syntax: expected ')'");
      open += (token_.is("(") ? 1 : 0) - (token_.is(")") ? 1 : 0);
    }
    field.type = "void*";
    return true;
  }
  if (token_.kind == TokenKind::kName) {
    field.name = token_.text;
    take();
  }
  // In C the first size is the outermost: int a[2][3] is two arrays of three.
  std::string sizes;
  while (token_.is("[")) {
    std::string one;
    if (!parse_type_suffixes(lexer_, token_, definitions_, one)) return fail("syntax: expected a size");
    sizes += one;
  }
  field.type += sizes;
  if (accept(":")) {
    std::uint64_t bits = 0;
    if (!parse_constant(bits) || bits > 64) return fail("syntax: expected how many bits");
    field.bits = static_cast<int>(bits);
  }
  StructDefinition ignored;
  return parse_attributes(ignored);
}

bool DefinitionParser::parse_enum(const std::string& type) {
  if (!token_.is("{")) return true;
  take();
  EnumDefinition definition;
  definition.name = type;
  std::uint64_t value = 0;
  while (!accept("}")) {
    if (token_.kind != TokenKind::kName) return fail("syntax: expected a name");
    const std::string name(token_.text);
    take();
    if (accept("=") && !parse_constant(value)) return fail("syntax: expected a number");
    definition.values.emplace_back(name, value);
    definitions_.constants[name] = value++;
    if (!accept(",") && !token_.is("}")) return expect(",");
  }
  definitions_.enums.push_back(std::move(definition));
  return true;
}

// A number, a constant, or a simple expression of such: 1 << 3, A | B, -1
bool DefinitionParser::parse_constant(std::uint64_t& value) {
  const auto operand = [&](std::uint64_t& its) {
    const bool is_negative = accept("-");
    const bool has_parenthesis = accept("(");
    if (has_parenthesis && !parse_constant(its)) return false;
    if (!has_parenthesis) {
      if (token_.kind == TokenKind::kNumber) {
        its = token_.number;
      } else if (const auto known = definitions_.constants.find(token_.text);
                 token_.kind == TokenKind::kName && known != definitions_.constants.end()) {
        its = known->second;
      } else {
        return false;
      }
      take();
    }
    if (has_parenthesis && !accept(")")) return false;
    if (is_negative) its = -its;
    return true;
  };
  if (++depth_ > 32 || !operand(value)) return false;
  --depth_;
  for (;;) {
    std::uint64_t right = 0;
    if (accept("<<")) {
      if (!operand(right)) return false;
      value = right < 64 ? value << right : 0;
    } else if (accept("|")) {
      if (!operand(right)) return false;
      value |= right;
    } else if (accept("+")) {
      if (!operand(right)) return false;
      value += right;
    } else if (accept("-")) {
      if (!operand(right)) return false;
      value -= right;
    } else if (accept("*")) {
      if (!operand(right)) return false;
      value *= right;
    } else {
      return true;
    }
  }
}

// __attribute__((packed)), ((aligned(8))), others
bool DefinitionParser::parse_attributes(StructDefinition& definition) {
  while (token_.is_name("__attribute__")) {
    take();
    if (!expect("(") || !expect("(")) return false;
    while (!token_.is(")")) {
      const bool is_aligned = token_.is_name("aligned") || token_.is_name("__aligned__");
      definition.is_packed |= token_.is_name("packed") || token_.is_name("__packed__");
      if (token_.kind == TokenKind::kEnd) return fail("syntax: expected ')'");
      take();
      if (!token_.is("(")) continue;
      take();
      std::uint64_t value = 0;
      if (is_aligned && parse_constant(value)) definition.alignment = static_cast<std::uint32_t>(value);
      while (!token_.is(")") && token_.kind != TokenKind::kEnd) take();
      if (!expect(")")) return false;
    }
    if (!expect(")") || !expect(")")) return false;
  }
  return true;
}

}  // namespace ubp::language
