// See format.h.
#include "runtime/analysis/format.h"

#include <fmt/format.h>

#include <utility>

#include "runtime/language/characters.h"

namespace ubp::program {
namespace {

using language::is_digit;

std::size_t read_number(std::string_view format, std::size_t at, int& number) {
  constexpr int kMost = 4096;
  for (number = 0; at < format.size() && is_digit(format[at]); ++at) {
    if (number <= kMost) number = number * 10 + (format[at] - '0');
  }
  if (number > kMost) number = kMost;
  return at;
}

std::size_t read_flags(std::string_view format, std::size_t at, Conversion& conversion) {
  for (; at < format.size(); ++at) {
    switch (format[at]) {
      case '-': conversion.is_left = true; break;
      case '+': conversion.has_sign = true; break;
      case ' ': conversion.has_blank = true; break;
      case '0': conversion.has_zeros = true; break;
      case '#': conversion.has_prefix = true; break;
      default: return at;
    }
  }
  return at;
}

std::size_t read_length(std::string_view format, std::size_t at, Conversion& conversion) {
  constexpr std::pair<std::string_view, std::uint8_t> kLengths[] = {{"hh", 8}, {"h", 16}, {"ll", 64}, {"l", 64},
                                                                    {"j", 64}, {"z", 64}, {"t", 64}};
  for (const auto& [text, bits] : kLengths) {
    if (!format.substr(at).starts_with(text)) continue;
    conversion.bits = bits;
    return at + text.size();
  }
  return at;
}

}  // namespace

std::vector<Conversion> parse_format(std::string_view format, std::string& error) {
  constexpr std::string_view kLetters = "diuxXocspr";
  std::vector<Conversion> conversions;
  Conversion conversion;
  for (std::size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      conversion.before += format[at++];
      continue;
    }
    if (format.substr(at).starts_with("%%")) {
      conversion.before += '%';
      at += 2;
      continue;
    }
    at = read_flags(format, at + 1, conversion);
    at = read_number(format, at, conversion.width);
    int precision = 0;  // of no effect
    if (at < format.size() && format[at] == '.') at = read_number(format, at + 1, precision);
    at = read_length(format, at, conversion);
    const char letter = at < format.size() ? format[at++] : '\0';
    if (letter == '\0' || kLetters.find(letter) == std::string_view::npos) {
      error = letter == '\0' ? "the format string ends within a conversion"
                             : fmt::format("unsupported format specifier: {}", letter);
      return conversions;
    }
    conversion.letter = letter;
    if (letter == 'p') conversion.bits = 64;
    if (letter == 'r' && at < format.size() && (format[at] == 'x' || format[at] == 'h')) conversion.form = format[at++];
    conversions.push_back(std::move(conversion));
    conversion = {};
  }
  if (!conversion.before.empty()) conversions.push_back(std::move(conversion));
  return conversions;
}

bool takes(const Conversion& conversion, const Type& type) {
  if (conversion.letter == 'r') return type.is(TypeKind::kBuffer);
  return conversion.letter == 's' || type.is_number();
}

}  // namespace ubp::program
