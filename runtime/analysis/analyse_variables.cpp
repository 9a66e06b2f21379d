// Variables: where they are known, and their types. See analyser.h.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/analysis/analyser.h"
#include "runtime/analysis/mark_types.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;

std::uint32_t* Analyser::find_variable(const Node& node) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find({node.text, node.expansion});
    if (found != scope->end()) return &found->second;
  }
  return nullptr;
}

void Analyser::assign_variable(std::uint32_t index, const std::string& name, const Type& type, const Node& node) {
  Type& known = out_.variables[index];
  const Type before = known;
  if (type.is(TypeKind::kVoid) || type.is(TypeKind::kAggregate) || !widen(known, type)) {
    error(node.span,
          fmt::format("Type mismatch for ${}: trying to assign value of type '{}' when variable already has a "
                      "type '{}'",
                      name, name_of(type), name_of(before)));
  }
}

// let $x: a new variable in this block.
void Analyser::declaration(const Node& node) {
  const std::string& name = node.text;
  const bool has_type = !node.children.empty() && node.children.front()->kind == NodeKind::kType;
  const bool has_value = node.children.size() > (has_type ? 1U : 0U);
  Type type;
  if (has_value) type = expression(*node.children.back());
  if (scopes_.back().contains({name, node.expansion}))
    error(node.span, fmt::format("Variable ${} was already declared", name));
  const std::uint32_t index = make_variable(node, name);
  if (has_type) widen(out_.variables[index], type_given(*node.children.front()));
  if (has_value) assign_variable(index, name, type, node);
  if (is_last_ && out_.variables[index].is(TypeKind::kNone))
    widen(out_.variables[index], integer(64, true));  // it is 0
}

void Analyser::assignment(const Node& node) {
  const Node &target = *node.children[0], &value = *node.children[1];
  if (target.kind == NodeKind::kMap) return assign_map(target, value, node);
  Type type = expression(value);
  std::uint32_t* const known = find_variable(target);
  if (node.operation != Operator::kNone) {
    if (known == nullptr) {
      error(target.span, fmt::format("Undefined or undeclared variable: ${}", target.text));
      return;
    }
    out_.facts[target.id].index = *known;
    out_.facts[target.id].type = out_.variables[*known];
    type = binary(node);
  }
  const std::uint32_t index = known != nullptr ? *known : make_variable(target, target.text);
  assign_variable(index, target.text, type, node);
  out_.facts[target.id].index = index;
}

Type Analyser::variable(const Node& node) {
  const std::uint32_t* const known = find_variable(node);
  if (known == nullptr) {
    error(node.span, fmt::format("Undefined or undeclared variable: ${}", node.text));
    return {};
  }
  out_.facts[node.id].index = *known;
  const Type& type = out_.variables[*known];
  if (is_last_ && type.is(TypeKind::kNone))
    error(node.span, fmt::format("Undefined or undeclared variable: ${}", node.text));
  return type;
}

// An argument of a static mark. It may be in any register. Its type is known where its mark was found before the
// program runs (mark_types.h).
Type Analyser::mark_argument(std::uint32_t number) {
  out_.reads_registers[probe_] = true;
  out_.mark_arguments[probe_] |= std::uint64_t{1} << number;
  const Type all = out_.types->named(arguments_name(probe_));
  const Member its = all.layout != nullptr ? find_member(*all.layout, fmt::format("arg{}", number)) : Member{};
  return its.type.is(TypeKind::kNone) ? integer(64, false) : its.type;
}

bool is_arguments(const language::Node& node) { return node.kind == NodeKind::kName && node.text == "args"; }
bool is_argument(const language::Node& node) {
  return node.kind == NodeKind::kMember && !node.text.empty() && is_arguments(*node.children[0]);
}

std::uint32_t named_count(const Types& types, std::uint32_t probe) {
  const Type named = types.named(variables_name(probe));
  return named.layout != nullptr ? static_cast<std::uint32_t>(named.layout->members.size()) : 0;
}

// All of them, as a struct.
Type Analyser::arguments(const Node& node) {
  Type all = out_.types->named(arguments_name(probe_));
  need_hit(node, "args");
  need_arguments(node, "args");
  if (program_.probes[probe_].has_returns) return {};  // its parameters are gone
  if (all.is(TypeKind::kNone)) {
    if (is_last_)
      error(node.span, "args is known by debug information, and there is none of what is probed",
            "arg0 and the others need none; a package with debug symbols, or -g, gives it");
    return {};
  }
  out_.reads_registers[probe_] = true;
  new_site(out_.facts[node.id].site, node, Site::Kind::kUnknown);
  std::uint64_t& wanted =
      program_.probes[probe_].has_marks ? out_.mark_arguments[probe_] : out_.named_arguments[probe_];
  const std::size_t first = named_count(*out_.types, probe_);
  for (std::size_t i = 0; i < all.layout->members.size() && first + i < kMostArguments; ++i) {
    if (!all.layout->members[i].type.is(TypeKind::kUnknown)) wanted |= std::uint64_t{1} << (first + i);
  }
  return all;
}

// args.NAME: alone, whatever is known of the others.
Type Analyser::argument_named(const Node& node) {
  const Type named = out_.types->named(variables_name(probe_)), all = out_.types->named(arguments_name(probe_));
  const bool has_names = named.layout != nullptr && !named.layout->members.empty();
  if ((all.is(TypeKind::kNone) && !has_names) || program_.probes[probe_].has_returns)
    return arguments(*node.children[0]);
  std::vector<Member> members;
  for (const Type* type : {&named, &all}) {
    if (type->layout != nullptr)
      members.insert(members.end(), type->layout->members.begin(), type->layout->members.end());
  }
  const auto its =
      std::find_if(members.begin(), members.end(), [&](const Member& one) { return one.name == node.text; });
  const auto number = static_cast<std::uint32_t>(its - members.begin());
  if (its == members.end() || number >= kMostArguments) {
    std::string names;
    for (std::size_t i = named_count(*out_.types, probe_); i < members.size(); ++i)
      names += (names.empty() ? "" : ", ") + members[i].name;
    error(node.span, fmt::format("Can't find function parameter {}, nor a variable", node.text),
          names.empty() ? "there are none" : fmt::format("there is {}", names));
    return {};
  }
  need_arguments(node, "args");
  if (its->type.is(TypeKind::kUnknown)) {
    error(node.span, fmt::format("'{}' is of a type that programs have no values of", node.text));
    return {};
  }
  out_.reads_registers[probe_] = true;
  (program_.probes[probe_].has_marks ? out_.mark_arguments[probe_] : out_.named_arguments[probe_]) |= std::uint64_t{1}
                                                                                                      << number;
  out_.facts[node.id].index = number;
  new_site(out_.facts[node.id].site, node, Site::Kind::kUnknown);
  return its->type;
}

}  // namespace ubp::program
