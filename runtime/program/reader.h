// What a program has printed, as text.
//
// Context: normal, where no block of the program is to print any more. Async-signal-safe: no.
#pragma once

#include <string>
#include <vector>

#include "runtime/program/analysis.h"
#include "runtime/program/memory.h"

namespace ubp::program {

// The events of all tasks, by time.
std::string events_text(const Analysis& analysis, const std::vector<MapView>& maps, const Machine& machine);

// Every map that is not empty, by name.
std::string maps_text(const Analysis& analysis, const std::vector<MapView>& maps);

}  // namespace ubp::program
