// Taking demangled names apart, from the end: only there are the parameters easy to tell. See names.h.
#include "runtime/symbols/names.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace ubp::symbols {
namespace {

constexpr std::string_view kOperator = "operator";
constexpr std::string_view kOperatorSymbols = "+-*/%^&|~!=<>,()[]";

// "... operator<<": ends in an operator's symbol, so that its < and > are no brackets.
std::size_t trailing_operator(std::string_view text) {
  const std::size_t at = text.rfind(kOperator);
  if (at == std::string_view::npos) return at;
  const std::string_view symbol = text.substr(at + kOperator.size());
  const bool only_symbols = !symbol.empty() && symbol.find_first_not_of(kOperatorSymbols) == std::string_view::npos;
  return only_symbols ? at : std::string_view::npos;
}

// Where the last parenthesised group of `text` opens, which must be at its end; npos when there is none.
std::size_t last_group(std::string_view text) {
  if (!text.ends_with(')')) return std::string_view::npos;
  int depth = 0;
  for (std::size_t i = text.size(); i-- > 0;) {
    if (text[i] == ')') ++depth;
    if (text[i] == '(' && --depth == 0) return i;
  }
  return std::string_view::npos;
}

std::string_view without_qualifiers(std::string_view text) {
  constexpr std::string_view kQualifiers[] = {" const", " volatile", " &&", " &"};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view qualifier : kQualifiers) {
      if (!text.ends_with(qualifier)) continue;
      text.remove_suffix(qualifier.size());
      again = true;
    }
  }
  return text;
}

// Where the name begins in "type name<arguments>": after the last space outside brackets. 0 when there is no
// type.
std::size_t name_start(std::string_view bare) {
  if (!bare.ends_with('>') || trailing_operator(bare) != std::string_view::npos) return 0;
  int depth = 0;
  for (std::size_t i = bare.size(); i-- > 0;) {
    const char c = bare[i];
    if (c == '>' || c == ')' || c == ']' || c == '}') ++depth;
    if (c == '<' || c == '(' || c == '[' || c == '{') --depth;
    if (depth != 0 || c != ' ') continue;
    // "operator<< <int>" and "operator new<int>" hold a space of their own.
    const std::size_t name = trailing_operator(bare.substr(0, i));
    const bool is_word = bare.substr(0, i).ends_with(kOperator);
    if (name == std::string_view::npos && !is_word) return i + 1;
    i = is_word ? i - kOperator.size() : name;
  }
  return 0;
}

}  // namespace

std::string simplified(std::string_view name) {
  struct Short {
    std::string_view from, to;
  };
  constexpr Short kShorts[] = {
      {"std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"},
      {"std::basic_string_view<char, std::char_traits<char> >", "std::string_view"},
      {"std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"},
      {"std::__cxx11::", "std::"},
      {" >", ">"},
  };
  const auto occurs = [&](const Short& item) { return name.find(item.from) != std::string_view::npos; };
  if (std::none_of(std::begin(kShorts), std::end(kShorts), occurs)) return {};
  std::string text(name);
  for (const Short& item : kShorts) {
    for (std::size_t at = 0; (at = text.find(item.from, at)) != std::string::npos; at += item.to.size()) {
      text.replace(at, item.from.size(), item.to);
    }
  }
  return text;
}

NameForms forms_of(std::string_view demangled) {
  const std::string_view text = without_qualifiers(demangled);
  const std::size_t parameters = last_group(text);
  if (parameters == std::string_view::npos || parameters == 0) return {demangled, demangled, demangled};
  const std::string_view bare = text.substr(0, parameters);
  const std::size_t start = name_start(bare);
  return {demangled, demangled.substr(start), bare.substr(start)};
}

}  // namespace ubp::symbols
