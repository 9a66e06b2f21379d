// Keeps programs that take stacks in step with the modules of the process.
#pragma once

#include "runtime/program/program.h"

namespace ubp::runtime {

// For as long as the program lives; it goes under the ApiLock. Nothing is done for programs that need none of it.
// Under the ApiLock. Throws std::bad_alloc.
void follow_modules(program::Program& program);

// From here on ubp_context_backtrace() finds the call frame information of all modules, as they come and go. Under the
// ApiLock. Throws std::bad_alloc.
void prepare_backtraces();

}  // namespace ubp::runtime
