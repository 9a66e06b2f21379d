// A plain interpreter of expressions over numbers, which shares no code with the compiler: types and values by the
// language's rules, straight from the tree.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runtime/language/tree.h"

namespace ubp::program {

struct Number {
  std::uint64_t bits = 0;
  bool is_signed = true;
  bool is_literal = false;
  bool is_bool = false;
};

// Throws std::logic_error for what it does not know.
Number interpret(const language::Node& node, const std::map<std::string, Number>& variables);

}  // namespace ubp::program
