// See checked.h.
#include "runtime/analysis/checked.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "runtime/language/program_parser.h"

namespace ubp::program {

namespace {

// Bare targets of call: have this block then. False: there is none.
bool add_call_block(const Inputs& inputs, Checked& checked) {
  std::string statements;
  for (const auto& [name, value] : inputs.settings) {
    if (name == kTreeSetting) statements += fmt::format("tree({});", value);
    if (name != kFunctionsSetting) continue;
    statements += fmt::format(
        "{}[func] = count(); if (outermost) {{ {}[func] = sum(elapsed); }} "
        "{}[func] = max(elapsed); {}[func] = sum(self);",
        kCallsMap, kTotalMap, kLongestMap, kSelfMap);
    for (const char* const map : kFunctionMaps) {
      constexpr std::uint64_t kMostFunctions = 65536;
      auto capacity = std::make_unique<language::Node>(language::Node{language::NodeKind::kNumber, {}});
      capacity->id = checked.tree.nodes++;
      capacity->number = kMostFunctions;
      checked.tree.maps.push_back({{}, map, "hash", std::move(capacity)});
    }
  }
  if (statements.empty()) return true;
  language::Probe probe;
  language::ProgramParser("{" + statements + "}", {0, 1, 0}, checked.tree).parse(probe);
  probe.has_calls = true;
  bool is_there = false;
  for (language::Item& item : checked.items) {
    if (item.kind != language::Kind::kCall || item.probe != language::kBare || item.exclude) continue;
    item.probe = static_cast<std::uint32_t>(checked.tree.probes.size());
    probe.span = {item.position, item.position};
    is_there = true;
  }
  if (is_there) checked.tree.probes.push_back(std::move(probe));
  return is_there;
}

}  // namespace

std::optional<Checked> check(std::string_view text, const Inputs& inputs, std::vector<Diagnostic>& diagnostics) {
  Checked checked;
  auto parsed = language::parse(text, language::kMaxItems, &checked.tree, inputs.parameters);
  if (const auto* error = std::get_if<language::Error>(&parsed)) {
    diagnostics.push_back({{error->position, error->end}, error->message});
    return std::nullopt;
  }
  checked.items = std::move(std::get<std::vector<language::Item>>(parsed));
  if (!add_call_block(inputs, checked)) {
    diagnostics.push_back({{{1, 1}, {0, 0}},
                           "--tree and --functions show targets of call: that have no block, and there is none",
                           "ubp run --tree -e 'call:*' -- COMMAND"});
    return std::nullopt;
  }
  checked.analysis = analyse(checked.tree, inputs);
  diagnostics = checked.analysis.diagnostics;
  if (checked.analysis.has_errors()) return std::nullopt;
  return checked;
}

}  // namespace ubp::program
