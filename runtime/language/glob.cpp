// Shell-style globs, matched byte by byte with one point of return (the last *), so without recursion. See
// spec.h.
#include "runtime/language/spec.h"

namespace ubp::language {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

// One pattern character: where the pattern goes on, and whether the text character was matched.
struct Step {
  std::size_t next = 0;
  bool matched = false;
};

class Matcher {
 public:
  explicit Matcher(std::string_view pattern) : pattern_(pattern) {}

  // Matches `c` against the pattern character, escape or class at `at` (not a *).
  Step step(std::size_t at, unsigned char c) {
    switch (pattern_[at]) {
      case '?': return {at + 1, true};
      case '[': {
        if (at >= first_open_) break;
        const Step step = match_class(at, c);
        if (step.next != kNone) return step;
        first_open_ = at;
        break;
      }
      default: break;
    }
    const unsigned char expected = take(at);
    return {at, expected == c};
  }

 private:
  // The character at `at`, moving over it and over a backslash before it; a final backslash is itself.
  unsigned char take(std::size_t& at) const {
    if (pattern_[at] == '\\' && at + 1 < pattern_.size()) ++at;
    return static_cast<unsigned char>(pattern_[at++]);
  }

  // The class that opens at `at`; next is kNone when it has no end (its [ is then an ordinary character).
  Step match_class(std::size_t at, unsigned char c) const {
    ++at;
    const bool negated = at < pattern_.size() && (pattern_[at] == '!' || pattern_[at] == '^');
    if (negated) ++at;
    bool found = false;
    for (bool first = true; at < pattern_.size(); first = false) {
      if (pattern_[at] == ']' && !first) return {at + 1, found != negated};
      const unsigned char low = take(at);
      unsigned char high = low;
      if (at + 1 < pattern_.size() && pattern_[at] == '-' && pattern_[at + 1] != ']') {
        ++at;
        high = take(at);
      }
      found = found || (low <= c && c <= high);
    }
    return {kNone, false};
  }

  std::string_view pattern_;
  // A [ from here on has no end. After one such [ no later one has an end either, and remembering that keeps
  // the cost at pattern x text for patterns like "[[[[[".
  std::size_t first_open_ = kNone;
};

}  // namespace

bool is_glob(std::string_view text) { return text.find_first_of("*?[") != std::string_view::npos; }

bool glob_match(std::string_view pattern, std::string_view text) {
  Matcher matcher(pattern);
  std::size_t at = 0;             // in pattern
  std::size_t position = 0;       // in text
  std::size_t star = kNone;       // pattern after the last *
  std::size_t star_position = 0;  // text that this * has not swallowed yet
  while (position < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      star = ++at;
      star_position = position;
      continue;
    }
    if (at < pattern.size()) {
      const Step step = matcher.step(at, static_cast<unsigned char>(text[position]));
      if (step.matched) {
        at = step.next;
        ++position;
        continue;
      }
    }
    if (star == kNone) return false;
    at = star;
    position = ++star_position;
  }
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at == pattern.size();
}

}  // namespace ubp::language
