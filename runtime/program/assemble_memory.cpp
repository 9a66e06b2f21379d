// Pointers, arrays and structs. See assembler.h.
#include "runtime/helpers/mark_helpers.h"
#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"

namespace ubp::program {

using language::NodeKind;
using language::Operator;
using Xbyak::Label;

std::uint32_t Assembler::element_offset(const Type& tuple, std::uint64_t index) {
  std::uint32_t words = 0;
  for (std::uint64_t i = 0; i < index; ++i) words += tuple.elements[i].words();
  return words * std::uint32_t{sizeof(std::uint64_t)};
}

std::uint32_t Assembler::step_of(const Type& type) const {
  return type.is(TypeKind::kPointer) ? std::max(analysis_.types->target(type).size(), 1U) : 1;
}

void Assembler::scale(const Xbyak::Reg64& number, const Type& pointer) {
  const std::uint32_t step = step_of(pointer);
  if (step != 1) imul(number, number, static_cast<int>(step));
}

bool Assembler::locate(const Node& node) {
  if (node.kind == NodeKind::kUnary && node.operation == Operator::kDereference) {
    value(*node.children[0]);
    return true;
  }
  if (is_argument(node) && is_read_in_place(analysis_.type(node))) {
    mov(rdi, rbx);
    mov(esi, analysis_.of(node).index);
    mov(edx, analysis_.of(node).site);
    invoke(&argument_address);
    return true;
  }
  if (node.kind == NodeKind::kMember && !is_argument(node)) return locate_member(node);
  if (node.kind == NodeKind::kIndex) return locate_element(node);
  value(node);
  return false;
}

bool Assembler::locate_member(const Node& node) {
  const Node& whole = *node.children[0];
  const Type& type = analysis_.type(whole);
  const bool is_pointer = type.is(TypeKind::kPointer);
  const bool is_remote = is_pointer || locate(whole);
  if (is_pointer) value(whole);
  std::uint32_t offset = 0;
  if (type.is(TypeKind::kTuple)) {
    offset = element_offset(type, node.text.empty() ? node.number : element_named(type, node.text));
  } else {
    const Type target = is_pointer ? analysis_.types->target(type) : type;
    offset = find_member(*target.layout, node.text).offset;
  }
  if (offset != 0) add(rax, offset);
  return is_remote;
}

// base[index]
bool Assembler::locate_element(const Node& node) {
  const Node &base = *node.children[0], &which = *node.children[1];
  const Type& type = analysis_.type(base);
  if (type.is(TypeKind::kTuple)) {
    const bool is_remote = locate(base);
    add(rax, element_offset(type, analysis_.of(node).index));
    return is_remote;
  }
  const std::uint32_t size = std::max(analysis_.type(node).size(), 1U);
  const int index = room(1);
  value(which);
  const bool is_pointer = type.is(TypeKind::kPointer);
  mov(at(index), rax);
  bool is_remote = true;
  if (is_pointer) {
    value(base);
  } else {
    is_remote = locate(base);
    if (type.bytes != 0) {  // what lies behind is read where it is, and nothing behind a frame's
      Label is_inside;
      cmp(at(index), type.bytes / size);
      jb(is_inside, T_NEAR);
      const int saved = room(1);
      mov(at(saved), rax);
      mov(rdi, rbx);
      mov(esi, analysis_.of(node).index);
      invoke(&count_site);
      mov(rax, at(saved));
      if (!is_remote) mov(at(index), 0);
      L(is_inside);
    }
  }
  mov(rcx, at(index));
  if (size != 1) imul(rcx, rcx, static_cast<int>(size));
  add(rax, rcx);
  return is_remote;
}

void Assembler::load_number(const Type& type, bool is_remote, std::uint32_t site) {
  const std::uint32_t size = type.size();
  if (is_remote) {
    mov(rdi, rbx);
    mov(rsi, rax);
    mov(edx, size);
    mov(ecx, site);
    invoke(&read_number);
  } else {
    switch (size) {
      case 1: movzx(eax, byte[rax]); break;
      case 2: movzx(eax, word[rax]); break;
      case 4: mov(eax, dword[rax]); break;
      default: mov(rax, ptr[rax]); break;
    }
  }
  if (type.is(TypeKind::kInteger)) extend(type);
}

void Assembler::load(const Type& type, bool is_remote, std::uint32_t site) {
  if (!type.is_wide()) return load_number(type, is_remote, site);
  if (!is_remote) return;
  const int whole = room(type.words());
  mov(rdi, rbx);
  mov(rsi, rax);
  lea(rdx, at(whole));
  mov(ecx, type.frame_bytes());
  mov(r8d, site);
  invoke(&read_bytes);
  lea(rax, at(whole));
}

// A kMember or a kIndex.
void Assembler::member(const Node& node) {
  if (is_argument(node)) return argument(node);
  const Node& whole = *node.children[0];
  const Type &type = analysis_.type(node), &from = analysis_.type(whole);
  const bool is_remote = locate(node);
  if (from.is(TypeKind::kTuple)) {  // whole words
    if (!type.is_wide()) mov(rax, ptr[rax]);
    return;
  }
  const std::uint32_t site = analysis_.of(node).index;
  const bool is_struct = node.kind == NodeKind::kMember;
  const Type target = from.is(TypeKind::kPointer) ? analysis_.types->target(from) : from;
  const Member its = is_struct ? find_member(*target.layout, node.text) : Member{};
  if (its.bits == 0) return load(type, is_remote, site);
  load_number(integer(static_cast<std::uint8_t>(type.size() * 8), false), is_remote, site);
  const unsigned above = 64U - its.shift - its.bits;
  if (above != 0) shl(rax, static_cast<int>(above));
  const auto below = static_cast<int>(64U - its.bits);
  if (below == 0) return;
  shr(rax, below);
}

void Assembler::cast_to_array(const Node& node) {
  const Type &to = analysis_.type(node), &from = analysis_.type(*node.children[0]);
  value(*node.children[0]);
  if (from.is_wide()) return;  // its bytes are the array's
  const int whole = room(to.words());
  mov(at(whole), rax);
  if (to.bytes < sizeof(std::uint64_t)) {  // zeros behind
    const int unused = static_cast<int>(64 - to.bytes * 8);
    shl(rax, unused);
    shr(rax, unused);
    mov(at(whole), rax);
  }
  lea(rax, at(whole));
}

void Assembler::read_buffer(const Node& node) {
  const Type &type = analysis_.type(node), &from = analysis_.type(*node.children[0]);
  const int result = room(type.words()), address = room(1);
  value(*node.children[0]);
  mov(at(address), rax);
  const std::uint32_t most = from.is_wide() ? std::min(from.bytes, type.bytes) : type.bytes;
  mov(ecx, most);
  if (node.children.size() == 2) {
    value(*node.children[1]);
    mov(ecx, most);
    cmp(rax, rcx);
    cmovb(rcx, rax);
  }
  mov(rdi, rbx);
  mov(rsi, at(address));
  lea(rdx, at(result));
  mov(r8d, type.words() - 1);
  mov(r9d, analysis_.of(node).index);
  invoke(&program::read_buffer);
  lea(rax, at(result));
}

}  // namespace ubp::program
