// Where the arguments and variables of functions are, as text: whoever has read the debug information writes it before
// a program's text (language::PlaceRow), and whoever arms the program reads it.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/value_place.h"

namespace ubp::program {

// One of them at one address. problem: why it cannot be read there; empty: it can.
struct ArgumentPlace {
  symbols::ValuePlace place;
  std::string problem{};
  std::vector<symbols::ValuePlace> pieces{};  // of kPieces
  std::vector<symbols::PlaceStep> steps{};    // that it, or its pieces, refer to
};

// Without blanks.
std::string text_of(const ArgumentPlace& argument);
// None: it is no such text, or steps would leave their stack.
std::optional<ArgumentPlace> place_of_text(std::string_view text);

}  // namespace ubp::program
