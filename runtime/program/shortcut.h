// The part of a probe that its detour can do by itself (runtime/table/shortcut.h).
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <optional>

#include "runtime/analysis/analysis.h"
#include "runtime/table/shortcut.h"

namespace ubp::program {

// None: the detour is to call it at every hit. gate, maps: the program's.
std::optional<runtime::Shortcut> shortcut_of(const Analysis& analysis, const language::Probe& probe,
                                             const std::uint32_t* gate, const std::vector<MapView>& maps);

}  // namespace ubp::program
