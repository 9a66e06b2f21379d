// libubp's own memory (operator new and delete): how much of it there is.
#pragma once

#include <cstdint>

namespace ubp::core {

// Bytes of address space that libubp's allocator holds now. Thread-safe: yes; async-signal-safe: yes.
std::uint64_t arena_bytes();

}  // namespace ubp::core
