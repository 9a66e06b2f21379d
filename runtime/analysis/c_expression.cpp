// See c_expression.h.
#include "runtime/analysis/c_expression.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <string>
#include <utility>

#include "runtime/language/characters.h"

namespace ubp::program {
namespace {

using language::is_digit;
using language::is_word;

class Evaluator {
 public:
  Evaluator(std::string_view text, std::optional<std::int64_t> unknown) : text_(text), unknown_(unknown) {}

  std::optional<std::int64_t> run() {
    const std::int64_t value = conditional();
    skip();
    if (is_bad_ || !text_.empty()) return std::nullopt;
    return value;
  }

 private:
  static constexpr int kDeepest = 64;

  void skip() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\t' || text_[0] == '\n')) text_.remove_prefix(1);
  }
  bool accept(std::string_view sign) {
    skip();
    if (!text_.starts_with(sign)) return false;
    text_.remove_prefix(sign.size());
    return true;
  }
  std::int64_t fail() {
    is_bad_ = true;
    text_ = {};
    return 0;
  }

  std::int64_t conditional() {
    if (++depth_ > kDeepest) return fail();
    std::int64_t value = binary(0);
    if (accept("?")) {
      const std::int64_t then = conditional();
      if (!accept(":")) return fail();
      const std::int64_t otherwise = conditional();
      value = value != 0 ? then : otherwise;
    }
    --depth_;
    return value;
  }

  // From the loosest to the tightest; a longer sign before a shorter one that it begins with.
  std::int64_t binary(std::size_t level) {
    static constexpr std::array<std::array<std::string_view, 4>, 10> kSigns = {{{"||"},
                                                                                {"&&"},
                                                                                {"|"},
                                                                                {"^"},
                                                                                {"&"},
                                                                                {"==", "!="},
                                                                                {"<=", ">=", "<", ">"},
                                                                                {"<<", ">>"},
                                                                                {"+", "-"},
                                                                                {"*", "/", "%"}}};
    if (level == kSigns.size()) return unary();
    std::int64_t left = binary(level + 1);
    for (;;) {
      skip();
      const auto& signs = kSigns[level];
      const auto* const sign = std::find_if(signs.begin(), signs.end(), [&](std::string_view its) {
        return !its.empty() && text_.starts_with(its) && !is_other(its);
      });
      if (sign == signs.end()) return left;
      text_.remove_prefix(sign->size());
      left = apply(*sign, left, binary(level + 1));
    }
  }

  // "<" is not the beginning of "<<", nor "|" of "||".
  bool is_other(std::string_view sign) const {
    const char next = sign.size() < text_.size() ? text_[sign.size()] : '\0';
    return sign.size() == 1 &&
           (next == sign[0] && (sign[0] == '<' || sign[0] == '>' || sign[0] == '|' || sign[0] == '&'));
  }

  std::int64_t apply(std::string_view sign, std::int64_t left, std::int64_t right) {
    const auto a = static_cast<std::uint64_t>(left), b = static_cast<std::uint64_t>(right);
    if (sign == "||") return left != 0 || right != 0;
    if (sign == "&&") return left != 0 && right != 0;
    if (sign == "==") return left == right;
    if (sign == "!=") return left != right;
    if (sign == "<=") return left <= right;
    if (sign == ">=") return left >= right;
    if (sign == "<<") return static_cast<std::int64_t>(b < 64 ? a << b : 0);
    if (sign == ">>") return b < 64 ? left >> b : 0;
    switch (sign[0]) {
      case '|': return left | right;
      case '^': return left ^ right;
      case '&': return left & right;
      case '<': return left < right;
      case '>': return left > right;
      case '+': return static_cast<std::int64_t>(a + b);
      case '-': return static_cast<std::int64_t>(a - b);
      case '*': return static_cast<std::int64_t>(a * b);
      default: break;
    }
    if (right == 0 || right == -1) return right == 0 ? fail() : sign[0] == '/' ? static_cast<std::int64_t>(0 - a) : 0;
    return sign[0] == '/' ? left / right : left % right;
  }

  std::int64_t unary() {
    if (++depth_ > kDeepest) return fail();
    std::int64_t value = 0;
    if (accept("!")) {
      value = unary() == 0 ? 1 : 0;
    } else if (accept("~")) {
      value = ~unary();
    } else if (accept("-")) {
      value = static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(unary()));
    } else if (accept("+")) {
      value = unary();
    } else {
      value = primary();
    }
    --depth_;
    return value;
  }

  std::int64_t primary() {
    if (accept("(")) {
      const std::int64_t value = conditional();
      return accept(")") ? value : fail();
    }
    if (text_.empty()) return fail();
    if (text_[0] == '\'' && text_.size() > 2 && text_[1] != '\\' && text_[2] == '\'') {
      const std::int64_t value = static_cast<unsigned char>(text_[1]);
      text_.remove_prefix(3);
      return value;
    }
    if (!is_word(text_[0])) return fail();
    const auto* const end = std::find_if_not(text_.begin(), text_.end(), is_word);
    const std::string_view word = text_.substr(0, static_cast<std::size_t>(end - text_.begin()));
    text_.remove_prefix(word.size());
    if (is_digit(word[0])) return number(word);
    if (word == "sizeof") return size();
    if (!unknown_) return fail();
    if (accept("(")) {  // __has_attribute(x)
      const std::size_t close = text_.find(')');
      text_.remove_prefix(std::min(close, text_.size() - 1) + 1);
    }
    return *unknown_;
  }

  std::int64_t number(std::string_view word) {
    int base = 10;
    if (word.starts_with("0x") || word.starts_with("0X")) {
      base = 16;
      word.remove_prefix(2);
    } else if (word.size() > 1 && word[0] == '0' && is_digit(word[1])) {
      base = 8;
    }
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    if (error != std::errc{}) return fail();
    const std::string_view suffix(end, static_cast<std::size_t>(word.data() + word.size() - end));
    if (suffix.find_first_not_of("uUlL") != std::string_view::npos) return fail();
    return static_cast<std::int64_t>(value);
  }

  // sizeof(unsigned long), sizeof(void *): of what C itself knows.
  std::int64_t size() {
    if (!accept("(")) return fail();
    const std::size_t close = text_.find(')');
    if (close == std::string_view::npos) return fail();
    const std::string_view type = text_.substr(0, close);
    text_.remove_prefix(close + 1);
    constexpr std::pair<std::string_view, std::int64_t> kSizes[] = {
        {"*", 8}, {"char", 1}, {"short", 2}, {"long", 8}, {"double", 8}, {"float", 4}, {"int", 4}, {"unsigned", 4}};
    const auto* const found = std::find_if(std::begin(kSizes), std::end(kSizes), [type](const auto& known) {
      return type.find(known.first) != std::string_view::npos;
    });
    return found != std::end(kSizes) && type.find('_') == std::string_view::npos ? found->second : fail();
  }

  std::string_view text_;
  std::optional<std::int64_t> unknown_;
  bool is_bad_ = false;
  int depth_ = 0;
};

}  // namespace

std::optional<std::int64_t> evaluate(std::string_view text, std::optional<std::int64_t> unknown) {
  return Evaluator(text, unknown).run();
}

}  // namespace ubp::program
