// Maps: their keys and values. See analyser.h.
#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "runtime/analysis/analyser.h"

namespace ubp::program {

using language::Operator;

void Analyser::assign_map(const Node& target, const Node& value, const Node& node) {
  Map* const map = &map_of(target);
  use_key(target, *map, !target.children.empty());
  const auto outer = std::pair(assigned_call_, assigned_map_);
  assigned_call_ = node.operation == Operator::kNone ? &value_within(value) : nullptr;
  assigned_map_ = map;
  Type type = expression(value);
  std::tie(assigned_call_, assigned_map_) = outer;
  if (node.operation != Operator::kNone) {
    if (map->value.is(TypeKind::kNone)) widen(map->value, integer(64, true));  // it begins at 0
    if (map->value.is(TypeKind::kAggregate)) {
      error(target.span,
            fmt::format("{} is a map of type {}, which only its function changes", map->name, name_of(map->value)));
      return;
    }
    out_.facts[target.id].type = map->value;
    type = binary(node);
  }
  const Type before = map->value;
  if (type.is(TypeKind::kVoid) || !widen(map->value, type)) {
    error(node.span,
          fmt::format("Type mismatch for {}: trying to assign value of type '{}' when map already has a type '{}'",
                      map->name, name_of(type), name_of(before)));
  }
}

Map& Analyser::map_of(const Node& node) {
  const auto [found, is_new] = maps_.try_emplace(node.text, static_cast<std::uint32_t>(out_.maps.size()));
  if (is_new) {
    out_.maps.emplace_back();
    out_.maps.back().name = node.text;
    out_.maps.back().first = node.span;
    out_.maps.back().capacity = out_.config.max_map_keys;
  }
  out_.facts[node.id].index = found->second;
  return out_.maps[found->second];
}

// A map has keys or not: the first use says so.
void Analyser::use_key(const Node& node, Map& map, bool has_key) {
  std::vector<const Node*> keys;
  keys.reserve(node.children.size());
  for (const auto& child : node.children) keys.push_back(child.get());
  const bool is_first = map.key.is(TypeKind::kNone) && !map.has_keys;
  if (has_key && is_first && !map.value.is(TypeKind::kNone)) {
    error(node.span, fmt::format("{} used as a map with an explicit key (non-scalar map), previously used without an "
                                 "explicit key (scalar map)",
                                 map.name));
    return;
  }
  if (!has_key) {
    if (map.has_keys)
      error(node.span, fmt::format("{} used as a map without an explicit key (scalar map), previously used with an "
                                   "explicit key (non-scalar map)",
                                   map.name));
    return;
  }
  map.has_keys = true;
  join_key(node, map, keys);
}

void Analyser::join_key(const Node& node, Map& map, const std::vector<const Node*>& keys) {
  std::vector<Type> types;
  types.reserve(keys.size());
  for (const Node* key : keys) types.push_back(expression(*key));
  Type type = types.size() == 1 ? types.front() : tuple_of(std::move(types));
  const Type before = map.key;
  if (type.is(TypeKind::kVoid) || type.is(TypeKind::kAggregate) || !widen(map.key, type)) {
    error(node.span, fmt::format("Argument mismatch for {}: trying to access with arguments: '{}' when map expects "
                                 "arguments: '{}'",
                                 map.name, name_of(type), name_of(before)));
  }
}

Type Analyser::map_value(const Node& node) {
  new_site(out_.facts[node.id].site, node, Site::Kind::kMissingKey);
  use_key(node, map_of(node), !node.children.empty());
  return type_of_value(node, out_.maps[out_.facts[node.id].index]);
}

}  // namespace ubp::program
