// UTF-8 checking and escaping for messages. See text.h.
#include "runtime/language/text.h"

#include <fmt/format.h>

#include <cstdint>

#include "runtime/base/utf8.h"

namespace ubp::language {
namespace {

constexpr std::size_t kQuotedBytes = 60;

std::uint8_t byte_at(std::string_view text, std::size_t offset) { return static_cast<std::uint8_t>(text[offset]); }

// C0, DEL, and C1 (U+0080 to U+009F, which terminals obey too).
bool is_control(std::string_view sequence) {
  const std::uint8_t lead = byte_at(sequence, 0);
  return lead < 0x20 || lead == 0x7f || (lead == 0xc2 && byte_at(sequence, 1) < 0xa0);
}

std::string escape(std::string_view bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); ++i) out += fmt::format("\\x{:02x}", byte_at(bytes, i));
  return out;
}

bool is_allowed_control(std::string_view text, std::size_t offset) {
  const char c = text[offset];
  if (c == '\t' || c == '\n') return true;
  return c == '\r' && (offset + 1 == text.size() || text[offset + 1] == '\n');
}

}  // namespace

std::optional<BadByte> find_bad_byte(std::string_view text) {
  std::size_t offset = 0;
  while (offset < text.size()) {
    const std::size_t length = utf8_length(text.substr(offset));
    if (length == 0) {
      return BadByte{offset, fmt::format("byte {} is not valid UTF-8", escape(text.substr(offset, 1)))};
    }
    if (text[offset] == '\0') return BadByte{offset, "NUL byte"};
    const std::string_view sequence = text.substr(offset, length);
    if (is_control(sequence) && !is_allowed_control(text, offset)) {
      return BadByte{offset, fmt::format("control character {}", escape(sequence))};
    }
    offset += length;
  }
  return std::nullopt;
}

std::string quote(std::string_view text) {
  std::string out = "'";
  std::size_t offset = 0;
  while (offset < text.size()) {
    const std::size_t length = utf8_length(text.substr(offset));
    const std::string_view sequence = text.substr(offset, length == 0 ? 1 : length);
    if (offset + sequence.size() > kQuotedBytes) {
      out += "...";
      break;
    }
    if (length == 0 || is_control(sequence)) {
      out += escape(sequence);
    } else {
      out += sequence;
    }
    offset += sequence.size();
  }
  return out + "'";
}

std::vector<std::string_view> positional(const std::vector<std::string>& parameters) {
  std::vector<std::string_view> positional;
  for (const std::string& word : parameters) {
    if (!word.starts_with("--")) positional.push_back(word);
  }
  return positional;
}

}  // namespace ubp::language
