// Where the arguments of functions are, as text: whoever has read the debug information writes it before a program's
// text (language::PlaceRow), and whoever arms the program reads it.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "runtime/symbols/value_place.h"

namespace ubp::program {

// One argument at one address. problem: why it cannot be read there; empty: it can.
struct ArgumentPlace {
  symbols::ValuePlace place;
  std::string problem{};
};

// Without blanks.
std::string text_of(const ArgumentPlace& argument);
// None: it is no such text.
std::optional<ArgumentPlace> place_of_text(std::string_view text);

}  // namespace ubp::program
