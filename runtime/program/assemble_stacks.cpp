// Stacks, names of addresses, and addresses of names. See assembler.h.
#include "runtime/helpers/mark_helpers.h"
#include "runtime/helpers/stack_helpers.h"
#include "runtime/program/assembler.h"

namespace ubp::program {

void Assembler::take_stack(std::uint32_t frames) {
  const int place = room(frames);
  mov(rdi, rbx);
  lea(rsi, at(place));
  mov(edx, frames);
  invoke(&program::take_stack);
}

void Assembler::stack_length(const Node& node) {
  value(*node.children[0]);
  mov(rdi, rbx);
  mov(rsi, rax);
  invoke(&program::stack_length);
}

void Assembler::symbol(const Node& node) {
  value(*node.children[0]);
  mov(rdi, rbx);
  mov(rsi, rax);
  invoke(&symbol_value);
}

void Assembler::symbol_address(const Node& node) {
  mov(rdi, rbx);
  invoke(&module_bias);
  mov(rcx, analysis_.symbol_addresses[analysis_.of(node).index]);
  add(rax, rcx);
}

}  // namespace ubp::program
