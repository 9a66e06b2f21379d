// A text of UBP_PROBES, read and checked: its targets, and what its filters and blocks mean.
//
// Context: load time. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/language/spec.h"

namespace ubp::program {

struct Checked {
  std::vector<language::Item> items;
  language::Program tree;
  Analysis analysis;

  bool is_empty() const { return items.empty() && tree.probes.empty(); }
};

// None: it has mistakes. diagnostics: them, or warnings; mistakes come first.
std::optional<Checked> check(std::string_view text, const Inputs& inputs, std::vector<Diagnostic>& diagnostics);

}  // namespace ubp::program
