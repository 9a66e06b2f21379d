// Functions of texts and times. See assembler.h.
#include <cstring>

#include "runtime/program/assembler.h"
#include "runtime/program/assembler_temporaries.h"
#include "runtime/program/names.h"

namespace ubp::program {

using Xbyak::Label;

std::uint32_t Assembler::text(const Node& node, const Node& call) {
  const Type& type = analysis_.type(node);
  value(node);
  if (!type.is(TypeKind::kPointer)) return type.bytes;
  const auto words = static_cast<std::uint32_t>(words_of(most_text()));
  const int result = room(words);
  mov(rdi, rbx);
  mov(rsi, rax);
  lea(rdx, at(result));
  mov(ecx, most_text());
  mov(r8d, words);
  mov(r9d, analysis_.of(call).index);
  invoke(&program::read_text);
  lea(rax, at(result));
  return most_text();
}

void Assembler::call_of_text(const Node& node, Function function) {
  switch (function) {
    case Function::kCompare: return compare(node, &program::compare_texts);
    case Function::kCompareBytes: return compare(node, &program::compare_bytes);
    case Function::kTextLength: {
      const std::uint32_t bytes = text(*node.children[0], node);
      mov(rdi, rax);
      mov(esi, bytes);
      return invoke(&text_length);
    }
    case Function::kTextCapacity: {
      const Type& type = analysis_.type(*node.children[0]);
      return mov(eax, type.is(TypeKind::kPointer) ? most_text() : type.bytes);
    }
    case Function::kFindText: return find(node);
    case Function::kContainsText:
      find(node);
      test(rax, rax);
      setns(al);
      return movzx(eax, al);
    case Function::kJoinTexts: return join_texts(node);
    case Function::kErrorName:
    case Function::kSignalName: return choose(node, function == Function::kErrorName);
    case Function::kClock: {
      std::uint32_t clock = kBootTime;
      if (!node.children.empty()) find_clock(node.children[0]->text, clock);
      mov(edi, clock);
      return invoke(&clock_time);
    }
    case Function::kSwapBytes: return swap_bytes(node);
    case Function::kAddressText: return inet(node);
    case Function::kAddressBytes: {
      const std::vector<std::uint8_t> bytes = bytes_of_inet(node.children[0]->text);
      std::vector<std::uint64_t>& words = placed_.texts->emplace_back(analysis_.type(node).words());
      std::memcpy(words.data(), bytes.data(), bytes.size());
      return mov(rax, reinterpret_cast<std::uint64_t>(words.data()));
    }
    case Function::kHardwareAddress: return hardware_address(node);
    case Function::kStamp: return value(*node.children[1]);
    case Function::kTime: {
      const int now = room(1);
      mov(rdi, rbx);
      invoke(&boot_time);
      mov(at(now), rax);
      return write_event(analysis_.of(node).index, now, 1);
    }
    default: return check(node);
  }
}

// Two texts and a number.
void Assembler::compare(const Node& node, std::uint64_t (*function)(const char*, std::uint64_t, const char*,
                                                                    std::uint64_t, std::uint64_t)) {
  const int left = room(1), right = room(1);
  const std::uint32_t left_bytes = bytes_of(*node.children[0], node, left);
  const std::uint32_t right_bytes = bytes_of(*node.children[1], node, right);
  value(*node.children[2]);
  mov(r8, rax);
  mov(rdi, at(left));
  mov(esi, left_bytes);
  mov(rdx, at(right));
  mov(ecx, right_bytes);
  invoke(function);
}

std::uint32_t Assembler::bytes_of(const Node& node, const Node& call, int address) {
  const Type& type = analysis_.type(node);
  std::uint32_t bytes = text(node, call);
  if (type.is(TypeKind::kTuple)) bytes = type.words() * sizeof(std::uint64_t);
  mov(at(address), rax);
  return bytes;
}

void Assembler::find(const Node& node) {
  const int all = room(1);
  const std::uint32_t bytes = bytes_of(*node.children[0], node, all);
  const std::uint32_t wanted_bytes = text(*node.children[1], node);
  mov(rdx, rax);
  mov(ecx, wanted_bytes);
  mov(rdi, at(all));
  mov(esi, bytes);
  invoke(&find_text);
}

void Assembler::join_texts(const Node& node) {
  const Type& type = analysis_.type(node);
  const int result = room(type.words());
  const auto append = [&] {
    mov(rdx, rax);
    lea(rdi, at(result));
    mov(esi, type.bytes);
    invoke(&append_text);
  };
  lea(rdi, at(result));
  mov(esi, type.words());
  xor_(edx, edx);
  xor_(ecx, ecx);
  invoke(&copy_words);
  for (const auto& child : node.children) {
    const std::uint32_t bytes = text(*child, node);
    mov(ecx, bytes);
    append();
  }
  lea(rax, at(result));
}

void Assembler::choose(const Node& node, bool is_error) {
  const int result = room(kNameEntry / sizeof(std::uint64_t));
  const std::vector<std::uint64_t>& table = placed_.texts->emplace_back(is_error ? error_names() : signal_names());
  value(*node.children[0]);
  movsxd(rdx, eax);
  if (is_error) {  // -ENOENT is what system calls return
    mov(rax, rdx);
    neg(rax);
    test(rdx, rdx);
    cmovs(rdx, rax);
  }
  mov(rdi, reinterpret_cast<std::uint64_t>(table.data()));
  mov(esi, static_cast<std::uint32_t>(table.size() * sizeof(std::uint64_t) / kNameEntry));
  lea(rcx, at(result));
  invoke(&choose_text);
  lea(rax, at(result));
}

void Assembler::swap_bytes(const Node& node) {
  value(*node.children[0]);
  switch (analysis_.type(node).bits) {
    case 8: return movzx(eax, al);
    case 16: rol(ax, 8); return movzx(eax, ax);
    case 32: return bswap(eax);
    default: return bswap(rax);
  }
}

void Assembler::inet(const Node& node) {
  constexpr std::uint32_t kInternet = 2, kInternet6 = 10;  // AF_INET, AF_INET6
  constexpr int kWord = sizeof(std::uint64_t);
  const Node& address = *node.children.back();
  const Type& type = analysis_.type(address);
  const int result = room(kInetWords);
  if (node.children.size() == 2) {
    value(*node.children[0]);
  } else {
    mov(eax, type.bytes == kInternet6Bytes ? kInternet6 : kInternet);
  }
  mov(at(result), rax);
  value(address);
  if (type.is_wide()) {
    lea(rdi, at(result + kWord));
    mov(esi, kInetWords - 1);
    mov(rdx, rax);
    mov(ecx, type.words());
    invoke(&copy_words);
  } else {
    mov(eax, eax);
    mov(at(result + kWord), rax);
    xor_(eax, eax);
    mov(at(result + 2 * kWord), rax);
  }
  lea(rax, at(result));
}

void Assembler::hardware_address(const Node& node) {
  value(*node.children[0]);
  if (analysis_.type(*node.children[0]).is_wide()) return mov(rax, ptr[rax]);
  const int result = room(1);
  mov(rdi, rbx);
  mov(rsi, rax);
  lea(rdx, at(result));
  mov(ecx, kHardwareBytes);
  mov(r8d, analysis_.of(node).index);
  invoke(&read_bytes);
  mov(rax, at(result));
}

void Assembler::check(const Node& node) {
  Label fails, over;
  jump_unless(*node.children[0], fails);
  jmp(over, T_NEAR);
  L(fails);
  print_event(node, 1);
  mov(rdi, rbx);
  mov(esi, 1);  // the status
  invoke(&close_gate);
  jmp(end_, T_NEAR);
  L(over);
}

}  // namespace ubp::program
