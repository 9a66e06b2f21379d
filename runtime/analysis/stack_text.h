// How the stacks of a program become text: its reader knows, and its types ask.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/analysis/types.h"

namespace ubp::program {

struct StackText {
  // Of a kStack or a kSymbol. Empty: nobody reads them.
  std::function<std::string(const Type&, std::uint64_t)> text{};
};

// Frames of a stack that says nothing else.
inline constexpr std::uint32_t kUsualFrames = 127;

}  // namespace ubp::program
