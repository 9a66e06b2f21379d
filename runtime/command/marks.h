// Static marks in files.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>
#include <vector>

#include "runtime/language/spec.h"
#include "runtime/symbols/marks.h"

namespace ubp::command {

// The files that an attach point's module means. command: the executable, which is meant by none.
std::vector<std::string> files_of_module(const language::Item& item, const std::string& command);

// The places of marks that an attach point means in those files; what is no ELF file has none.
std::vector<symbols::Mark> marks_meant_by(const language::Item& item, const std::string& command);

}  // namespace ubp::command
