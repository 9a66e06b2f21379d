// Calls of functions. See analyser.h.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "runtime/analysis/analyser.h"
#include "runtime/analysis/format.h"
#include "runtime/helpers/read_map.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;

// A number as it is written: 5, -5.
bool Analyser::literal(const Node& node, std::int64_t& value) {
  const bool is_negative = node.kind == NodeKind::kUnary && node.operation == Operator::kNegate;
  const Node& number = is_negative ? *node.children[0] : node;
  if (number.kind != NodeKind::kNumber || number.number >> 63 != 0) return false;
  value = static_cast<std::int64_t>(number.number);
  if (is_negative) value = -value;
  return true;
}

bool Analyser::constant(const Node& node, std::int64_t& value) const {
  std::int64_t left = 0, right = 0;
  switch (node.kind) {
    case NodeKind::kNumber: value = static_cast<std::int64_t>(node.number); return true;
    case NodeKind::kName: {
      const Types::Constant its = out_.types->constant(node.text);
      value = static_cast<std::int64_t>(its.value);
      return !its.type.is(TypeKind::kNone);
    }
    case NodeKind::kUnary:
      if (node.operation != Operator::kNegate || !constant(*node.children[0], left)) return false;
      return !__builtin_sub_overflow(std::int64_t{0}, left, &value);
    case NodeKind::kBinary: break;
    default: return false;
  }
  if (!constant(*node.children[0], left) || !constant(*node.children[1], right)) return false;
  switch (node.operation) {
    case Operator::kAdd: return !__builtin_add_overflow(left, right, &value);
    case Operator::kSubtract: return !__builtin_sub_overflow(left, right, &value);
    case Operator::kMultiply: return !__builtin_mul_overflow(left, right, &value);
    case Operator::kDivide:
      if (right <= 0) return false;
      value = left / right;
      return true;
    default: return false;
  }
}

const std::string* Analyser::literal_text(const Node& node) {
  expression(node);
  if (node.kind == NodeKind::kString) return &node.text;
  error(node.span, "a format is a literal string");
  return nullptr;
}

Type Analyser::call(const Node& node) {
  const FunctionRow* const row = find_function(node.text);
  const std::size_t arguments = node.children.size();
  if (row == nullptr) {
    const bool is_argument = program_.probes[probe_].has_marks && argument_number(node.text);
    if (arguments == 0 && (is_argument || find_builtin(node.text))) return builtin(node);
    error(node.span, fmt::format("Unknown function: '{}'", node.text));
    return {};
  }
  if (arguments < row->least || arguments > row->most) {
    const auto wanted = row->least == row->most  ? fmt::format("{}", row->least)
                        : arguments < row->least ? fmt::format("at least {}", row->least)
                                                 : fmt::format("at most {}", row->most);
    error(node.span, fmt::format("{}() takes {} argument{}, {} found", row->name, wanted,
                                 wanted.ends_with('1') ? "" : "s", arguments));
    return {};
  }
  switch (row->function) {
    case Function::kPrintf: return print_formatted(node, Event::Kind::kFormat);
    case Function::kSayError: return print_formatted(node, Event::Kind::kError);
    case Function::kSayWarning: return print_formatted(node, Event::Kind::kWarning);
    case Function::kFile: return print_formatted(node, Event::Kind::kFile);
    case Function::kCommand: return print_formatted(node, Event::Kind::kCommand);
    case Function::kPrint: return print(node);
    case Function::kClear:
    case Function::kZero:
    case Function::kDelete:
    case Function::kLength:
    case Function::kHasKey:
    case Function::kFindKey: return of_map(node, row->function);
    case Function::kStr: return text(node);
    case Function::kBuffer: return buffer(node);
    case Function::kStack: return stack(node);
    case Function::kSymbol: return symbol(node);
    case Function::kSymbolAddress: return symbol_address(node);
    case Function::kExit:
      for (const auto& child : node.children) {
        expression(*child);
        need_number(*child, "a status");
      }
      return void_type();
    case Function::kOverride:
      expression(*node.children[0]);
      need_number(*node.children[0], "what a call returns");
      need_hit(node, "override()");
      if (program_.probes[probe_].has_returns || program_.probes[probe_].has_calls)
        error(node.span, fmt::format("override() can not be used with '{}' probes: the call is over",
                                     program_.probes[probe_].has_returns ? "uretprobe" : "call"));
      if (out_.overrides[probe_].begin.line == 0) out_.overrides[probe_] = node.span;
      return void_type();
    case Function::kTree: return tree(node);
    case Function::kReg:
      if (is_kept_by_calls(register_of(node.children[0]->text))) out_.reads_registers[probe_] = true;
      if (node.children[0]->kind != NodeKind::kString || register_of(node.children[0]->text) < 0)
        error(node.span, "reg() takes a register's name: ip sp ax bx cx dx si di bp r8 ... r15");
      need_hit(node, "reg()");
      if (program_.probes[probe_].has_calls) {
        out_.keeps_calls = true;
        out_.keeps_arguments[probe_] = true;
      }
      return integer(64, false);
    default: return row->function > Function::kReg ? call_of_text(node, row->function) : aggregation(node, *row);
  }
}

// tree(), tree(3): each call is told where it is entered and where it returns, whatever else the block does.
Type Analyser::tree(const Node& node) {
  const language::Probe& probe = program_.probes[probe_];
  std::int64_t depth = std::numeric_limits<std::int64_t>::max();
  const bool is_alone =
      probe.block != nullptr &&
      std::any_of(probe.block->children.begin(), probe.block->children.end(), [&](const auto& statement) {
        return statement->kind == NodeKind::kExpression && statement->children.front().get() == &node;
      });
  if (!probe.has_calls || probe.has_returns || probe.has_entries) {
    error(node.span, "tree() can only be used with 'call' probes");
  } else if (probe.filter != nullptr || !is_alone) {
    error(node.span, "tree() tells of every call, from its entry on: it has no filter and no condition",
          "ubp run --tree --min 10us");
  } else if (!node.children.empty() && (!literal(*node.children[0], depth) || depth < 1)) {
    error(node.children[0]->span, "tree() takes how deep it goes, a number from 1 on");
  } else if (out_.tree_event != kNone && out_.tree_depth != static_cast<std::uint64_t>(depth)) {
    error(node.span, "a program has one tree: tree() takes the same number everywhere");
  }
  for (const auto& child : node.children) expression(*child);
  if (out_.tree_event == kNone) {
    out_.tree_event = event_of(node);
    out_.events[out_.tree_event].kind = Event::Kind::kCall;
    out_.tree_depth = static_cast<std::uint64_t>(depth);
  }
  out_.is_tree[probe_] = true;
  out_.keeps_calls = out_.uses_names = true;
  return void_type();
}

// count() and the others, where one is assigned to a map.
Type Analyser::aggregation(const Node& node, const FunctionRow& row) {
  if (assigned_call_ != &node) {
    error(node.span, fmt::format("{}() should be assigned to a map", row.name));
    return {};
  }
  const auto aggregate =
      static_cast<Aggregate>(static_cast<int>(row.function) - static_cast<int>(Function::kCount) + 1);
  bool is_signed = false;
  if (!node.children.empty()) {
    is_signed = expression(*node.children[0]).is_signed;
    need_number(*node.children[0], fmt::format("what {}() takes", row.name));
    row.function == Function::kSeries ? series(node, *assigned_map_) : histogram(node, row.function, *assigned_map_);
  }
  return aggregate_of(aggregate, is_signed);
}

// The further arguments of hist() and lhist(): the same wherever the map is assigned to.
void Analyser::histogram(const Node& node, Function function, Map& map) {
  std::int64_t values[3] = {};
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    expression(*node.children[i]);
    if (!literal(*node.children[i], values[i - 1])) {
      error(node.children[i]->span, fmt::format("{}() takes literal numbers behind the first argument", node.text));
      return;
    }
  }
  const bool is_first = map.value.is(TypeKind::kNone);
  if (function == Function::kHistogram) {
    if (values[0] < 0 || values[0] > 5) {
      error(node.span, fmt::format("hist() takes 0 to 5 bits, not {}", values[0]));
    } else if (!is_first && map.power != values[0]) {
      error(node.span, fmt::format("{} is a hist() with other bits elsewhere", map.name));
    } else {
      map.power = static_cast<std::uint8_t>(values[0]);
    }
  }
  if (function != Function::kLinear) return;
  const auto [low, high, step] = values;
  constexpr std::uint64_t kMostBuckets = 1000;
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  if (low >= high || step <= 0) {
    error(node.span, "lhist() takes a minimum below its maximum, and a step above 0");
  } else if (range / static_cast<std::uint64_t>(step) > kMostBuckets) {
    error(node.span, fmt::format("lhist() takes at most {} buckets", kMostBuckets));
  } else if (!is_first && (map.low != low || map.high != high || map.step != step)) {
    error(node.span, fmt::format("{} is an lhist() with other bounds elsewhere", map.name));
  } else {
    map.low = low;
    map.high = high;
    map.step = step;
  }
}

// tseries(value, interval, count[, what])
void Analyser::series(const Node& node, Map& map) {
  constexpr std::pair<std::string_view, Series> kNames[] = {{"last", Series::kLast},
                                                            {"min", Series::kMinimum},
                                                            {"max", Series::kMaximum},
                                                            {"sum", Series::kSum},
                                                            {"avg", Series::kAverage}};
  constexpr std::int64_t kMostIntervals = 1000;
  std::int64_t interval = 0, count = 0;
  for (std::size_t i = 1; i < node.children.size(); ++i) expression(*node.children[i]);
  if (!literal(*node.children[1], interval) || interval < 1)
    return error(node.children[1]->span, "tseries() takes an interval as a literal, from 1 ns on");
  if (!literal(*node.children[2], count) || count < 1 || count > kMostIntervals)
    return error(node.children[2]->span, fmt::format("tseries() takes 1 to {} intervals", kMostIntervals));
  Series what = Series::kLast;
  if (node.children.size() == 4) {
    const Node& name = *node.children[3];
    const auto* const found = std::find_if(std::begin(kNames), std::end(kNames), [&](const auto& known) {
      return name.kind == NodeKind::kString && known.first == name.text;
    });
    if (found == std::end(kNames))
      return error(name.span, "tseries() keeps \"last\", \"min\", \"max\", \"sum\" or \"avg\" of an interval");
    what = found->second;
  }
  const auto power = static_cast<std::uint8_t>(what);
  const bool is_first = map.value.is(TypeKind::kNone);
  if (!is_first && (map.low != interval || map.high != count || map.power != power))
    return error(node.span, fmt::format("{} is another tseries() elsewhere", map.name));
  map.low = interval;
  map.high = count;
  map.power = power;
}

Type Analyser::print_formatted(const Node& node, Event::Kind kind) {
  for (std::size_t i = 1; i < node.children.size(); ++i) expression(*node.children[i]);
  const std::string* const format = literal_text(*node.children[0]);
  if (format == nullptr) return void_type();
  std::string wrong;
  std::vector<Conversion> conversions = parse_format(*format, wrong);
  if (!wrong.empty()) {
    error(node.span, wrong);
    return void_type();
  }
  if (!conversions.empty() && conversions.back().letter == '\0') conversions.pop_back();
  const std::size_t supplied = node.children.size() - 1;
  if (supplied != conversions.size()) {
    error(node.span,
          fmt::format("{} arguments for format string ({} supplied, {} expected)",
                      supplied < conversions.size() ? "not enough" : "too many", supplied, conversions.size()));
    return void_type();
  }
  std::vector<Type> values;
  for (std::size_t i = 0; i < supplied; ++i) {
    const Type& type = out_.type(*node.children[i + 1]);
    const bool is_known = !type.is(TypeKind::kNone) && !type.is(TypeKind::kVoid);
    if ((is_known && !takes(conversions[i], type)) || type.is(TypeKind::kVoid))
      error(node.span,
            fmt::format("unsupported format specifier for type '{}': {}", name_of(type), conversions[i].letter));
    values.push_back(type);
  }
  const std::uint32_t index = event_of(node);
  out_.events[index] = {kind, *format, std::move(values), kNone, node.span, uses_of_macros()};
  return void_type();
}

// print(value); print(@map[, top[, divisor]])
Type Analyser::print(const Node& node) {
  const Node& value = *node.children[0];
  const bool is_map = value.kind == NodeKind::kMap && value.children.empty();
  const std::uint32_t index = event_of(node);
  if (!is_map) {
    const Type& type = expression(value);
    if (node.children.size() > 1)
      error(node.span, fmt::format("Non-map print() only takes 1 argument, {} found", node.children.size()));
    if (type.is(TypeKind::kVoid)) error(value.span, "print() takes a value, and this is none");
    out_.events[index] = {Event::Kind::kValue, "", {type}};
    return void_type();
  }
  map_of(value);
  for (std::size_t i = 1; i < node.children.size(); ++i) {
    expression(*node.children[i]);
    std::int64_t number = 0;
    if (!literal(*node.children[i], number) || number < 0)
      error(node.children[i]->span, "print() takes literal numbers behind the map");
  }
  out_.events[index] = {Event::Kind::kMap, "", {}, out_.facts[value.id].index};
  return void_type();
}

Type Analyser::text(const Node& node) {
  expression(*node.children[0]);
  need_number(*node.children[0], "an address");
  site_of(node, Site::Kind::kAddress);
  const auto most = static_cast<std::uint32_t>(out_.config.max_strlen);
  if (node.children.size() == 1) {  // without a NUL where it is longer
    Type type = string_of(most);
    type.name = out_.config.str_trunc_trailer;
    return type;
  }
  expression(*node.children[1]);
  need_number(*node.children[1], "a length");
  std::int64_t bytes = 0;
  if (!literal(*node.children[1], bytes)) return string_of(most);
  if (bytes < 1 || bytes > most) {
    error(node.children[1]->span, fmt::format("str() takes 1 to {} bytes", most));
    return string_of(most);
  }
  return string_of(static_cast<std::uint32_t>(bytes));
}

// clear(@m), zero(@m), len(@m), has_key(@m, key), find(@m, key, $value), delete(@m), delete(@m, key), delete(@m[key])
Type Analyser::of_map(const Node& node, Function function) {
  const Node& target = *node.children[0];
  const bool is_question =
      function == Function::kHasKey || function == Function::kFindKey || function == Function::kDelete;
  Type type = function == Function::kLength ? integer(64, false) : is_question ? boolean() : void_type();
  if (function == Function::kLength && target.kind != NodeKind::kMap) {
    const Type& its = expression(target);
    if (its.is(TypeKind::kStack) || (its.is(TypeKind::kNone) && !is_last_)) return type;
  }
  if (target.kind != NodeKind::kMap) {
    error(target.span, fmt::format("{}() expects a map", node.text));
    return type;
  }
  if (!target.children.empty() && function != Function::kDelete) {
    error(target.span, fmt::format("{}() expects a map without a key", node.text));
    return type;
  }
  Map& map = map_of(target);
  map.is_cleared |= function == Function::kClear || function == Function::kZero || function == Function::kDelete;
  const bool needs_keys = function == Function::kLength || node.children.size() >= 2;
  if (needs_keys && !map.has_keys && !map.value.is(TypeKind::kNone)) {
    error(node.span, fmt::format("call to {}() expects a map with explicit keys (non-scalar map)", node.text));
    return type;
  }
  if (node.children.size() >= 2) {
    join_key(target, map, {node.children[1].get()});
    if (function == Function::kFindKey) find_key(node, map);
  } else if (function == Function::kDelete) {
    use_key(target, map, !target.children.empty());
  }
  return type;
}

// The variable of find().
void Analyser::find_key(const Node& node, const Map& map) {
  const Node& variable = *node.children[2];
  if (variable.kind != NodeKind::kVariable) {
    error(variable.span, "find() expects a variable for the value");
    return;
  }
  const std::uint32_t* const known = find_variable(variable);
  if (known == nullptr) {
    error(variable.span, fmt::format("Undefined or undeclared variable: ${}", variable.text),
          fmt::format("let ${}; before it", variable.text));
    return;
  }
  const std::uint32_t index = *known;
  out_.facts[variable.id].index = index;
  const Type value = type_of_value(node, map);
  if (value.is(TypeKind::kNone)) return;
  out_.facts[variable.id].type = value;
  assign_variable(index, variable.text, value, node);
}

}  // namespace ubp::program
