// See wishes.h.
#include "runtime/analysis/wishes.h"

#include <algorithm>
#include <variant>

#include "runtime/analysis/analysis.h"

namespace ubp::program {
namespace {

using language::Node;
using language::NodeKind;

void look_at(const Node* node, std::uint32_t probe, const std::set<std::string>& defined, Wishes& wishes) {
  if (node == nullptr) return;
  if (is_arguments(*node)) wishes.probes.try_emplace(probe);
  if (is_argument(*node)) wishes.probes[probe].insert(node->text);
  if (is_symbol_address(*node) && is_symbol_name(node->children[0]->text))
    wishes.symbols[probe].insert(node->children[0]->text);
  const std::string base = node->kind == NodeKind::kType ? node->text.substr(0, node->text.find_first_of("*[")) : "";
  const bool is_tagged = base.starts_with("struct ") || base.starts_with("union ") || base.starts_with("enum ");
  if (is_tagged && !defined.contains(base)) wishes.types.insert(base);
  for (const auto& child : node->children) look_at(child.get(), probe, defined, wishes);
}

}  // namespace

std::set<std::string> defined_types(const language::Program& tree) {
  std::set<std::string> names;
  for (const language::StructDefinition& one : tree.definitions.structs) names.insert(one.name);
  for (const language::EnumDefinition& one : tree.definitions.enums) names.insert(one.name);
  return names;
}

Wishes find_wishes(const language::Program& tree, const std::vector<language::Item>& items) {
  Wishes wishes;
  const std::set<std::string> defined = defined_types(tree);
  for (std::uint32_t probe = 0; probe < tree.probes.size(); ++probe) {
    if (tree.probes[probe].event != language::Probe::Event::kItems) continue;
    look_at(tree.probes[probe].filter.get(), probe, defined, wishes);
    look_at(tree.probes[probe].block.get(), probe, defined, wishes);
    for (const language::Macro& macro : tree.macros) look_at(macro.body.get(), probe, defined, wishes);
  }
  for (const language::Item& item : items) {
    wishes.has_places |= item.is_by_debug_information() && item.found.empty();
  }
  return wishes;
}

namespace {

// Whether something in the text looks like "@a.c:12" or "@a.c:*": maps do not.
bool may_have_lines(std::string_view text) {
  for (std::size_t at = text.find('@'); at != std::string_view::npos; at = text.find('@', at + 1)) {
    const std::size_t end = std::min(text.find_first_of(" \t\r\n;{}[](),\"", at), text.size());
    const std::size_t colon = text.substr(0, end).find(':', at);
    const char next = colon != std::string_view::npos && colon + 1 < end ? text[colon + 1] : '\0';
    if ((next >= '0' && next <= '9') || next == '*') return true;
  }
  return false;
}

}  // namespace

Wishes find_wishes(std::string_view text, const std::vector<std::string>& parameters) {
  const auto has = [&](std::string_view word) { return text.find(word) != std::string_view::npos; };
  const bool may_have_places = has("stmt:") || has("inline:") || may_have_lines(text);
  if (!has("args") && !has("uaddr") && !has("struct") && !has("union") && !has("enum") && !may_have_places) return {};
  language::Program tree;
  const auto parsed = language::parse(text, language::kMaxItems, &tree, parameters);
  const auto* const items = std::get_if<std::vector<language::Item>>(&parsed);
  return items != nullptr ? find_wishes(tree, *items) : Wishes{};
}

}  // namespace ubp::program
