// libubp's own memory (operator new and delete): how much of it there is.
#pragma once

#include <cstdint>

namespace ubp::runtime {

// Bytes of address space that libubp's allocator holds now. Thread-safe: yes; async-signal-safe: yes.
std::uint64_t arena_bytes();

// Gets memory for a small report now: when it is made, the program may have forbidden itself to map any. Called at the
// end of loading. Thread-safe: yes. Async-signal-safe: yes.
void reserve_arena();

}  // namespace ubp::runtime
