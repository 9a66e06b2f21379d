// Loops, and blocks that are worth something. See analyser.h.
#include <fmt/format.h>

#include "runtime/analysis/analyser.h"

namespace ubp::program {

using language::NodeKind;

// A new one in the innermost scope, for the node that makes it.
std::uint32_t Analyser::make_variable(const Node& node, const std::string& name) {
  const auto [made, is_new] = declared_.try_emplace(node.id, static_cast<std::uint32_t>(out_.variables.size()));
  if (is_new) out_.variables.emplace_back();
  out_.facts[node.id].index = made->second;
  scopes_.back()[{name, node.expansion}] = made->second;
  return made->second;
}

// let @m = hash(100): how many keys it holds.
void Analyser::declare_maps() {
  for (const language::MapDeclaration& declaration : program_.maps) {
    const bool evicts = declaration.kind == "lruhash" || declaration.kind == "percpulruhash";
    if (!evicts && declaration.kind != "hash" && declaration.kind != "percpuhash") {
      error(declaration.span, fmt::format("Invalid map type: {}", declaration.kind),
            "hash, lruhash, percpuhash and percpulruhash are");
      continue;
    }
    std::int64_t capacity = 0;
    if (!literal(*declaration.capacity, capacity) || capacity < 1 ||
        static_cast<std::uint64_t>(capacity) > kMostMapKeys) {
      error(declaration.capacity->span, fmt::format("a map holds 1 to {} keys", kMostMapKeys));
      continue;
    }
    const auto found = maps_.find(declaration.name);
    if (found == maps_.end()) {
      warn(declaration.span, fmt::format("Unused map: {}", declaration.name));
      continue;
    }
    out_.maps[found->second].capacity = static_cast<std::uint64_t>(capacity);
    out_.maps[found->second].evicts = evicts;
    if (evicts && out_.maps[found->second].value.aggregate == Aggregate::kSeries)
      error(declaration.span, "a map of tseries() takes no new keys in place of others", "let it be a hash");
  }
}

// What a loop goes through; its turns count at the block.
void Analyser::loop_body(const Node& node) {
  const Node& body = *node.children.back();
  site_of(body, Site::Kind::kBudget);
  out_.sites[out_.facts[body.id].index].span = node.span;
  ++loops_;
  statement(body);
  --loops_;
}

void Analyser::for_range(const Node& node) {
  const Node &from = *node.children[0], &to = *node.children[1];
  for (const Node* bound : {&from, &to}) {
    expression(*bound);
    need_number(*bound, "a range's bound");
  }
  scopes_.emplace_back();
  const std::uint32_t index = make_variable(node, node.text);
  widen(out_.variables[index], integer(64, !are_unsigned(out_, from, to)));
  loop_body(node);
  scopes_.pop_back();
}

// The variable is a key and its value.
void Analyser::for_map(const Node& node) {
  const Node& target = *node.children[0];
  Map& map = map_of(target);
  if (!map.has_keys && !map.value.is(TypeKind::kNone))
    error(target.span, fmt::format("{} has no keys, and a loop goes through a map's keys", map.name));
  scopes_.emplace_back();
  const std::uint32_t index = make_variable(node, node.text);
  if (const Type value = type_of_value(target, map); !map.key.is(TypeKind::kNone) && !value.is(TypeKind::kNone)) {
    const Type row = tuple_of({map.key, value});
    out_.facts[target.id].type = row;
    widen(out_.variables[index], row);
  }
  loop_body(node);
  scopes_.pop_back();
}

const language::Node* value_of_block(const language::Node& block) {
  if (block.children.empty()) return nullptr;
  const language::Node& last = *block.children.back();
  if (block.number != 0) return last.children[0].get();
  const bool is_choice = last.kind == NodeKind::kIf && last.children.size() > 2;
  return is_choice || last.kind == NodeKind::kBlock ? &last : nullptr;
}

const language::Node& value_within(const language::Node& expression) {
  const language::Node* its = expression.kind == NodeKind::kBlock ? value_of_block(expression) : nullptr;
  return its != nullptr ? value_within(*its) : expression;
}

// { ...; value }
Type Analyser::block_value(const Node& node) {
  scopes_.emplace_back();
  block(node, true);
  scopes_.pop_back();
  const Node* const value = value_of_block(node);
  return value != nullptr ? out_.type(*value) : void_type();
}

Type Analyser::if_value(const Node& node) {
  condition(*node.children[0]);
  Type type = expression(*node.children[1]);
  const Type other = node.children.size() > 2 ? expression(*node.children[2]) : void_type();
  const Type before = type;
  if (type.is(TypeKind::kVoid) || other.is(TypeKind::kVoid)) return void_type();
  if (!join(type, other))
    error(node.span,
          fmt::format("the branches are of different types: '{}' and '{}'", name_of(before), name_of(other)));
  return type;
}

}  // namespace ubp::program
