// Commands that a program runs: system().
//
// Context: the command. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <string>

namespace ubp::command {

// Runs it in a shell, to its end, and returns what it printed on standard output.
std::string run_shell(const std::string& command);

}  // namespace ubp::command
