// What characters are to the language, and to C: of ASCII, whatever the locale.
//
// Async-signal-safe: yes. Thread-safe: yes.
#pragma once

namespace ubp::language {

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
constexpr bool is_word(char c) { return is_letter(c) || is_digit(c); }

}  // namespace ubp::language
