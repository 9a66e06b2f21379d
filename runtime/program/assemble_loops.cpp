// Loops, and blocks that are worth something. See assembler.h.
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

using Xbyak::Label;

// One turn of a loop: where a run has no more of them, it ends.
void Assembler::spend_turn(const Node& loop) {
  Label goes_on;
  sub(in_run(offsetof(Run, budget)), 1);
  jns(goes_on, T_NEAR);
  mov(rdi, rbx);
  mov(esi, analysis_.of(*loop.children.back()).index);
  invoke(&count_site);
  jmp(end_, T_NEAR);
  L(goes_on);
}

void Assembler::loop_body(const Node& loop, Loop& labels) {
  loops_.push_back(&labels);
  statement(*loop.children.back());
  loops_.pop_back();
}

void Assembler::while_loop(const Node& node) {
  Loop loop;
  L(loop.again);
  spend_turn(node);
  {
    const Temporaries temporaries(*this);
    jump_unless(*node.children[0], loop.over);
  }
  loop_body(node, loop);
  jmp(loop.again, T_NEAR);
  L(loop.over);
}

void Assembler::unroll(const Node& node) {
  Loop loop;
  Label body;
  const int left = room(1);
  mov(at(left), static_cast<std::uint32_t>(node.children[0]->number));
  L(body);
  loop_body(node, loop);
  L(loop.again);
  sub(at(left), 1);
  jnz(body, T_NEAR);
  L(loop.over);
}

// The bounds are computed once, and what the block does to the variable does not change its turns.
void Assembler::for_range(const Node& node) {
  Loop loop;
  const Node &from = *node.children[0], &to = *node.children[1];
  const int next = room(1), end = room(1);
  value(from);
  mov(at(next), rax);
  value(to);
  mov(at(end), rax);
  L(loop.again);
  mov(rax, at(next));
  cmp(rax, at(end));
  are_unsigned(analysis_, from, to) ? jae(loop.over, T_NEAR) : jge(loop.over, T_NEAR);
  mov(at(variables_.at(analysis_.of(node).index)), rax);
  add(rax, 1);
  mov(at(next), rax);
  spend_turn(node);
  loop_body(node, loop);
  jmp(loop.again, T_NEAR);
  L(loop.over);
}

void Assembler::for_map(const Node& node) {
  Loop loop;
  const Node& target = *node.children[0];
  const std::uint32_t index = analysis_.of(node).index, map = analysis_.of(target).index;
  const Type& type = analysis_.type(target);
  const int cursor = room(2), row = room(type.words());
  call_map(&map_begin, map, cursor);
  L(loop.again);
  spend_turn(node);
  lea(rcx, at(row));
  mov(r8d, analysis_.of(*node.children.back()).index);
  call_map(&map_next, map, cursor);
  test(rax, rax);
  jz(loop.over, T_NEAR);
  {
    const Temporaries temporaries(*this);
    lea(rax, at(row));
    store(analysis_.variables[index], type, variables_.at(index));
  }
  loop_body(node, loop);
  jmp(loop.again, T_NEAR);
  L(loop.over);
}

// { ...; value }
void Assembler::block_value(const Node& node) {
  const Node* const its = value_of_block(node);
  for (std::size_t i = 0; i + (its != nullptr ? 1 : 0) < node.children.size(); ++i) statement(*node.children[i]);
  if (its != nullptr) value(*its);
}

void Assembler::if_value(const Node& node) {
  const Type& type = analysis_.type(node);
  const int result = room(std::max(type.words(), 1U));
  Label otherwise, over;
  const auto branch = [&](const Node& its) {
    value(its);
    if (!type.is(TypeKind::kVoid)) store(type, analysis_.type(its), result);
  };
  jump_unless(*node.children[0], otherwise);
  branch(*node.children[1]);
  jmp(over, T_NEAR);
  L(otherwise);
  if (node.children.size() > 2) branch(*node.children[2]);
  L(over);
  type.is_wide() ? lea(rax, at(result)) : mov(rax, at(result));
}

}  // namespace ubp::program
