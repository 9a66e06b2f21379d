// What Go's compiler and linker leave in a module: that they made it, and where its runtime has the running goroutine.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

bool has_go_code(const Module& module);

// Where Go's runtime in this module keeps the address of the running goroutine's g, from %fs:0 in every thread. None:
// that is not known. Reads the file.
std::optional<std::int64_t> goroutine_word(const Module& module);

}  // namespace ubp::symbols
