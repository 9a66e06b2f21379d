// See interpreter.h.
#include "interpreter.h"

#include <stdexcept>

namespace ubp::program {
namespace {

using language::Node;
using language::NodeKind;
using language::Operator;

std::int64_t as_signed(const Number& number) { return static_cast<std::int64_t>(number.bits); }

Number truth(bool value) { return {value ? 1u : 0u, false, false, true}; }

std::uint64_t divide(const Number& left, const Number& right, bool is_unsigned, bool wants_rest) {
  if (right.bits == 0) return 1;
  if (is_unsigned) return wants_rest ? left.bits % right.bits : left.bits / right.bits;
  if (as_signed(right) == -1) return wants_rest ? 0 : 0 - left.bits;
  return static_cast<std::uint64_t>(wants_rest ? as_signed(left) % as_signed(right)
                                               : as_signed(left) / as_signed(right));
}

Number binary(const Node& node, const Number& left, const Number& right) {
  // Unsigned if both are, or if one is and the other is a literal.
  const auto fits = [](const Number& number) { return !number.is_signed || number.is_literal; };
  const bool is_unsigned = (!left.is_signed || !right.is_signed) && fits(left) && fits(right);
  const auto number = [&](std::uint64_t bits) { return Number{bits, !is_unsigned}; };
  const int order = is_unsigned ? (left.bits > right.bits) - (left.bits < right.bits)
                                : (as_signed(left) > as_signed(right)) - (as_signed(left) < as_signed(right));
  const unsigned shift = right.bits % 64;
  switch (node.operation) {
    case Operator::kAdd: return number(left.bits + right.bits);
    case Operator::kSubtract: return {left.bits - right.bits, true};
    case Operator::kMultiply: return number(left.bits * right.bits);
    case Operator::kDivide: return number(divide(left, right, is_unsigned, false));
    case Operator::kModulo: return number(divide(left, right, is_unsigned, true));
    case Operator::kBitAnd: return number(left.bits & right.bits);
    case Operator::kBitOr: return number(left.bits | right.bits);
    case Operator::kBitXor: return number(left.bits ^ right.bits);
    case Operator::kShiftLeft: return {left.bits << shift, left.is_signed};
    case Operator::kShiftRight:
      return {left.is_signed ? static_cast<std::uint64_t>(as_signed(left) >> shift) : left.bits >> shift,
              left.is_signed};
    case Operator::kLess: return truth(order < 0);
    case Operator::kLessEqual: return truth(order <= 0);
    case Operator::kGreater: return truth(order > 0);
    case Operator::kGreaterEqual: return truth(order >= 0);
    case Operator::kEqual: return truth(left.bits == right.bits);
    case Operator::kNotEqual: return truth(left.bits != right.bits);
    default: throw std::logic_error("an unknown operation");
  }
}

Number cast(const std::string& type, const Number& from) {
  if (type == "bool") return truth(from.bits != 0);
  const bool is_signed = type[0] != 'u';
  const int bits = std::stoi(type.substr(type.find_first_of("0123456789")));
  const std::uint64_t high = from.bits << (64 - bits);
  return {is_signed ? static_cast<std::uint64_t>(static_cast<std::int64_t>(high) >> (64 - bits)) : high >> (64 - bits),
          is_signed};
}

}  // namespace

Number interpret(const Node& node, const std::map<std::string, Number>& variables) {
  const auto child = [&](std::size_t index) { return interpret(*node.children[index], variables); };
  switch (node.kind) {
    case NodeKind::kNumber: return {node.number, node.number >> 63 == 0, true};
    case NodeKind::kBool: return truth(node.number != 0);
    case NodeKind::kVariable: return variables.at(node.text);
    case NodeKind::kCast: return cast(node.children[1]->text, child(0));
    case NodeKind::kUnary: {
      const Number operand = child(0);
      if (node.operation == Operator::kNot) return truth(operand.bits == 0);
      if (node.operation == Operator::kComplement) return {~operand.bits, false};
      return {0 - operand.bits, true};
    }
    case NodeKind::kBinary:
      if (node.operation == Operator::kAnd) return truth(child(0).bits != 0 && child(1).bits != 0);
      if (node.operation == Operator::kOr) return truth(child(0).bits != 0 || child(1).bits != 0);
      return binary(node, child(0), child(1));
    case NodeKind::kConditional: {
      const Number then = child(1), otherwise = child(2);
      const bool holds = child(0).bits != 0;
      Number value = holds ? then : otherwise;
      value.is_signed = then.is_signed || otherwise.is_signed;
      value.is_literal = false;
      return value;
    }
    default: throw std::logic_error("an unknown expression");
  }
}

}  // namespace ubp::program
