// The names of errors and signals, as tables for choose_text().
//
// Context: load time. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <vector>

namespace ubp::program {

// By their numbers; the last one is for all others.
std::vector<std::uint64_t> error_names();
std::vector<std::uint64_t> signal_names();

}  // namespace ubp::program
