// Statements and expressions. See analysis.h.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "runtime/analysis/analyser.h"
#include "runtime/analysis/expand.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;

namespace {

bool is_comparison(Operator operation) { return operation >= Operator::kLess && operation <= Operator::kNotEqual; }

}  // namespace

bool are_unsigned(const Analysis& analysis, const language::Node& left, const language::Node& right) {
  const bool is_left = analysis.type(left).is_signed, is_right = analysis.type(right).is_signed;
  const auto fits = [](const language::Node& node, bool is_signed) {
    return !is_signed || node.kind == NodeKind::kNumber;
  };
  return (!is_left || !is_right) && fits(left, is_left) && fits(right, is_right);
}

void Analyser::run() {
  constexpr int kMostPasses = 100;  // each widens something; types are small
  out_.facts.resize(program_.nodes);
  out_.reads_registers.resize(program_.probes.size());
  out_.mark_arguments.resize(program_.probes.size());
  out_.named_arguments.resize(program_.probes.size());
  out_.symbol_files.resize(program_.probes.size());
  out_.keeps_arguments.resize(program_.probes.size());
  out_.is_tree.resize(program_.probes.size());
  out_.overrides.resize(program_.probes.size(), {{0, 0}, {0, 0}});
  const char* const time_map = std::getenv("BPFTRACE_DUMMY_TS_MAP");
  for (int pass = 0; pass < kMostPasses; ++pass) {
    changed_ = false;
    visit_all();
    if (is_last_ && !changed_) break;
    is_last_ = !changed_;
    if (const auto found = time_map != nullptr ? maps_.find(time_map) : maps_.end(); found != maps_.end())
      out_.time_map = found->second;
  }
  std::stable_sort(out_.diagnostics.begin(), out_.diagnostics.end(),
                   [](const Diagnostic& a, const Diagnostic& b) { return a.is_warning < b.is_warning; });
}

void Analyser::visit_all() {
  out_.diagnostics.clear();
  expansion_ = 0;
  for (probe_ = 0; probe_ < program_.probes.size(); ++probe_) {
    const language::Probe& probe = program_.probes[probe_];
    scopes_.assign(1, {});
    loops_ = 0;
    if (probe.filter != nullptr) condition(*probe.filter);
    if (probe.block != nullptr) statement(*probe.block);
  }
  if (!is_last_) return;
  const bool has_errors = std::any_of(out_.diagnostics.begin(), out_.diagnostics.end(),
                                      [](const Diagnostic& diagnostic) { return !diagnostic.is_warning; });
  declare_maps();
  for (const Map& map : out_.maps) {
    if (map.value.is(TypeKind::kNone) && !has_errors) error(map.first, fmt::format("Undefined map: {}", map.name));
    if (map.key.words() > kMostWideWords || map.value.words() > kMostWideWords)
      error(map.first, fmt::format("{}'s keys or values are longer than {} bytes", map.name, kMostWideWords * 8));
  }
}

void Analyser::error(const language::Span& span, std::string message, std::string hint) {
  say({span, std::move(message), std::move(hint), false});
}
void Analyser::warn(const language::Span& span, std::string message) { say({span, std::move(message), {}, true}); }

std::vector<language::Span> Analyser::uses_of_macros() const {
  std::vector<language::Span> uses;
  for (std::uint32_t use = expansion_; use != 0; use = program_.expansions[use - 1].expansion)
    uses.push_back(program_.expansions[use - 1].span);
  return uses;
}

void Analyser::say(Diagnostic diagnostic) {
  diagnostic.expanded_from = uses_of_macros();
  out_.diagnostics.push_back(std::move(diagnostic));
}

bool Analyser::widen(Type& into, const Type& from) {
  const Type before = into;
  const bool fits = join(into, from);
  if (into != before) changed_ = true;
  return fits;
}

void Analyser::site_of(const Node& node, Site::Kind kind) { new_site(out_.facts[node.id].index, node, kind); }

void Analyser::new_site(std::uint32_t& index, const Node& node, Site::Kind kind) {
  if (index != kNone) return;
  index = static_cast<std::uint32_t>(out_.sites.size());
  out_.sites.push_back({kind, node.span});
}

std::uint32_t Analyser::event_of(const Node& node) {
  std::uint32_t& index = out_.facts[node.id].index;
  if (index == kNone) {
    index = static_cast<std::uint32_t>(out_.events.size());
    out_.events.emplace_back();
  }
  return index;
}

// ---- Statements

void Analyser::statement(const Node& node) {
  const Expanded expanded(*this, node);
  switch (node.kind) {
    case NodeKind::kBlock:
      scopes_.emplace_back();
      block(node);
      scopes_.pop_back();
      return;
    case NodeKind::kIf:
      condition(*node.children[0]);
      for (std::size_t i = 1; i < node.children.size(); ++i) statement(*node.children[i]);
      return;
    case NodeKind::kWhile:
      warn(node.span, "While loops are deprecated and may be removed in the future.");
      condition(*node.children[0]);
      return loop_body(node);
    case NodeKind::kForRange: return for_range(node);
    case NodeKind::kForMap: return for_map(node);
    case NodeKind::kUnroll: return unrolled(node);
    case NodeKind::kAssign: return assignment(node);
    case NodeKind::kDeclare: return declaration(node);
    case NodeKind::kBreak:
    case NodeKind::kContinue:
      if (loops_ == 0)
        error(node.span,
              fmt::format("{} is only possible in a loop", node.kind == NodeKind::kBreak ? "break" : "continue"));
      return;
    case NodeKind::kReturn:
      for (const auto& child : node.children) expression(*child);
      return;
    default: break;
  }
  const Node& value = *node.children[0];
  const Type type = expression(value);
  if (value.kind == NodeKind::kCall && node.number == 0 && !type.is(TypeKind::kVoid) && !type.is(TypeKind::kNone) &&
      value.text != "delete")
    warn(value.span, "Return value discarded.");
}

void Analyser::condition(const Node& node) {
  expression(node);
  need_number(node, "a condition");
}

void Analyser::need_number(const Node& node, std::string_view what) {
  const Type& type = out_.type(node);
  if (type.is_number() || (type.is(TypeKind::kNone) && !is_last_)) return;
  error(node.span, fmt::format("{} is a number or a bool, not '{}'", what, name_of(type)));
}

// Registers and names are those of a hit.
void Analyser::need_hit(const Node& node, std::string_view what) {
  using When = language::Probe::Event;
  const When event = program_.probes[probe_].event;
  if (event != When::kItems)
    error(node.span, fmt::format("{} can not be used with {} probes", what,
                                 event == When::kInterval ? "'interval'" : "'begin' and 'end'"));
}

void Analyser::unrolled(const Node& node) {
  std::int64_t times = 0;
  expression(*node.children[0]);
  if (!literal(*node.children[0], times)) {
    error(node.children[0]->span, "unroll takes a number");
  } else if (times > 100) {
    error(node.children[0]->span, "unroll maximum value is 100");
  } else if (times < 1) {
    error(node.children[0]->span, "unroll minimum value is 1");
  }
  ++loops_;
  statement(*node.children[1]);
  --loops_;
}

// The statements, in the scope that is the innermost.
void Analyser::block(const Node& node, bool is_value) {
  const Node* const value = is_value ? value_of_block(node) : nullptr;
  bool ends = false, is_said = false;
  for (const auto& child : node.children) {
    if (ends && !is_said) warn(child->span, "Unreachable statement.");
    is_said |= ends;
    child.get() == value ? static_cast<void>(expression(*child)) : statement(*child);
    const bool is_exit = child->kind == NodeKind::kExpression && child->children[0]->kind == NodeKind::kCall &&
                         child->children[0]->text == "exit";
    ends |= is_exit || child->kind == NodeKind::kReturn || child->kind == NodeKind::kBreak ||
            child->kind == NodeKind::kContinue;
  }
}

Type Analyser::type_of_value(const Node& node, const Map& map) {
  if (!map.value.is(TypeKind::kAggregate)) return map.value;
  switch (map.value.aggregate) {
    case Aggregate::kStats:
    case Aggregate::kHistogram:
    case Aggregate::kLinear:
    case Aggregate::kSeries:
      error(node.span,
            fmt::format("Map type {} cannot print the value of individual keys. You must print the whole map.",
                        name_of(map.value)));
      return {};
    case Aggregate::kCount: return integer(64, false);
    default: return integer(64, map.value.is_signed);
  }
}

// ---- Expressions

const Type& Analyser::expression(const Node& node) {
  const Expanded expanded(*this, node);
  Type type = type_of(node);
  Type& known = out_.facts[node.id].type;
  if (known != type) {
    known = std::move(type);
    changed_ = true;
  }
  return known;
}

Type Analyser::type_of(const Node& node) {
  switch (node.kind) {
    case NodeKind::kNumber: return type_of_literal(node.number);
    case NodeKind::kBool: return boolean();
    case NodeKind::kString:
      if (node.text.size() >= out_.config.max_strlen)
        error(node.span, fmt::format("String is too long (over {} bytes): {}", out_.config.max_strlen, node.text));
      return string_of(static_cast<std::uint32_t>(std::min<std::size_t>(node.text.size() + 1, out_.config.max_strlen)));
    case NodeKind::kName: return builtin(node);
    case NodeKind::kVariable: return variable(node);
    case NodeKind::kMap: return map_value(node);
    case NodeKind::kCall: return call(node);
    case NodeKind::kUnary: return unary(node);
    case NodeKind::kIncrement: return increment(node);
    case NodeKind::kBinary:
      expression(*node.children[0]);
      expression(*node.children[1]);
      return binary(node);
    case NodeKind::kConditional: return conditional(node);
    case NodeKind::kMember: return member(node);
    case NodeKind::kCast: return cast(node);
    case NodeKind::kIndex: return index(node);
    case NodeKind::kSizeOf: return size_of(node);
    case NodeKind::kOffsetOf: return offset_of(node);
    case NodeKind::kBlock: return block_value(node);
    case NodeKind::kIf: return if_value(node);
    case NodeKind::kType: error(node.span, "a type is no value"); return {};
    default: break;
  }
  std::vector<Type> elements;
  for (const auto& child : node.children) elements.push_back(expression(*child));
  Type tuple = tuple_of(std::move(elements));
  for (std::string_view names = node.text; !names.empty();) {
    const std::size_t comma = std::min(names.find(','), names.size());
    const std::string name(names.substr(0, comma));
    if (element_named(tuple, name) != tuple.fields.size())
      error(node.span, fmt::format("The record has two fields of the name '{}'", name));
    tuple.fields.push_back(name);
    names.remove_prefix(std::min(comma + 1, names.size()));
  }
  return tuple;
}

Type Analyser::builtin(const Node& node) {
  if (const Types::Constant constant = out_.types->constant(node.text); !constant.type.is(TypeKind::kNone))
    return constant.type;
  if (const std::string* const text = out_.types->text(node.text))
    return string_of(static_cast<std::uint32_t>(text->size() + 1));
  if (is_stack_name(node.text)) return stack(node);
  if (program_.probes[probe_].has_marks) {
    if (const auto number = argument_number(node.text)) return mark_argument(*number);
  }
  if (is_arguments(node)) return arguments(node);
  const auto found = find_builtin(node.text);
  if (!found) {
    error(node.span, fmt::format("Unknown identifier: '{}'", node.text));
    return {};
  }
  if (found->needs_hit) need_hit(node, fmt::format("The {} builtin", node.text));
  if (found->is_argument) need_arguments(node, node.text);
  if (found->name == "retval" && program_.probes[probe_].has_entries)
    error(node.span, "The retval builtin can only be used with 'uretprobe' and 'call' probes");
  if (found->is_of_call || found->name == "elapsed") of_call(node, found->is_of_call);
  out_.uses_names |= found->name == "probe" || found->name == "func" || found->name == "probetype";
  return found->type;
}

// An argument of a function: where it returns only a call's is known.
void Analyser::need_arguments(const Node& node, std::string_view name) {
  const language::Probe& probe = program_.probes[probe_];
  if (probe.has_returns)
    error(node.span, fmt::format("The {} builtin can not be used with 'uretprobe' probes", name),
          "call: keeps the arguments until the return");
  if (!probe.has_calls) return;
  out_.keeps_arguments[probe_] = true;
  out_.keeps_calls = true;
}

// self, depth; and elapsed, which is something else elsewhere: how long the program has been running.
void Analyser::of_call(const Node& node, bool is_of_call) {
  const language::Probe& probe = program_.probes[probe_];
  out_.keeps_calls |= probe.has_calls;
  if (is_of_call && (!probe.has_calls || probe.has_returns || probe.has_entries)) {
    error(node.span, fmt::format("The {} builtin can only be used with 'call' probes", node.text));
  } else if (probe.has_calls && (probe.has_returns || probe.has_entries)) {
    error(node.span, fmt::format("The {} builtin of 'call' probes is another one than that of others", node.text),
          "give each a block of its own");
  }
}

// Of a kBinary, or of a compound kAssign.
Type Analyser::binary(const Node& node) {
  const Node &left = *node.children[0], &right = *node.children[1];
  const Type &left_type = out_.type(left), &right_type = out_.type(right);
  const Operator operation = node.operation;
  if (left_type.is(TypeKind::kNone) || right_type.is(TypeKind::kNone))
    return is_comparison(operation) ? boolean() : Type{};
  const bool compares_texts = (operation == Operator::kEqual || operation == Operator::kNotEqual) &&
                              ((left_type.is(TypeKind::kString) && right_type.is(TypeKind::kString)) ||
                               (left_type.is(TypeKind::kBuffer) && right_type.is(TypeKind::kBuffer)) ||
                               (left_type.is_wide() && left_type == right_type));
  if (!compares_texts && !(left_type.is_number() && right_type.is_number())) {
    error(node.span,
          fmt::format("The operation can not be used on '{}' and '{}'", name_of(left_type), name_of(right_type)));
    return is_comparison(operation) ? boolean() : Type{};
  }
  if (operation == Operator::kDivide || operation == Operator::kModulo) site_of(node, Site::Kind::kDivision);
  if (is_comparison(operation) || operation == Operator::kAnd || operation == Operator::kOr) return boolean();
  const bool adds = operation == Operator::kAdd || operation == Operator::kSubtract;
  if (adds && left_type.is(TypeKind::kPointer) && !right_type.is(TypeKind::kPointer)) return left_type;
  if (operation == Operator::kAdd && right_type.is(TypeKind::kPointer) && !left_type.is(TypeKind::kPointer))
    return right_type;
  if (operation == Operator::kSubtract) return integer(64, true);
  if (operation == Operator::kShiftLeft || operation == Operator::kShiftRight)
    return integer(64, left_type.is_signed && left_type.is(TypeKind::kInteger));
  return integer(64, !are_unsigned(out_, left, right));
}

Type Analyser::unary(const Node& node) {
  const Node& operand = *node.children[0];
  if (node.operation == Operator::kDereference) return dereference(node);
  if (node.operation == Operator::kAddressOf) return address_of(node);
  expression(operand);
  need_number(operand, "the operand");
  if (node.operation == Operator::kNot) return boolean();
  if (node.operation == Operator::kComplement) return integer(64, false);
  const bool is_literal = operand.kind == NodeKind::kNumber && out_.type(operand).is_signed;
  return is_literal ? out_.type(operand) : integer(64, true);
}

Type Analyser::increment(const Node& node) {
  const Node& operand = *node.children[0];
  const bool adds = node.operation == Operator::kPreIncrement || node.operation == Operator::kPostIncrement;
  if (operand.kind == NodeKind::kMap) {
    use_key(operand, map_of(operand), !operand.children.empty());
    Map& map = out_.maps[out_.facts[operand.id].index];
    if (map.value.is(TypeKind::kNone)) widen(map.value, integer(64, true));
    if (map.value.is(TypeKind::kPointer)) {
      out_.facts[operand.id].type = map.value;
      return map.value;
    }
    if (!map.value.is(TypeKind::kInteger))
      error(node.span, fmt::format("{} of type {} is no number", map.name, name_of(map.value)));
    if (!adds || map.value.bits < 64) widen(map.value, integer(64, map.value.is_signed || !adds));
    out_.facts[operand.id].type = map.value;
    return map.value;
  }
  expression(operand);
  need_number(operand, "the operand");
  const std::uint32_t index = out_.facts[operand.id].index;
  if (index == kNone) return {};
  if (!out_.variables[index].is(TypeKind::kPointer)) widen(out_.variables[index], integer(64, true));
  return out_.variables[index];
}

Type Analyser::conditional(const Node& node) {
  condition(*node.children[0]);
  Type type = node.children.size() == 2 ? out_.type(*node.children[0]) : expression(*node.children[1]);
  const Type other = expression(*node.children.back());
  const Type before = type;
  if (!join(type, other))
    error(node.span,
          fmt::format("the two values are of different types: '{}' and '{}'", name_of(before), name_of(other)));
  return type;
}

Type Analyser::cast(const Node& node) {
  const Type from = expression(*node.children[0]);
  Type to = type_given(*node.children[1]);
  if (to.is(TypeKind::kArray)) return cast_to_array(node, std::move(to), from);
  if (!to.is_number()) {
    if (!to.is(TypeKind::kNone)) error(node.span, fmt::format("Cannot cast to '{}'", name_of(to)));
    return {};
  }
  const bool is_text = to.is(TypeKind::kBool) && from.is(TypeKind::kString);
  const bool is_array = to.is(TypeKind::kInteger) && from.is(TypeKind::kArray) && from.bytes <= 8;
  if (!is_text && !is_array) need_number(*node.children[0], "what is cast");
  return to;
}

Analysis analyse(language::Program& program, const Inputs& inputs) {
  Analysis analysis;
  std::vector<Diagnostic> first;
  analysis.config = read_config(program, inputs, first);
  expand_macros(program, first);
  if (first.empty()) place_inputs(program, inputs, analysis.config, first);
  if (first.empty()) {
    Analyser(program, analysis).run();
  } else {
    analysis.diagnostics = std::move(first);
  }
  return analysis;
}

}  // namespace ubp::program
