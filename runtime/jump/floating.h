// What detours save of vector and floating-point state around consumers that may change any of it.
//
// Context: normal, under the registry's lock. Async-signal-safe: yes.
#pragma once

#include <optional>

#include "runtime/jump/detour_plan.h"

namespace ubp::runtime {

// How: by floating.S, or by XSAVE where the processor does not say what is in use. Nothing: there is no way, or no
// room. Source: SDM volume 1, chapter 13.
std::optional<Floating> find_floating();

}  // namespace ubp::runtime
