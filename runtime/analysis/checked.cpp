// See checked.h.
#include "runtime/analysis/checked.h"

#include <utility>
#include <variant>

namespace ubp::program {

std::optional<Checked> check(std::string_view text, const Inputs& inputs, std::vector<Diagnostic>& diagnostics) {
  Checked checked;
  auto parsed = language::parse(text, language::kMaxItems, &checked.tree, inputs.parameters);
  if (const auto* error = std::get_if<language::Error>(&parsed)) {
    diagnostics.push_back({{error->position, error->end}, error->message});
    return std::nullopt;
  }
  checked.items = std::move(std::get<std::vector<language::Item>>(parsed));
  checked.analysis = analyse(checked.tree, inputs);
  diagnostics = checked.analysis.diagnostics;
  if (checked.analysis.has_errors()) return std::nullopt;
  return checked;
}

}  // namespace ubp::program
