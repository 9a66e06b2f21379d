// See lexer.h.
#include "runtime/language/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "runtime/language/characters.h"
#include "runtime/language/text.h"

namespace ubp::language {
namespace {

// The longest first.
constexpr std::string_view kSigns[] = {"<<=", ">>=", "->", "++", "--", "<<", ">>", "<=", ">=", "==", "!=", "&&",
                                       "||",  "+=",  "-=", "*=", "/=", "%=", "&=", "|=", "^=", "..", "+",  "-",
                                       "*",   "/",   "%",  "&",  "|",  "^",  "~",  "!",  "<",  ">",  "=",  "?",
                                       ":",   ";",   ",",  ".",  "(",  ")",  "[",  "]",  "{",  "}"};

struct Suffix {
  std::string_view suffix;
  std::uint64_t factor;
};
constexpr Suffix kSuffixes[] = {{"ns", 1},
                                {"us", 1'000},
                                {"ms", 1'000'000},
                                {"s", 1'000'000'000},
                                {"m", 60'000'000'000},
                                {"h", 3'600'000'000'000},
                                {"d", 86'400'000'000'000},
                                {"", 1},  // as are C's, which say nothing here
                                {"u", 1},
                                {"l", 1},
                                {"ul", 1},
                                {"ll", 1},
                                {"ull", 1},
                                {"U", 1},
                                {"L", 1},
                                {"UL", 1},
                                {"LL", 1},
                                {"ULL", 1}};

}  // namespace

void Lexer::advance(std::size_t bytes) {
  for (; bytes > 0 && at_.offset < text_.size(); --bytes) {
    const bool is_newline = text_[at_.offset++] == '\n';
    if (!is_newline) continue;
    ++at_.line;
    at_.line_start = at_.offset;
  }
}

bool Lexer::skip_comment() {
  if (look() != '/' || (look(1) != '/' && look(1) != '*')) return false;
  const bool is_line = look(1) == '/';
  const std::size_t end = text_.find(is_line ? "\n" : "*/", at_.offset + 2);
  if (end == std::string_view::npos && !is_line) return false;  // not closed: the '/' is an error where it stands
  advance(std::min(end, text_.size()) + (is_line ? 0 : 2) - at_.offset);
  return true;
}

char Lexer::skip_blanks() {
  while (look() == '\n' || skip_comment() || look() == ' ' || look() == '\t' || look() == '\r') {
    if (look() == '\n' || look() == ' ' || look() == '\t' || look() == '\r') advance();
  }
  return look();
}

char Lexer::skip_spaces() {
  while (look() == ' ' || look() == '\t' || look() == '\r') advance();
  return look();
}

void Lexer::read_word() {
  while (is_word(look())) advance();
}

Token Lexer::next() {
  skip_blanks();
  Token token;
  token.begin = at_;
  const char first = look();
  if (at_.offset >= text_.size()) {
    token.end = at_;
    return token;
  }
  if (is_digit(first)) {
    read_number(token);
  } else if (is_letter(first)) {
    token.kind = TokenKind::kName;
    read_word();
  } else if (first == '"') {
    read_string(token);
  } else if (first == '$' || first == '@') {
    token.kind = first == '$' ? TokenKind::kVariable : TokenKind::kMap;
    advance();
    read_word();
    if (first == '$' && look() == '#' && at_.offset == token.begin.offset + 1) advance();
    if (first == '$' && at_.offset == token.begin.offset + 1) {
      token.kind = TokenKind::kError;
      token.value = "expected a name after '$'";
    }
  } else {
    const auto* const sign = std::find_if(std::begin(kSigns), std::end(kSigns), [&](std::string_view known) {
      return text_.substr(at_.offset).starts_with(known);
    });
    token.kind = sign != std::end(kSigns) ? TokenKind::kSign : TokenKind::kError;
    std::size_t bytes = sign != std::end(kSigns) ? sign->size() : 1;
    while (token.kind == TokenKind::kError && (static_cast<unsigned char>(look(bytes)) & 0xc0) == 0x80) ++bytes;
    if (token.kind == TokenKind::kError)
      token.value = fmt::format("unexpected {}", quote(text_.substr(at_.offset, bytes)));
    advance(bytes);
  }
  token.end = at_;
  token.text = text_.substr(token.begin.offset, at_.offset - token.begin.offset);
  return token;
}

// 12, 0x1f, 017, 1e6, 1_000; then a suffix.
void Lexer::read_number(Token& token) {
  token.kind = TokenKind::kNumber;
  const std::size_t start = at_.offset;
  while (is_word(look())) advance();
  std::string word(text_.substr(start, at_.offset - start));
  std::erase(word, '_');
  std::string_view digits = word;
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.size() > 1 && digits[0] == '0' && is_digit(digits[1])) {
    base = 8;
  }
  const auto fail = [&](std::string_view why) {
    token.kind = TokenKind::kError;
    token.value = fmt::format("{} {}", quote(text_.substr(start, at_.offset - start)), why);
  };
  const char* const last = digits.data() + digits.size();
  const auto [end, error] = std::from_chars(digits.data(), last, token.number, base);
  if (error == std::errc::result_out_of_range) return fail("does not fit in 64 bits");
  if (error != std::errc{}) return fail("is not a number");
  std::string_view suffix(end, static_cast<std::size_t>(last - end));
  const auto scale = [&token](std::uint64_t factor) {
    return __builtin_mul_overflow(token.number, factor, &token.number);
  };
  if (base == 10 && suffix.size() > 1 && (suffix[0] == 'e' || suffix[0] == 'E') && is_digit(suffix[1])) {
    unsigned exponent = 0;
    const auto behind = std::from_chars(suffix.data() + 1, last, exponent);
    if (behind.ec != std::errc{} || exponent > 19) return fail("does not fit in 64 bits");
    for (; exponent > 0; --exponent) {
      if (scale(10)) return fail("does not fit in 64 bits");
    }
    suffix = {behind.ptr, static_cast<std::size_t>(last - behind.ptr)};
  }
  const auto* const unit = std::find_if(std::begin(kSuffixes), std::end(kSuffixes),
                                        [suffix](const Suffix& known) { return known.suffix == suffix; });
  if (unit == std::end(kSuffixes)) return fail("is not a number");
  if (scale(unit->factor)) return fail("does not fit in 64 bits");
}

void Lexer::read_string(Token& token) {
  token.kind = TokenKind::kString;
  advance();
  while (at_.offset < text_.size() && look() != '"') {
    if (look() == '\\') {
      if (!read_escape(token)) return;
      continue;
    }
    token.value += look();
    advance();
  }
  if (at_.offset >= text_.size()) {
    token.kind = TokenKind::kError;
    token.value = "the quote is not closed";
  }
  advance();
}

// \n \t \r \\ \" \NNN \xHH
bool Lexer::read_escape(Token& token) {
  constexpr std::string_view kLetters = "ntr\\\"", kMeant = "\n\t\r\\\"";
  const char c = look(1);
  const std::size_t letter = c == '\0' ? std::string_view::npos : kLetters.find(c);
  if (letter != std::string_view::npos) {
    token.value += kMeant[letter];
    advance(2);
    return true;
  }
  const bool is_hexadecimal = c == 'x';
  const std::size_t from = at_.offset + (is_hexadecimal ? 2 : 1);
  const std::size_t most = is_hexadecimal ? 2 : 3;
  unsigned value = 0;
  const std::string_view digits = text_.substr(std::min(from, text_.size()), most);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, is_hexadecimal ? 16 : 8);
  if (error != std::errc{} || value > 255) {
    token.kind = TokenKind::kError;
    token.value = fmt::format("unknown escape {}", quote(text_.substr(at_.offset, 2)));
    advance(2);
    return false;
  }
  token.value += static_cast<char>(value);
  advance(from - at_.offset + static_cast<std::size_t>(end - digits.data()));
  return true;
}

}  // namespace ubp::language
