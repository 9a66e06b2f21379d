// See type_parser.h.
#include "runtime/language/type_parser.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace ubp::language {
namespace {

constexpr std::string_view kNames[] = {"int8",   "int16",  "int32",  "int64", "uint8",
                                       "uint16", "uint32", "uint64", "bool",  "string"};
// C's, and what they are for x86-64 (psABI 3.1.2).
constexpr std::pair<std::string_view, std::string_view> kOthers[] = {
    {"char", "int8"},       {"short", "int16"},     {"int", "int32"},       {"long", "int64"},
    {"int8_t", "int8"},     {"int16_t", "int16"},   {"int32_t", "int32"},   {"int64_t", "int64"},
    {"uint8_t", "uint8"},   {"uint16_t", "uint16"}, {"uint32_t", "uint32"}, {"uint64_t", "uint64"},
    {"size_t", "uint64"},   {"ssize_t", "int64"},   {"intptr_t", "int64"},  {"uintptr_t", "uint64"},
    {"ptrdiff_t", "int64"}, {"off_t", "int64"},     {"pid_t", "int32"},     {"uid_t", "uint32"},
    {"gid_t", "uint32"},    {"mode_t", "uint32"},   {"time_t", "int64"},    {"_Bool", "bool"},
    {"s8", "int8"},         {"s16", "int16"},       {"s32", "int32"},       {"s64", "int64"},
    {"u8", "uint8"},        {"u16", "uint16"},      {"u32", "uint32"},      {"u64", "uint64"},
    {"__s8", "int8"},       {"__s16", "int16"},     {"__s32", "int32"},     {"__s64", "int64"},
    {"__u8", "uint8"},      {"__u16", "uint16"},    {"__u32", "uint32"},    {"__u64", "uint64"},
    {"void", "void"},       {"float", "float"},     {"double", "double"},   {"__int128", "int128"}};
constexpr std::string_view kTags[] = {"struct", "union", "enum"};
constexpr std::string_view kSignedness[] = {"unsigned", "signed"};
constexpr std::string_view kQualifiers[] = {"const", "volatile", "restrict", "__restrict"};

template <typename Range>
bool contains(const Range& range, std::string_view name) {
  return std::find(std::begin(range), std::end(range), name) != std::end(range);
}

std::string_view other_name(std::string_view name) {
  const auto* const found =
      std::find_if(std::begin(kOthers), std::end(kOthers), [&](const auto& known) { return known.first == name; });
  return found != std::end(kOthers) ? found->second : std::string_view();
}

}  // namespace

bool begins_type(const Token& token, const Definitions& definitions) {
  if (token.kind != TokenKind::kName) return false;
  return contains(kNames, token.text) || contains(kTags, token.text) || contains(kSignedness, token.text) ||
         contains(kQualifiers, token.text) || !other_name(token.text).empty() ||
         definitions.typedefs.contains(token.text);
}

std::string parse_type_base(Lexer& lexer, Token& token, const Definitions& definitions) {
  const auto take = [&] { token = lexer.next(); };
  std::string base;
  bool is_unsigned = false, has_sign = false;
  int longs = 0;
  for (; begins_type(token, definitions); take()) {
    const std::string_view word = token.text;
    if (contains(kQualifiers, word)) continue;
    if (contains(kSignedness, word)) {
      has_sign = true;
      is_unsigned = word == "unsigned";
      continue;
    }
    if (contains(kTags, word)) {
      if (!base.empty()) break;
      base = word;
      take();
      if (token.kind != TokenKind::kName) return base;  // a definition without a name follows
      base += ' ';
      base += token.text;
      continue;
    }
    const bool is_size = word == "long" || word == "short";
    if (word == "long") ++longs;
    if (base.empty() || base == "int32" || (is_size && base == "int64")) {
      const std::string_view other = other_name(word);
      if (!(base == "int16" && word == "int")) base = other.empty() ? word : other;
    } else if (word != "int") {
      break;
    }
    if (longs > 0 && word == "int") base = "int64";
    if (const auto known = definitions.typedefs.find(word); known != definitions.typedefs.end()) base = known->second;
  }
  if (base.empty() && has_sign) base = "int32";
  if (is_unsigned && base.starts_with("int")) base = 'u' + base;
  return base;
}

bool parse_type_suffixes(Lexer& lexer, Token& token, const Definitions& definitions, std::string& type) {
  for (;;) {
    if (token.is("*")) {
      type += '*';
      token = lexer.next();
      while (token.kind == TokenKind::kName && contains(kQualifiers, token.text)) token = lexer.next();
      continue;
    }
    if (!token.is("[")) return true;
    token = lexer.next();
    std::string size;
    if (token.kind == TokenKind::kNumber) {
      size = std::to_string(token.number);
      token = lexer.next();
    } else if (token.kind == TokenKind::kName) {
      const auto known = definitions.constants.find(token.text);
      if (known == definitions.constants.end()) return false;
      size = std::to_string(known->second);
      token = lexer.next();
    }
    if (!token.is("]")) return false;
    token = lexer.next();
    type += '[' + size + ']';
  }
}

}  // namespace ubp::language
