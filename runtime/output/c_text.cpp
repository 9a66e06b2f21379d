// What C lays out, as text or JSON. See text.h.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runtime/analysis/layout.h"
#include "runtime/output/text.h"

namespace ubp::program {
namespace {

// A number of memory as a word of its type.
std::uint64_t word_of(const Type& type, const std::uint8_t* bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, std::min<std::size_t>(type.size(), sizeof word));
  const unsigned above = 64 - 8 * std::min(type.size(), 8U);
  if (!type.is(TypeKind::kInteger) || !type.is_signed || above == 64) return word;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(word << above) >> above);
}

std::string member_text(const Member& member, const std::uint8_t* whole, Format format) {
  const std::uint8_t* const bytes = whole + member.offset;
  if (member.bits == 0) return c_text(member.type, bytes, format);
  const Type type = integer(64, false);  // as members of so few bits are read
  const std::uint64_t all = word_of(integer(static_cast<std::uint8_t>(member.type.size() * 8), false), bytes);
  const std::uint64_t word = all << (64U - member.shift - member.bits) >> (64U - member.bits);
  return format == Format::kText ? text_of(type, &word) : json_of(type, &word);
}

std::string struct_text(const Layout& layout, const std::uint8_t* bytes, Format format) {
  const bool is_text = format == Format::kText;
  std::string text;
  for (const Member& member : layout.members) {
    if (!text.empty()) text += ", ";
    text += is_text ? fmt::format(".{} = ", member.name) : fmt::format("{}: ", json_quoted(member.name));
    text += member_text(member, bytes, format);
  }
  if (text.empty()) return "{}";
  return is_text ? "{ " + text + " }" : '{' + text + '}';
}

}  // namespace

std::string c_text(const Type& type, const std::uint8_t* bytes, Format format) {
  switch (type.kind) {
    case TypeKind::kStruct: return type.layout != nullptr ? struct_text(*type.layout, bytes, format) : "null";
    case TypeKind::kUnknown: return "null";
    case TypeKind::kArray: {
      const Type& element = type.elements.front();
      const std::uint32_t size = std::max(element.size(), 1U);
      std::string text = "[";
      for (std::uint32_t at = 0; at + size <= type.bytes; at += size) {
        if (at != 0) text += ',';
        text += c_text(element, bytes + at, format);
      }
      return text + ']';
    }
    case TypeKind::kString: {
      const std::string_view whole(reinterpret_cast<const char*>(bytes), type.bytes);
      const std::string_view text = whole.substr(0, whole.find('\0'));
      return format == Format::kText ? std::string(text) : json_quoted(text);
    }
    default: {
      const std::uint64_t word = word_of(type, bytes);
      return format == Format::kText ? text_of(type, &word) : json_of(type, &word);
    }
  }
}

}  // namespace ubp::program
