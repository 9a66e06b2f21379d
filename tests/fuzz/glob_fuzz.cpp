// glob_match() against a matcher that is too simple to be wrong: a table of pattern token x text position.
//
// Input: the pattern up to the first newline, then the text.
#include <algorithm>
#include <bitset>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.h"
#include "runtime/language/spec.h"

namespace ubp::fuzz {
namespace {

constexpr std::size_t kMostPattern = 200, kMostText = 400;

struct Token {
  bool is_star = false;
  std::bitset<256> accepts;  // what a token other than * matches
};

Token just(char c) {
  Token token;
  token.accepts.set(static_cast<unsigned char>(c));
  return token;
}

// One character of a class or of the pattern, a backslash before it removed; a final backslash is itself.
std::string_view::value_type take(std::string_view& rest) {
  if (rest[0] == '\\' && rest.size() > 1) rest.remove_prefix(1);
  const char c = rest[0];
  rest.remove_prefix(1);
  return c;
}

// The class at the start of `rest`, which begins with [. False, and nothing taken, when it has no end.
bool take_class(std::string_view& rest, Token& token) {
  std::string_view inside = rest.substr(1);
  const bool negated = !inside.empty() && (inside[0] == '!' || inside[0] == '^');
  if (negated) inside.remove_prefix(1);
  for (bool first = true; !inside.empty(); first = false) {
    if (inside[0] == ']' && !first) {
      if (negated) token.accepts.flip();
      rest = inside.substr(1);
      return true;
    }
    const auto low = static_cast<unsigned char>(take(inside));
    auto high = low;
    if (inside.size() > 1 && inside[0] == '-' && inside[1] != ']') {
      inside.remove_prefix(1);
      high = static_cast<unsigned char>(take(inside));
    }
    for (unsigned c = low; c <= high; ++c) token.accepts.set(c);
  }
  token.accepts.reset();
  return false;
}

std::vector<Token> tokens_of(std::string_view pattern) {
  std::vector<Token> tokens;
  while (!pattern.empty()) {
    Token token;
    if (pattern[0] == '*') {
      token.is_star = true;
      pattern.remove_prefix(1);
    } else if (pattern[0] == '?') {
      token.accepts.set();
      pattern.remove_prefix(1);
    } else if (pattern[0] != '[' || !take_class(pattern, token)) {
      token = just(take(pattern));
    }
    tokens.push_back(token);
  }
  return tokens;
}

bool reference_match(std::string_view pattern, std::string_view text) {
  std::vector<char> reached(text.size() + 1, 0);  // reached[i]: the tokens so far can match text[0, i)
  reached[0] = 1;
  for (const Token& token : tokens_of(pattern)) {
    if (token.is_star) {
      std::fill(std::find(reached.begin(), reached.end(), 1), reached.end(), 1);
      continue;
    }
    for (std::size_t i = text.size(); i > 0; --i) {
      reached[i] = reached[i - 1] != 0 && token.accepts[static_cast<unsigned char>(text[i - 1])];
    }
    reached[0] = 0;
  }
  return reached.back() != 0;
}

}  // namespace
}  // namespace ubp::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace ubp::fuzz;
  const std::string_view input{reinterpret_cast<const char*>(bytes), size};
  const std::size_t newline = std::min(input.find('\n'), input.size());
  const std::string pattern{input.substr(0, std::min(newline, kMostPattern))};
  const std::string text{input.substr(std::min(newline + 1, input.size())).substr(0, kMostText)};
  const bool got = ubp::language::glob_match(pattern, text);
  FUZZ_CHECK(got == reference_match(pattern, text), "glob_match says %d", got);
  if (!ubp::language::is_glob(pattern) && pattern.find('\\') == std::string::npos) FUZZ_CHECK(got == (pattern == text));
  return 0;
}
