// Constant expressions of C, as #if, #define and the sizes of arrays have them.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ubp::program {

// With macros put in their places. unknown: what a name is worth that is left; none: there must be none.
std::optional<std::int64_t> evaluate(std::string_view text, std::optional<std::int64_t> unknown);

}  // namespace ubp::program
