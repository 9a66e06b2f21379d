// What debug information says of a program's attach points, as text before the program's own: the types of `args` and
// of casts, where arguments are, where source lines begin; and where symbols are. So the process that is probed reads
// none of it.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/analysis/diagnostic.h"
#include "runtime/debuginfo/debug_file.h"
#include "runtime/language/spec.h"

namespace ubp::command {

struct DebugOptions {
  std::vector<std::string> modules;      // paths of those that are known to be loaded, the executable first
  std::vector<std::string> directories;  // of debug files, before the usual ones
};

// How many inlined instances a file has of the functions; 0 where it has no debug information, or is no ELF file.
std::size_t inlined_instances(const std::string& path, const debuginfo::FunctionPattern& pattern,
                              const std::vector<std::string>& directories);
// What is said of a line that has no code in a file, and a hint: those next to it that have some.
std::pair<std::string, std::string> missing_line(const language::LineTarget& line, const debuginfo::Found& found,
                                                 const std::string& file);
// ": it is inlined only (2 instances)"; empty for 0.
std::string inlined_text(std::size_t instances);

// As it is where nothing of it is asked for, or where it has mistakes. diagnostics: what is asked for and is not there.
std::string with_debug_types(std::string_view name, std::string text, const std::vector<std::string>& parameters,
                             const DebugOptions& options, std::vector<program::Diagnostic>& diagnostics);

}  // namespace ubp::command
