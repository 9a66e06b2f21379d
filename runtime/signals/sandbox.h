// What is known of the system call filters that the program has given itself.
#pragma once

namespace ubp::signals {

// A filter of the program's own would end it for what a report at its exit asks of the kernel.
// Context: any. Async-signal-safe: yes. Thread-safe: yes.
bool forbids_report();

}  // namespace ubp::signals
