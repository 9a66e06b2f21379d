// The report that a process leaves: at its end, when a signal ends it, or on ubp_flush().
//
// Whichever thread comes first makes it, once for a process; a vfork child, which runs in its parent's memory, makes
// none.
#pragma once

namespace ubp::runtime {

// Writes the report and the summary, unless another thread does or has done: then waits for that one. Does nothing in
// an inert process. Context: the end of the process, in any thread. Async-signal-safe: no. Thread-safe: yes.
void write_report();

// The entry's part of ubp_flush(): writes the files as things are now. Returns false after saying what cannot be
// written.
bool flush_files();

// Whose memory is this? A vfork child runs in its parent's and must not report for it.
bool is_reporting_process();

// At load: has a signal that ends the process make the report first (trap/death.h). Without memory for a stack of its
// own it makes none.
void prepare_death();

}  // namespace ubp::runtime
