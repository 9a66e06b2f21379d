// What debug information says of a program's attach points, as text before the program's own: the types of `args` and
// of casts, where arguments are, where source lines begin. So the process that is probed reads no debug information.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/diagnostic.h"

namespace ubp::command {

struct DebugOptions {
  std::vector<std::string> modules;      // paths of those that are known to be loaded, the executable first
  std::vector<std::string> directories;  // of debug files, before the usual ones
};

// As it is where nothing of it is asked for, or where it has mistakes. diagnostics: what is asked for and is not there.
std::string with_debug_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                             const DebugOptions& options, std::vector<program::Diagnostic>& diagnostics);

}  // namespace ubp::command
