// Bytes that a user typed: are they text, and how are they shown in a one-line message. Load time; pure
// functions.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ubp::language {

struct BadByte {
  std::size_t offset = 0;  // of the first byte that is not text
  std::string message;     // "NUL byte", "control character \x1b", "byte \xff is not valid UTF-8"
};

// Finds the first byte that cannot stand in a specification: NUL, a control character (tab, newline and the
// carriage return of a CRLF line end excepted), or a byte that is not part of well-formed UTF-8.
std::optional<BadByte> find_bad_byte(std::string_view text);

// Of what is given to a program: what begins with no "--". $1 is the first.
std::vector<std::string_view> positional(const std::vector<std::string>& parameters);

// The text in single quotes, for messages: anything but printable UTF-8 becomes \xNN, and text longer than 60
// bytes is cut at a character and ends in "...".
std::string quote(std::string_view text);

}  // namespace ubp::language
