// runtime/spec: globs by table, against a recursive model on random small patterns, and in time pattern x
// text.
#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "runtime/language/spec.h"

namespace ubp::language {
namespace {

// The model: the definition written down, exponential and obvious.
struct ClassMatch {
  std::size_t length = 0;  // of the class in the pattern
  bool matched = false;
};

std::optional<ClassMatch> model_class(std::string_view pattern, char c) {
  std::size_t i = 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  const std::size_t first = i;
  std::string low, high;  // members as ranges
  while (i < pattern.size()) {
    if (pattern[i] == ']' && i != first) {
      bool found = false;
      for (std::size_t k = 0; k < low.size(); ++k) found = found || (low[k] <= c && c <= high[k]);
      return ClassMatch{i + 1, found != negated};
    }
    if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
    low += pattern[i];
    high += pattern[i++];
    if (i + 1 < pattern.size() && pattern[i] == '-' && pattern[i + 1] != ']') {
      ++i;
      if (pattern[i] == '\\' && i + 1 < pattern.size()) ++i;
      high.back() = pattern[i++];
    }
  }
  return std::nullopt;
}

bool model_match(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    return model_match(pattern.substr(1), text) || (!text.empty() && model_match(pattern, text.substr(1)));
  }
  if (text.empty()) return false;
  if (pattern[0] == '?') return model_match(pattern.substr(1), text.substr(1));
  if (pattern[0] == '[') {
    if (const auto match = model_class(pattern, text[0])) {
      return match->matched && model_match(pattern.substr(match->length), text.substr(1));
    }
  }
  const std::size_t skip = pattern[0] == '\\' && pattern.size() > 1 ? 1 : 0;
  return pattern[skip] == text[0] && model_match(pattern.substr(skip + 1), text.substr(1));
}

std::string random_text(std::mt19937& random, std::string_view alphabet, std::size_t longest) {
  std::string text(random() % (longest + 1), '\0');
  for (char& c : text) c = alphabet[random() % alphabet.size()];
  return text;
}

}  // namespace

TEST_CASE("glob: table") {
  const struct {
    std::string_view pattern, text;
    bool matches;
  } cases[] = {
      {"", "", true},
      {"", "a", false},
      {"*", "", true},
      {"*", "anything/with/slashes", true},
      {"?", "", false},
      {"?", "a", true},
      {"a?c", "abc", true},
      {"SSL_*", "SSL_read", true},
      {"SSL_*", "ssl_read", false},
      {"*read", "SSL_read", true},
      {"*a*b*c*", "xxaxxbxxcxx", true},
      {"*a*b*c*", "xxaxxcxxbxx", false},
      {"**", "x", true},
      {"abc", "abcd", false},
      {"abcd", "abc", false},
      {"[a-c]x", "bx", true},
      {"[a-c]x", "dx", false},
      {"[!a-c]x", "dx", true},
      {"[!a-c]x", "ax", false},
      {"[^a]", "b", true},
      {"[]]", "]", true},
      {"[!]]", "]", false},
      {"[]a]", "a", true},
      {"[a-]", "-", true},
      {"[-a]", "-", true},
      {"[c-a]", "b", false},
      {"[\\]]", "]", true},
      {"[a\\-c]", "b", false},
      {"[abc", "[abc", true},
      {"[abc", "a", false},
      {"[", "[", true},
      {"a[", "a[", true},
      {"\\*", "*", true},
      {"\\*", "a", false},
      {"\\[a]", "[a]", true},
      {"\\", "\\", true},
      {"a\\", "a\\", true},
      {"\\\\", "\\", true},
      {"[\x80-\xff]", "\xc3", true},
      {"libc.so*", "libc.so.6", true},
      {"A::f(*)", "A::f(int, char)", true},
  };
  for (const auto& c : cases) {
    CAPTURE(c.pattern);
    CAPTURE(c.text);
    CHECK(glob_match(c.pattern, c.text) == c.matches);
  }
}

TEST_CASE("glob: which texts are globs") {
  CHECK(is_glob("a*"));
  CHECK(is_glob("a?"));
  CHECK(is_glob("[ab]"));
  CHECK(!is_glob("a.b::c]"));
  CHECK(!is_glob(""));
}

TEST_CASE("glob: agrees with the model") {
  std::mt19937 random(11);
  for (int round = 0; round < 300000; ++round) {
    const std::string pattern = random_text(random, "ab*?[]!^-\\", 9);
    const std::string text = random_text(random, "ab[]-\\!", 6);
    if (glob_match(pattern, text) == model_match(pattern, text)) continue;
    CAPTURE(pattern);
    CAPTURE(text);
    FAIL_CHECK("glob_match gives " << glob_match(pattern, text));
  }
}

TEST_CASE("glob: costs at most pattern x text") {
  const std::string text(20000, 'a');
  std::string stars, open, escaped;
  for (int i = 0; i < 1000; ++i) {
    stars += "*a";
    open += "[";
    escaped += "[\\]";
  }
  const auto start = std::chrono::steady_clock::now();
  CHECK(!glob_match(stars + "b", text));
  CHECK(!glob_match("*" + std::string(1000, 'a') + "b", text));
  CHECK(!glob_match("*" + open, text + std::string(999, '[')));
  CHECK(glob_match("*" + open, text + std::string(1000, '[')));
  CHECK(!glob_match("*" + escaped, text + std::string(1000, '[')));
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(5));
}

}  // namespace ubp::language
