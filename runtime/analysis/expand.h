// What is known of a program before its types are: macros, parameters and settings are put in their places.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <vector>

#include "runtime/analysis/config.h"
#include "runtime/analysis/diagnostic.h"
#include "runtime/analysis/inputs.h"
#include "runtime/language/tree.h"

namespace ubp::program {

// Puts the bodies of macros where they are used. Twice does no more than once.
void expand_macros(language::Program& program, std::vector<Diagnostic>& diagnostics);

// Makes literals of $1, $#, str($1), getopt("name", default) and config().name.
void place_inputs(language::Program& program, const Inputs& inputs, const Config& config,
                  std::vector<Diagnostic>& diagnostics);

// Calls visit(slot) for every tree of the program.
template <typename Visit>
void for_each_tree(language::Program& program, const Visit& visit) {
  for (language::MapDeclaration& map : program.maps) visit(map.capacity);
  for (language::Probe& probe : program.probes) {
    if (probe.filter != nullptr) visit(probe.filter);
    if (probe.block != nullptr) visit(probe.block);
  }
}

}  // namespace ubp::program
