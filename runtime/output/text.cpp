// See text.h. Maps: map_text.cpp.
#include "runtime/output/text.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/analysis/format.h"

namespace ubp::program {
namespace {

// (1, abc), or { .a = 1, .b = abc }
std::string tuple_text(const Type& type, const std::uint64_t* words) {
  const bool has_names = !type.fields.empty();
  std::string text;
  for (std::size_t i = 0; i < type.elements.size(); ++i) {
    if (!text.empty()) text += ", ";
    if (has_names) text += fmt::format(".{} = ", type.fields[i]);
    text += text_of(type.elements[i], words);
    words += type.elements[i].words();
  }
  return has_names ? fmt::format("{{ {} }}", text) : fmt::format("({})", text);
}

// The low bits of a number, extended by their sign.
std::int64_t low_signed(std::uint64_t value, unsigned bits) {
  return static_cast<std::int64_t>(value << (64 - bits)) >> (64 - bits);
}
std::uint64_t low_unsigned(std::uint64_t value, unsigned bits) { return value << (64 - bits) >> (64 - bits); }

// Digits with the sign and what stands before them.
std::string number_text(const Conversion& conversion, std::uint64_t value) {
  const std::uint64_t low = low_unsigned(value, conversion.bits);
  switch (conversion.letter) {
    case 'd':
    case 'i': {
      const std::int64_t number = low_signed(value, conversion.bits);
      const std::string_view sign = number < 0 ? "" : conversion.has_sign ? "+" : conversion.has_blank ? " " : "";
      return fmt::format("{}{}", sign, number);
    }
    case 'x': return fmt::format("{}{:x}", conversion.has_prefix && low != 0 ? "0x" : "", low);
    case 'X': return fmt::format("{}{:X}", conversion.has_prefix && low != 0 ? "0X" : "", low);
    case 'o': return fmt::format("{}{:o}", conversion.has_prefix && low != 0 ? "0" : "", low);
    case 'p': return low == 0 ? "0" : fmt::format("0x{:x}", low);
    default: return fmt::format("{}", low);
  }
}

// hi\x0a; form: of the conversion.
std::string buffer_text(const std::uint64_t* words, char form) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(words + 1);
  std::string text;
  for (std::uint64_t i = 0; i < words[0]; ++i) {
    const unsigned char byte = bytes[i];
    if (form == 'h') {
      text += fmt::format("{}{:02x}", i != 0 ? " " : "", byte);
    } else if (form == '\0' && byte >= ' ' && byte <= '~') {
      text += static_cast<char>(byte);
    } else {
      text += fmt::format("\\x{:02x}", byte);
    }
  }
  return text;
}

void append(std::string& text, const Conversion& conversion, const std::string& value, bool is_number) {
  const auto width = static_cast<std::size_t>(conversion.width);
  const std::size_t fill = value.size() < width ? width - value.size() : 0;
  if (!conversion.is_left) text.append(fill, is_number && conversion.has_zeros ? '0' : ' ');
  text += value;
  if (conversion.is_left) text.append(fill, ' ');
}

}  // namespace

std::string text_of(const Type& type, const std::uint64_t* words) {
  switch (type.kind) {
    case TypeKind::kBool: return *words != 0 ? "true" : "false";
    case TypeKind::kBuffer: return buffer_text(words, '\0');
    case TypeKind::kPointer: return fmt::format("0x{:x}", *words);
    case TypeKind::kArray:
    case TypeKind::kStruct: return c_text(type, reinterpret_cast<const std::uint8_t*>(words), Format::kText);
    case TypeKind::kInteger:
      if (type.names != nullptr) {
        const auto name = type.names->find(low_unsigned(*words, type.bits));
        if (name != type.names->end()) return name->second;
      }
      return type.is_signed ? fmt::format("{}", low_signed(*words, type.bits))
                            : fmt::format("{}", low_unsigned(*words, type.bits));
    case TypeKind::kString: {
      const std::string_view whole(reinterpret_cast<const char*>(words), type.bytes);
      const std::size_t end = whole.find('\0');
      return std::string(whole.substr(0, end)) + (end == std::string_view::npos ? type.name : "");
    }
    case TypeKind::kTuple: return tuple_text(type, words);
    default: return stored_text(type, words);
  }
}

std::string format_values(std::string_view format, const std::vector<Type>& types, const std::uint64_t* words) {
  std::string text, wrong;
  std::size_t index = 0;
  for (const Conversion& conversion : parse_format(format, wrong)) {
    text += conversion.before;
    if (conversion.letter == '\0' || index == types.size()) continue;
    const Type& type = types[index++];
    if (conversion.letter == 's') {
      append(text, conversion, text_of(type, words), false);
    } else if (conversion.letter == 'r') {
      append(text, conversion, buffer_text(words, conversion.form), false);
    } else if (conversion.letter == 'c') {
      append(text, conversion, std::string(1, static_cast<char>(*words)), false);
    } else {
      append(text, conversion, number_text(conversion, *words), true);
    }
    words += type.words();
  }
  return text;
}

}  // namespace ubp::program
