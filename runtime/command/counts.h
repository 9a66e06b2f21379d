// What the probes of a run have counted, on standard error: what a report of the library would have told.
#pragma once

#include "runtime/command/compiled.h"
#include "runtime/session/session.h"

namespace ubp::command {

// Of bare targets in processes that have made no report, since they were killed, or go on. is_all: of every probe, too.
void say_counts(const Compiled& compiled, const program::Session& session, bool is_all);

}  // namespace ubp::command
