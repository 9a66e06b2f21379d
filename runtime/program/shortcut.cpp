// See shortcut.h. What an expression comes to is what assemble_expressions.cpp makes of it.
#include "runtime/program/shortcut.h"

#include <bit>
#include <utility>

#include "runtime/analysis/builtins.h"

namespace ubp::program {
namespace {

using language::Node;
using language::NodeKind;
using language::Operator;
using runtime::Shortcut;
using Step = runtime::ShortcutStep;

// As the hardware numbers them. An odd one is the contrary of the one before.
enum Condition : std::uint8_t {
  kBelow = 2,
  kEqual = 4,
  kNotEqual = 5,
  kBelowOrEqual = 6,
  kLess = 12,
  kLessOrEqual = 14,
};

// Members return false where there is something that a shortcut has not.
class Maker {
 public:
  Maker(const Analysis& analysis, bool has_marks) : analysis_(analysis), has_marks_(has_marks) {}

  // Leads to the label if the node is true, or if it is false, and goes on otherwise.
  bool branch(const Node& node, bool when, std::uint16_t label) {
    const bool is_binary = node.kind == NodeKind::kBinary;
    if (is_binary && (node.operation == Operator::kAnd || node.operation == Operator::kOr)) {
      const bool decides = node.operation == Operator::kOr;  // what one side alone decides by being so
      if (when == decides) return branch(*node.children[0], when, label) && branch(*node.children[1], when, label);
      const std::uint16_t over = out_.labels++;
      const bool done = branch(*node.children[0], decides, over) && branch(*node.children[1], when, label);
      add({.kind = Step::kLabel, .label = over});
      return done;
    }
    if (node.kind == NodeKind::kUnary && node.operation == Operator::kNot)
      return is_number(*node.children[0]) && branch(*node.children[0], !when, label);
    if (is_binary && node.operation >= Operator::kLess && node.operation <= Operator::kNotEqual)
      return compare(node, when, label);
    return is_number(node) &&
           subject(node, {.kind = Step::kBranch, .condition = when ? kNotEqual : kEqual, .label = label});
  }

  // A block that adds to an aggregation, which has no keys.
  bool act(const Node& block, const std::vector<MapView>& maps) {
    if (block.children.size() != 1 || block.children[0]->kind != NodeKind::kAssign) return false;
    const Node& assignment = *block.children[0];
    const Node &target = *assignment.children[0], &call = *assignment.children[1];
    if (target.kind != NodeKind::kMap || call.kind != NodeKind::kCall) return false;
    const MapView& map = maps[analysis_.of(target).index];
    if (map.key_words != 0 || map.own_cells == nullptr || map.power != 0) return false;
    Shortcut::Act act = Shortcut::kAddOne;
    if (map.aggregate == Aggregate::kSum) act = Shortcut::kAddValue;
    if (map.aggregate == Aggregate::kHistogram) act = Shortcut::kAddToBucket;
    steps_ = &out_.value;
    if (act == Shortcut::kAddOne ? map.aggregate != Aggregate::kCount : !value(*call.children[0])) {
      out_.value.clear();
      return false;
    }
    out_.act = act;
    out_.calls_negative = map.is_signed;
    out_.cells = map.own_cells + 1;  // behind that of no task
    return true;
  }

  Shortcut take() { return std::move(out_); }

 private:
  struct Leaf {
    bool is_register = false;
    std::uint64_t operand = 0;
  };

  void add(Step step) { steps_->push_back(step); }
  bool is_number(const Node& node) const { return analysis_.type(node).is_number(); }
  bool is_pointer(const Node& node) const { return analysis_.type(node).is(TypeKind::kPointer); }

  std::optional<Leaf> leaf(const Node& node) const {
    const auto in_register = [](int number) -> std::optional<Leaf> {
      if (number < 0 || number >= kInstructionPointer) return std::nullopt;
      return Leaf{true, static_cast<std::uint64_t>(number)};
    };
    switch (node.kind) {
      case NodeKind::kNumber:
      case NodeKind::kBool: return Leaf{false, node.number};
      case NodeKind::kUnary:
        if (node.operation != Operator::kNegate || node.children[0]->kind != NodeKind::kNumber) return std::nullopt;
        return Leaf{false, -node.children[0]->number};
      case NodeKind::kName: {
        const Types::Constant constant = analysis_.types->constant(node.text);
        if (!constant.type.is(TypeKind::kNone)) return Leaf{false, constant.value};
        if (has_marks_ && argument_number(node.text)) return std::nullopt;
        const std::optional<Builtin> builtin = find_builtin(node.text);
        return builtin ? in_register(builtin->register_number) : std::nullopt;
      }
      case NodeKind::kCall: {
        const FunctionRow* const row = find_function(node.text);
        if (row == nullptr || row->function != Function::kReg) return std::nullopt;
        return in_register(register_of(node.children[0]->text));
      }
      default: return std::nullopt;
    }
  }

  // The branch, whose subject is the node.
  bool subject(const Node& node, Step step) {
    const std::optional<Leaf> register_only = leaf(node);
    if (register_only && register_only->is_register) {
      step.subject = static_cast<std::int8_t>(register_only->operand);
    } else if (!value(node)) {
      return false;
    }
    add(step);
    return true;
  }

  bool compare(const Node& node, bool when, std::uint16_t label) {
    const Node *left = node.children[0].get(), *right = node.children[1].get();
    if (!is_number(*left) || !is_number(*right)) return false;
    const bool is_unsigned = are_unsigned(analysis_, *left, *right);
    Operator operation = node.operation;
    if (!leaf(*right)) {
      std::swap(left, right);
      operation = mirrored(operation);
    }
    const std::optional<Leaf> operand = leaf(*right);
    if (!operand) return false;
    return subject(*left, {.kind = Step::kBranch,
                           .is_register = operand->is_register,
                           .condition = static_cast<std::uint8_t>(condition(operation, is_unsigned) ^ (when ? 0 : 1)),
                           .label = label,
                           .operand = operand->operand});
  }

  static Operator mirrored(Operator operation) {
    switch (operation) {
      case Operator::kLess: return Operator::kGreater;
      case Operator::kLessEqual: return Operator::kGreaterEqual;
      case Operator::kGreater: return Operator::kLess;
      case Operator::kGreaterEqual: return Operator::kLessEqual;
      default: return operation;
    }
  }
  static std::uint8_t condition(Operator operation, bool is_unsigned) {
    switch (operation) {
      case Operator::kLess: return is_unsigned ? kBelow : kLess;
      case Operator::kLessEqual: return is_unsigned ? kBelowOrEqual : kLessOrEqual;
      case Operator::kGreater: return (is_unsigned ? kBelowOrEqual : kLessOrEqual) ^ 1;
      case Operator::kGreaterEqual: return (is_unsigned ? kBelow : kLess) ^ 1;
      case Operator::kEqual: return kEqual;
      default: return kNotEqual;
    }
  }

  bool value(const Node& node) {
    if (!is_number(node)) return false;
    if (const std::optional<Leaf> simple = leaf(node)) {
      add({.kind = Step::kLoad, .is_register = simple->is_register, .operand = simple->operand});
      return true;
    }
    switch (node.kind) {
      case NodeKind::kUnary: return unary(node);
      case NodeKind::kCast: return cast(node);
      case NodeKind::kBinary: return binary(node);
      default: return false;
    }
  }

  bool unary(const Node& node) {
    if (node.operation != Operator::kComplement && node.operation != Operator::kNegate) return false;
    if (!value(*node.children[0])) return false;
    const bool negates = node.operation == Operator::kNegate;
    add({.kind = negates ? Step::kMultiply : Step::kXor, .operand = ~std::uint64_t{0}});
    return true;
  }

  bool cast(const Node& node) {
    const Type& to = analysis_.type(node);
    if (to.is(TypeKind::kBool) || !value(*node.children[0])) return false;
    if (to.bits < 64) add({.kind = Step::kExtend, .is_signed = to.is_signed, .operand = to.bits});
    return true;
  }

  bool binary(const Node& node) {
    const Node *left = node.children[0].get(), *right = node.children[1].get();
    if (is_pointer(*left) || is_pointer(*right)) return false;
    const bool is_commutative = node.operation != Operator::kSubtract && node.operation != Operator::kShiftLeft &&
                                node.operation != Operator::kShiftRight;
    if (is_commutative && !leaf(*right)) std::swap(left, right);
    const std::optional<Leaf> operand = leaf(*right);
    if (!operand) return false;
    Step step{.kind = Step::kAdd, .is_register = operand->is_register, .operand = operand->operand};
    switch (node.operation) {
      case Operator::kAdd: break;
      case Operator::kSubtract: step.kind = Step::kSubtract; break;
      case Operator::kMultiply: step.kind = Step::kMultiply; break;
      case Operator::kBitAnd: step.kind = Step::kAnd; break;
      case Operator::kBitOr: step.kind = Step::kOr; break;
      case Operator::kBitXor: step.kind = Step::kXor; break;
      case Operator::kShiftLeft: step.kind = Step::kShiftLeft; break;
      case Operator::kShiftRight: {
        const Type& type = analysis_.type(*left);
        step.kind = type.is_signed && type.is(TypeKind::kInteger) ? Step::kShiftSigned : Step::kShiftRight;
        break;
      }
      case Operator::kDivide:
      case Operator::kModulo:
        if (right != node.children[1].get() || !by_power_of_two(node, step)) return false;
        break;
      default: return false;
    }
    if (!value(*left)) return false;
    add(step);
    return true;
  }

  // An unsigned division that is a shift, or its rest.
  bool by_power_of_two(const Node& node, Step& step) const {
    const bool can = !step.is_register && std::has_single_bit(step.operand) &&
                     are_unsigned(analysis_, *node.children[0], *node.children[1]);
    if (!can) return false;
    const bool divides = node.operation == Operator::kDivide;
    step.kind = divides ? Step::kShiftRight : Step::kAnd;
    step.operand = divides ? static_cast<std::uint64_t>(std::countr_zero(step.operand)) : step.operand - 1;
    return true;
  }

  const Analysis& analysis_;
  const bool has_marks_;  // argN is not in a register that is known
  Shortcut out_;
  std::vector<Step>* steps_ = &out_.filter;
};

}  // namespace

std::optional<runtime::Shortcut> shortcut_of(const Analysis& analysis, const language::Probe& probe,
                                             const std::uint32_t* gate, const std::vector<MapView>& maps) {
  constexpr std::size_t kMostSteps = 64;  // a detour is to stay small
  if (probe.event != language::Probe::Event::kItems) return std::nullopt;
  Maker maker(analysis, probe.has_marks);
  if (probe.filter != nullptr && !maker.branch(*probe.filter, false, Shortcut::kNo)) return std::nullopt;
  const bool acts = probe.block != nullptr && maker.act(*probe.block, maps);
  Shortcut shortcut = maker.take();
  const std::size_t steps = shortcut.filter.size() + shortcut.value.size();
  if ((!acts && steps == 0) || steps > kMostSteps) return std::nullopt;
  shortcut.gate = gate;
  return shortcut;
}

}  // namespace ubp::program
