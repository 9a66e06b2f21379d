// What detours save of vector and floating-point state around consumers that may change any of it.
//
// Context: normal, under the registry's lock. Async-signal-safe: yes.
#pragma once

#include "runtime/jump/detour_plan.h"

namespace ubp::runtime {

// How: by floating.S, or by XSAVE where the processor does not say what is in use. Fills in what `consumers` says of it. False: there is
// no way, or no room. Source: SDM volume 1, chapter 13.
bool find_floating(DetourConsumers& consumers);

}  // namespace ubp::runtime
