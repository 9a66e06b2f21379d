// Debug information for programs that no `ubp run` has read: a process of the command's reads it, so that neither libdw
// nor what it allocates is ever in this one.
//
// Context: normal. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/diagnostic.h"
#include "runtime/analysis/wishes.h"

namespace ubp::runtime {

// The text with what its attach points' debug information says before it (command/debug_types.h); as it is where it
// asks for nothing of it. diagnostics: that nobody could read it.
std::string with_debug_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                             std::vector<program::Diagnostic>& diagnostics);

// How many inlined instances of a function its modules have, by their debug information; 0 where nobody can say.
std::size_t inlined_instances(const language::Item& item);

}  // namespace ubp::runtime
