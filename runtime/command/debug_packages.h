// Where the debug information of a file would come from.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <string>

namespace ubp::command {

// A hint: the package that would have it, and the file that it would be in; or that the file is to be built with it.
std::string where_to_get_it(const std::string& path);

}  // namespace ubp::command
