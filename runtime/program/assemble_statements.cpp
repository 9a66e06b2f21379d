// A block's frame and its statements. See assembler.h.
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;
using Xbyak::Label;

int Assembler::room(std::uint32_t words) {
  used_words_ += words;
  most_words_ = std::max(most_words_, used_words_);
  return -8 - static_cast<int>(used_words_ * sizeof(std::uint64_t));  // below rbx
}

void Assembler::place_variables(const Node& node) {
  const bool is_variable = node.kind == NodeKind::kVariable || node.kind == NodeKind::kDeclare ||
                           node.kind == NodeKind::kForRange || node.kind == NodeKind::kForMap;
  const std::uint32_t index = analysis_.of(node).index;
  if (is_variable && index != kNone && !variables_.contains(index))
    variables_[index] = room(analysis_.variables[index].words());
  for (const auto& child : node.children) place_variables(*child);
}

std::size_t Assembler::assemble(const language::Probe& probe, std::uint32_t number) {
  probe_ = &probe;
  probe_number_ = number;
  push(rbp);
  mov(rbp, rsp);
  push(rbx);
  sub(rsp, std::uint32_t{0x7fffffff});  // how much is known at the end
  const std::size_t frame_at = getSize() - sizeof(std::uint32_t);
  begin(probe);
  if (probe.filter != nullptr) {
    const Temporaries temporaries(*this);
    jump_unless(*probe.filter, filtered_);
  }
  if (probe.block != nullptr) statement(*probe.block);

  Label out, dropped;
  L(end_);
  cmp(in_run(offsetof(Run, dropped)), 0);
  jne(dropped);
  L(out);
  const bool looks = placed_.has_intervals && probe.event == language::Probe::Event::kItems;
  if (looks) mov(rdi, in_run(offsetof(Run, context)));
  mov(rbx, ptr[rbp - 8]);
  leave();
  if (looks) {  // when its own frame is gone: stacks are short
    mov(rsi, reinterpret_cast<std::uint64_t>(placed_.machine));
    mov(rax, reinterpret_cast<std::uint64_t>(&look_after_intervals));
    jmp(rax);
  } else {
    ret();
  }
  L(dropped);
  mov(rdi, in_run(offsetof(Run, context)));
  invoke(&count_dropped);
  jmp(out);
  L(filtered_);
  mov(rdi, in_run(offsetof(Run, context)));
  invoke(&count_filtered);
  jmp(out);

  const std::uint32_t frame = ((most_words_ | 1) * sizeof(std::uint64_t));  // with rbp and rbx a multiple of 16
  rewrite(frame_at, frame, sizeof frame);
  return frame;
}

// The Run: rdi is the hit.
void Assembler::begin(const language::Probe& probe) {
  lea(rbx, at(room(sizeof(Run) / sizeof(std::uint64_t))));
  if (probe.filter != nullptr) place_variables(*probe.filter);
  if (probe.block != nullptr) place_variables(*probe.block);
  mov(rax, reinterpret_cast<std::uint64_t>(placed_.machine));
  mov(in_run(offsetof(Run, machine)), rax);
  mov(in_run(offsetof(Run, context)), rdi);
  mov(in_run(offsetof(Run, dropped)), 0);
  mov(in_run(offsetof(Run, budget)), static_cast<std::uint32_t>(kMostTurns));
  Label has_no_task;
  mov(rcx, ptr[rdi + offsetof(ubp_context, task)]);
  test(rcx, rcx);
  jz(has_no_task);
  mov(ecx, ptr[rcx + offsetof(trap::TaskState, block)]);
  inc(ecx);
  L(has_no_task);
  mov(in_run(offsetof(Run, shard)), rcx);
  const bool is_gated =
      probe.event == language::Probe::Event::kItems || probe.event == language::Probe::Event::kInterval;
  if (!is_gated) return;
  mov(rax, ptr[rax + offsetof(Machine, control)]);
  cmp(dword[rax + offsetof(Control, gate)], 0);
  jne(filtered_, T_NEAR);
}

void Assembler::statement(const Node& node) {
  const Temporaries temporaries(*this);
  switch (node.kind) {
    case NodeKind::kBlock: return block(node);
    case NodeKind::kIf: return if_statement(node);
    case NodeKind::kWhile: return while_loop(node);
    case NodeKind::kForRange: return for_range(node);
    case NodeKind::kForMap: return for_map(node);
    case NodeKind::kUnroll: return unroll(node);
    case NodeKind::kAssign: return assign(node);
    case NodeKind::kBreak: return jmp(loops_.back()->over, T_NEAR);
    case NodeKind::kContinue: return jmp(loops_.back()->again, T_NEAR);
    case NodeKind::kReturn:
      if (!node.children.empty()) value(*node.children[0]);  // for what it does
      return jmp(end_, T_NEAR);
    case NodeKind::kDeclare: {
      const std::uint32_t index = analysis_.of(node).index;
      const Type& type = analysis_.variables[index];
      if (!node.children.empty() && node.children.back()->kind != NodeKind::kType) {
        return value_into(type, *node.children.back(), variables_.at(index));
      }
      xor_(eax, eax);
      for (std::uint32_t i = 0; i < type.words(); ++i)
        mov(at(variables_.at(index) + static_cast<int>(i * sizeof(std::uint64_t))), rax);
      return;
    }
    default: return value(*node.children[0]);
  }
}

void Assembler::block(const Node& node) {
  for (const auto& child : node.children) statement(*child);
}

void Assembler::if_statement(const Node& node) {
  Label otherwise, over;
  {
    const Temporaries temporaries(*this);
    jump_unless(*node.children[0], otherwise);
  }
  statement(*node.children[1]);
  if (node.children.size() > 2) jmp(over, T_NEAR);
  L(otherwise);
  if (node.children.size() > 2) statement(*node.children[2]);
  L(over);
}

void Assembler::assign(const Node& node) {
  const Node &target = *node.children[0], &from = *node.children[1];
  if (target.kind == NodeKind::kMap) return assign_map(node);
  const std::uint32_t index = analysis_.of(target).index;
  const Type& type = analysis_.variables[index];
  if (node.operation == Operator::kNone) {
    return value_into(type, from, variables_.at(index));
  }
  both(target, from);
  combine(node);
  mov(at(variables_.at(index)), rax);
}

void Assembler::assign_map(const Node& node) {
  const Node &target = *node.children[0], &from = *node.children[1];
  const std::uint32_t index = analysis_.of(target).index;
  const Map& map = map_of(target);
  if (map.value.is(TypeKind::kAggregate)) return aggregate(target, from);
  const int to = room(map.value.words());
  const int its_key = key_of(target);
  const bool adds = node.operation == Operator::kAdd || node.operation == Operator::kSubtract;
  if (node.operation == Operator::kNone || adds) {
    value(from);
    if (adds) {  // in one step
      if (map.value.is(TypeKind::kPointer)) scale(rax, map.value);
      if (node.operation == Operator::kSubtract) neg(rax);
      mov(rcx, rax);
      return call_map(&map_add, index, its_key);
    }
    store(map.value, analysis_.type(from), to);
  } else {
    value(from);
    mov(at(to), rax);
    call_map(&map_get, index, its_key);
    mov(rcx, at(to));
    combine(node);
    mov(at(to), rax);
  }
  if (map.value.is_wide()) {
    lea(rcx, at(to));
    return call_map(&map_set_wide, index, its_key);
  }
  mov(rcx, at(to));
  call_map(&map_set, index, its_key);
}

}  // namespace ubp::program
