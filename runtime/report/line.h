// What a terminal line may hold: names from other people's files end up in UBP's messages and table.
#pragma once

#include <string>
#include <string_view>

namespace ubp::report {

// Appends text with every control character (escape sequences, newlines, tabs) turned into '?'.
inline void append_printable(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
}

}  // namespace ubp::report
