// UTF-8, as texts of the user and names in files are checked. Context: any. Thread-safe: no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ubp {

// The length of the well-formed sequence that `text` begins with (1 to 4 bytes: no overlong form, no surrogate, nothing
// above U+10FFFF); 0: there is none. text: not empty. Source: Unicode 15.0, table 3-7.
inline std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const bool is_overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool is_surrogate = lead == 0xed && byte(1) > 0x9f, is_above = lead == 0xf4 && byte(1) > 0x8f;
  return is_overlong || is_surrogate || is_above ? 0 : length;
}

}  // namespace ubp
