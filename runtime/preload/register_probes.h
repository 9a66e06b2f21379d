// Registering what UBP_PROBES says, and telling the user what of it is not probed.
#pragma once

#include "runtime/preload/options.h"

namespace ubp::runtime {

// Registers UBP_PROBES and arms its probes. Returns false, after saying why, when the specification is bad or nothing
// of it can be probed: nothing is armed then. Context: load time, behind join_family(), with g_loaded set.
bool register_probes(const Options& options);

// Says what went wrong in its programs at run time. Context: the end of the process.
void say_program_errors();

}  // namespace ubp::runtime
