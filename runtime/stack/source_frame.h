// Where an address is in the source: in a function, or in an inlined instance of one.
#pragma once

#include <cstdint>
#include <string>

namespace ubp::stack {

struct SourceFrame {
  std::string function;  // as linkers name it
  std::string path;      // empty: not known
  std::uint32_t line = 0;
};

}  // namespace ubp::stack
