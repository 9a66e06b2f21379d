// printf's formats.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/types.h"

namespace ubp::program {

// One conversion, and the text before it.
struct Conversion {
  std::string before;
  char letter = '\0';  // '\0': there is none behind the text
  bool is_left = false, has_sign = false, has_blank = false, has_zeros = false, has_prefix = false;
  int width = 0;
  std::uint8_t bits = 32;
  char form = '\0';  // of 'r': 'x' and 'h' write every byte in hexadecimal
};

// Reads a format. error: what is wrong with it, or empty.
std::vector<Conversion> parse_format(std::string_view format, std::string& error);

// Whether a conversion takes a value of the type.
bool takes(const Conversion& conversion, const Type& type);

}  // namespace ubp::program
