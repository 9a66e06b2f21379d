// Values and operators. See assembler.h.
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;
using Xbyak::Label;

void Assembler::store(const Type& to, const Type& from, int displacement) {
  if (!to.is_wide()) return mov(at(displacement), rax);
  if (to.is(TypeKind::kTuple) && to != from) {
    const int source = room(1);
    mov(at(source), rax);
    for (std::size_t i = 0; i < to.elements.size(); ++i) {
      const std::size_t its = to.fields.empty() ? i : element_named(from, to.fields[i]);
      const Type& element = from.elements[its];
      const std::uint32_t offset = element_offset(from, its);
      mov(rax, at(source));
      if (element.is_wide()) {
        add(rax, offset);
      } else {
        mov(rax, ptr[rax + offset]);
      }
      store(to.elements[i], element, displacement);
      displacement += static_cast<int>(to.elements[i].words() * sizeof(std::uint64_t));
    }
    return;
  }
  lea(rdi, at(displacement));
  mov(esi, to.words());
  mov(rdx, rax);
  mov(ecx, from.words());
  invoke(&copy_words);
}

void Assembler::value_into(const Type& to, const Node& node, int displacement) {
  const Type& from = analysis_.type(node);
  const FunctionRow* const row = node.kind == NodeKind::kCall ? find_function(node.text) : nullptr;
  if (row != nullptr && row->function == Function::kStr && to == from) return read_text(node, displacement);
  value(node);
  store(to, from, displacement);
}

// What takes no other register and no call.
bool Assembler::load_simple(const Xbyak::Reg64& to, const Node& node) {
  switch (node.kind) {
    case NodeKind::kNumber:
    case NodeKind::kBool: mov(to, node.number); return true;
    case NodeKind::kName: {
      const Types::Constant constant = analysis_.types->constant(node.text);
      if (!constant.type.is(TypeKind::kNone)) mov(to, constant.value);
      return !constant.type.is(TypeKind::kNone);
    }
    case NodeKind::kVariable: {
      const std::uint32_t index = analysis_.of(node).index;
      if (analysis_.variables[index].is_wide()) {
        lea(to, at(variables_.at(index)));
      } else {
        mov(to, at(variables_.at(index)));
      }
      return true;
    }
    default: return false;
  }
}

void Assembler::value(const Node& node) {
  if (load_simple(rax, node)) return;
  switch (node.kind) {
    case NodeKind::kString: return text_constant(node.text, analysis_.type(node).words());
    case NodeKind::kName:
      if (const std::string* const text = analysis_.types->text(node.text))
        return text_constant(*text, analysis_.type(node).words());
      return is_arguments(node) ? all_arguments(node) : builtin(node.text);
    case NodeKind::kMap: return map_value(node);
    case NodeKind::kCall: return call(node);
    case NodeKind::kUnary: return unary(node);
    case NodeKind::kIncrement: return increment(node);
    case NodeKind::kBinary: return binary(node);
    case NodeKind::kConditional: return conditional(node);
    case NodeKind::kTuple: return tuple(node);
    case NodeKind::kMember:
    case NodeKind::kIndex: return member(node);
    case NodeKind::kSizeOf:
    case NodeKind::kOffsetOf: return mov(eax, analysis_.of(node).index);
    case NodeKind::kBlock: return block_value(node);
    case NodeKind::kIf: return if_value(node);
    default: return cast(node);
  }
}

void Assembler::text_constant(std::string_view text, std::uint32_t words) {
  std::vector<std::uint64_t>& constant = placed_.texts->emplace_back(std::max(words, 1U));
  text.copy(reinterpret_cast<char*>(constant.data()), constant.size() * sizeof(std::uint64_t) - 1);
  mov(rax, reinterpret_cast<std::uint64_t>(constant.data()));
}

void Assembler::both(const Node& left, const Node& right) {
  if (load_simple(rcx, right)) {  // for what follows: its value stays the same
    value(left);
    load_simple(rcx, right);
    return;
  }
  const int saved = room(1);
  value(left);
  mov(at(saved), rax);
  value(right);
  mov(rcx, rax);
  mov(rax, at(saved));
}

void Assembler::binary(const Node& node) {
  if (node.operation == Operator::kAnd || node.operation == Operator::kOr) return logical(node);
  if (analysis_.type(*node.children[0]).is_wide()) return compare_texts(node);
  both(*node.children[0], *node.children[1]);
  combine(node);
}

void Assembler::combine(const Node& node) {
  const Node &left = *node.children[0], &right = *node.children[1];
  const bool is_unsigned = are_unsigned(analysis_, left, right);
  const auto compare = [&](auto set_unsigned, auto set_signed) {
    cmp(rax, rcx);
    is_unsigned ? (this->*set_unsigned)(al) : (this->*set_signed)(al);
    movzx(eax, al);
  };
  const auto divide_by = [&](auto* function) {
    mov(rdi, rbx);
    mov(rsi, rax);
    mov(rdx, rcx);
    mov(ecx, analysis_.of(node).index);
    invoke(function);
  };
  using Self = Assembler;
  const bool adds = node.operation == Operator::kAdd || node.operation == Operator::kSubtract;
  const bool is_left = analysis_.type(left).is(TypeKind::kPointer),
             is_right = analysis_.type(right).is(TypeKind::kPointer);
  if (adds && is_left && !is_right) scale(rcx, analysis_.type(left));
  if (adds && is_right && !is_left) scale(rax, analysis_.type(right));
  switch (node.operation) {
    case Operator::kAdd: add(rax, rcx); break;
    case Operator::kSubtract: sub(rax, rcx); break;
    case Operator::kMultiply: imul(rax, rcx); break;
    case Operator::kBitAnd: and_(rax, rcx); break;
    case Operator::kBitOr: or_(rax, rcx); break;
    case Operator::kBitXor: xor_(rax, rcx); break;
    case Operator::kShiftLeft: shl(rax, cl); break;
    case Operator::kShiftRight:
      analysis_.type(left).is_signed&& analysis_.type(left).is(TypeKind::kInteger) ? sar(rax, cl) : shr(rax, cl);
      break;
    case Operator::kDivide: divide_by(is_unsigned ? &program::divide : &divide_signed); break;
    case Operator::kModulo: divide_by(is_unsigned ? &modulo : &modulo_signed); break;
    case Operator::kLess: compare(&Self::setb, &Self::setl); break;
    case Operator::kLessEqual: compare(&Self::setbe, &Self::setle); break;
    case Operator::kGreater: compare(&Self::seta, &Self::setg); break;
    case Operator::kGreaterEqual: compare(&Self::setae, &Self::setge); break;
    case Operator::kEqual: compare(&Self::sete, &Self::sete); break;
    default: compare(&Self::setne, &Self::setne); break;
  }
}

void Assembler::compare_texts(const Node& node) {
  const Node &left = *node.children[0], &right = *node.children[1];
  both(left, right);
  mov(rdi, rax);
  mov(rdx, rcx);
  const auto bytes = [&](const Node& its) {
    const Type& type = analysis_.type(its);
    return type.is(TypeKind::kString) ? type.bytes : static_cast<std::uint32_t>(type.words() * sizeof(std::uint64_t));
  };
  mov(esi, bytes(left));
  mov(ecx, bytes(right));
  analysis_.type(left).is(TypeKind::kString) ? invoke(&is_same_text) : invoke(&is_same);
  if (node.operation == Operator::kNotEqual) xor_(eax, 1);
}

void Assembler::logical(const Node& node) {
  Label is_false, over;
  jump_unless(node, is_false);
  mov(eax, 1);
  jmp(over);
  L(is_false);
  xor_(eax, eax);
  L(over);
}

void Assembler::jump_unless(const Node& condition, const Label& target) {
  const bool is_binary = condition.kind == NodeKind::kBinary;
  if (is_binary && condition.operation == Operator::kAnd) {
    jump_unless(*condition.children[0], target);
    jump_unless(*condition.children[1], target);
    return;
  }
  if (is_binary && condition.operation == Operator::kOr) {
    Label second, holds;
    jump_unless(*condition.children[0], second);
    jmp(holds, T_NEAR);
    L(second);
    jump_unless(*condition.children[1], target);
    L(holds);
    return;
  }
  value(condition);
  test(rax, rax);
  jz(target, T_NEAR);
}

void Assembler::unary(const Node& node) {
  if (node.operation == Operator::kDereference) {
    value(*node.children[0]);
    return load(analysis_.type(node), true, analysis_.of(node).index);
  }
  if (node.operation == Operator::kAddressOf) return lea(rax, at(variables_.at(analysis_.of(*node.children[0]).index)));
  value(*node.children[0]);
  switch (node.operation) {
    case Operator::kNot:
      test(rax, rax);
      sete(al);
      movzx(eax, al);
      break;
    case Operator::kComplement: not_(rax); break;
    default: neg(rax); break;
  }
}

void Assembler::increment(const Node& node) {
  const Node& operand = *node.children[0];
  const bool adds = node.operation == Operator::kPreIncrement || node.operation == Operator::kPostIncrement;
  const bool is_after = node.operation == Operator::kPostIncrement || node.operation == Operator::kPostDecrement;
  const auto step = static_cast<int>(step_of(analysis_.type(operand)));
  const int amount = adds ? step : -step;
  if (operand.kind == NodeKind::kMap) {
    const int its_key = key_of(operand);
    mov(rcx, static_cast<std::uint64_t>(std::int64_t{amount}));
    call_map(&map_add, analysis_.of(operand).index, its_key);
  } else {
    const int place = variables_.at(analysis_.of(operand).index);
    mov(rax, at(place));
    add(rax, amount);
    mov(at(place), rax);
  }
  if (is_after) sub(rax, amount);
}

void Assembler::conditional(const Node& node) {
  const Type& type = analysis_.type(node);
  const bool is_short = node.children.size() == 2;  // c ?: b
  const int result = room(std::max(type.words(), 1U));
  Label otherwise, over;
  const auto branch = [&](const Node& its) {
    value(its);
    if (!type.is(TypeKind::kVoid)) store(type, analysis_.type(its), result);
  };
  if (is_short) {
    value(*node.children[0]);
    mov(at(result), rax);
    test(rax, rax);
    jz(otherwise, T_NEAR);
  } else {
    jump_unless(*node.children[0], otherwise);
    branch(*node.children[1]);
  }
  jmp(over, T_NEAR);
  L(otherwise);
  branch(*node.children.back());
  L(over);
  if (type.is_wide()) {
    lea(rax, at(result));
  } else {
    mov(rax, at(result));
  }
}

void Assembler::tuple(const Node& node) {
  const Type& type = analysis_.type(node);
  const int result = room(type.words());
  int place = result;
  for (std::size_t i = 0; i < node.children.size(); ++i) {
    value_into(type.elements[i], *node.children[i], place);
    place += static_cast<int>(type.elements[i].words() * sizeof(std::uint64_t));
  }
  lea(rax, at(result));
}

void Assembler::cast(const Node& node) {
  const Type& to = analysis_.type(node);
  const Type& from = analysis_.type(*node.children[0]);
  if (to.is(TypeKind::kArray)) return cast_to_array(node);
  value(*node.children[0]);
  if (from.is(TypeKind::kString)) movzx(eax, byte[rax]);  // is it empty?
  if (from.is(TypeKind::kArray)) mov(rax, ptr[rax]);      // whole words
  if (to.is(TypeKind::kBool)) {
    test(rax, rax);
    setne(al);
    movzx(eax, al);
    return;
  }
  extend(to);
}

void Assembler::extend(const Type& to) {
  switch (to.bits) {
    case 8: to.is_signed ? movsx(rax, al) : movzx(eax, al); break;
    case 16: to.is_signed ? movsx(rax, ax) : movzx(eax, ax); break;
    case 32: to.is_signed ? movsxd(rax, eax) : mov(eax, eax); break;
    default: break;
  }
}

}  // namespace ubp::program
