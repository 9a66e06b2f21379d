// The functions that call: targets have seen, with the times of their calls, as `uftrace report` has them.
//
// Context: readers. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/helpers/memory.h"
#include "runtime/output/text.h"

namespace ubp::program {

// Of the maps that kFunctionsSetting makes (inputs.h). order: total, self, calls, avg or max, the greatest first.
std::string function_table(const Analysis& analysis, const std::vector<MapView>& maps, std::string_view order,
                           Format format);

}  // namespace ubp::program
