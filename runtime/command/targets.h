// What a program's attach points say of files is checked before the command is started: that they are there, and have
// what is to be probed.
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include "runtime/command/compiled.h"

namespace ubp::command {

// What becomes of an attach point that nothing fits.
using MissingProbes = program::Config::Missing;

// Says on standard error what is missing. False: the command is not to be started.
bool check_targets(const Compiled& compiled, MissingProbes missing, bool says_warnings,
                   const std::vector<std::string>& debug_directories);

}  // namespace ubp::command
