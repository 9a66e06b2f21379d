// classify() on what cannot be displaced: every refusal, with the boundaries and targets that stay valid.
#include <set>

#include "tests/decoder/expectation.h"

namespace ubp::decoder {
namespace {

TEST_CASE("classify: refusals") {
  Bytes fourteen_and_0f(14, 0x2e);
  fourteen_and_0f.push_back(0x0f);
  Bytes thirteen_and_call(13, 0x2e);
  thirteen_and_call.push_back(0xe8);
  thirteen_and_call.push_back(0x00);
  run({
      {"no instruction", {0x06}, refused(0, Refusal::kUndecodable)},
      {"pop ss, 32-bit only", {0x17}, refused(0, Refusal::kUndecodable)},
      {"lock nop", {0xf0, 0x90}, refused(0, Refusal::kUndecodable)},
      {"15 prefixes", Bytes(15, 0x66), refused(0, Refusal::kUndecodable)},
      {"14 prefixes and half an opcode", fourteen_and_0f, refused(0, Refusal::kUndecodable)},
      {"13 prefixes and a call", thirteen_and_call, refused(0, Refusal::kUndecodable)},
      {"kor, Knights Corner", {0xc5, 0xf8, 0x45, 0xc1}, refused(0, Refusal::kUndecodable)},
      {"MVEX", {0x62, 0xf1, 0x78, 0x08, 0x58, 0xc0}, refused(0, Refusal::kUndecodable)},
      {"jkzd, Knights Corner", {0xc5, 0xf8, 0x84, 1, 0, 0, 0}, refused(0, Refusal::kUndecodable)},
      {"int3", {0xcc}, refused_end(1, Refusal::kBreakpoint)},
      {"int 3", {0xcd, 0x03}, refused_end(2, Refusal::kBreakpoint)},
      {"int1", {0xf1}, refused_end(1, Refusal::kBreakpoint)},
      {"ud2", {0x0f, 0x0b}, refused_end(2, Refusal::kUndefined)},
      {"ud1 eax,[eax+2], from sanitizers", {0x67, 0x0f, 0xb9, 0x40, 0x02}, refused_end(5, Refusal::kUndefined)},
      {"ud0: vendors disagree on its length", {0x0f, 0xff, 0xc0}, refused_end(0, Refusal::kUndefined)},
      {"hlt", {0xf4}, refused_end(1, Refusal::kPrivileged)},
      {"sysretq", {0x48, 0x0f, 0x07}, refused_end(3, Refusal::kPrivileged)},
      {"in al,dx", {0xec}, refused(1, Refusal::kPrivileged)},
      {"in al,0x60", {0xe4, 0x60}, refused(2, Refusal::kPrivileged)},
      {"out dx,eax", {0xef}, refused(1, Refusal::kPrivileged)},
      {"rep insb", {0xf3, 0x6c}, refused(2, Refusal::kPrivileged)},
      {"rep outsd", {0xf3, 0x6f}, refused(2, Refusal::kPrivileged)},
      {"insw", {0x66, 0x6d}, refused(2, Refusal::kPrivileged)},
      {"outsw", {0x66, 0x6f}, refused(2, Refusal::kPrivileged)},
      {"hreset", {0xf3, 0x0f, 0x3a, 0xf0, 0xc0, 0x00}, refused(6, Refusal::kPrivileged)},
      {"cli", {0xfa}, refused(1, Refusal::kPrivileged)},
      {"sti", {0xfb}, refused(1, Refusal::kPrivileged)},
      {"clts", {0x0f, 0x06}, refused(2, Refusal::kPrivileged)},
      {"lgdt [rip+1]", {0x0f, 0x01, 0x15, 1, 0, 0, 0}, refused(7, Refusal::kPrivileged)},
      {"lidt [rax]", {0x0f, 0x01, 0x18}, refused(3, Refusal::kPrivileged)},
      {"ltr ax", {0x0f, 0x00, 0xd8}, refused(3, Refusal::kPrivileged)},
      {"mov rax,cr0", {0x0f, 0x20, 0xc0}, refused(3, Refusal::kPrivileged)},
      {"mov cr3,rax", {0x0f, 0x22, 0xd8}, refused(3, Refusal::kPrivileged)},
      {"mov dr7,rax", {0x0f, 0x23, 0xf8}, refused(3, Refusal::kPrivileged)},
      {"rdmsr", {0x0f, 0x32}, refused(2, Refusal::kPrivileged)},
      {"wrmsr", {0x0f, 0x30}, refused(2, Refusal::kPrivileged)},
      {"invlpg [rax]", {0x0f, 0x01, 0x38}, refused(3, Refusal::kPrivileged)},
      {"wbinvd", {0x0f, 0x09}, refused(2, Refusal::kPrivileged)},
      {"swapgs", {0x0f, 0x01, 0xf8}, refused(3, Refusal::kPrivileged)},
      {"xsetbv", {0x0f, 0x01, 0xd1}, refused(3, Refusal::kPrivileged)},
      {"xsaves [rax]", {0x0f, 0xc7, 0x28}, refused(3, Refusal::kPrivileged)},
      {"clac", {0x0f, 0x01, 0xca}, refused(3, Refusal::kPrivileged)},
      {"stac", {0x0f, 0x01, 0xcb}, refused(3, Refusal::kPrivileged)},
      {"monitor", {0x0f, 0x01, 0xc8}, refused(3, Refusal::kPrivileged)},
      {"vmcall", {0x0f, 0x01, 0xc1}, refused(3, Refusal::kPrivileged)},
      {"vmmcall", {0x0f, 0x01, 0xd9}, refused(3, Refusal::kPrivileged)},
      {"vmrun", {0x0f, 0x01, 0xd8}, refused(3, Refusal::kPrivileged)},
      {"far call [rax]", {0xff, 0x18}, refused(2, Refusal::kFarTransfer)},
      {"far jmp [rax]", {0xff, 0x28}, refused_end(2, Refusal::kFarTransfer)},
      {"retf", {0xcb}, refused_end(1, Refusal::kFarTransfer)},
      {"retf 8", {0xca, 0x08, 0x00}, refused_end(3, Refusal::kFarTransfer)},
      {"iretq", {0x48, 0xcf}, refused_end(2, Refusal::kFarTransfer)},
      {"uiret", {0xf3, 0x0f, 0x01, 0xec}, refused_end(4, Refusal::kFarTransfer)},
      {"mov ss,eax", {0x8e, 0xd0}, refused(2, Refusal::kStackSegment)},
      {"rex.R mov ss,eax", {0x44, 0x8e, 0xd0}, refused(3, Refusal::kStackSegment)},
      {"lss eax,[rax]", {0x0f, 0xb2, 0x00}, refused(3, Refusal::kStackSegment)},
      {"sysenter", {0x0f, 0x34}, refused_end(2, Refusal::kSysenter)},
      {"sysexit", {0x0f, 0x35}, refused_end(2, Refusal::kSysenter)},
      {"int 0x2e", {0xcd, 0x2e}, refused(2, Refusal::kInterrupt)},
      {"lea eax,[eip+1]", {0x67, 0x8d, 0x05, 1, 0, 0, 0}, refused(7, Refusal::kNarrowRip)},
      {"jmp [eip+1]", {0x67, 0xff, 0x25, 1, 0, 0, 0}, refused_end(7, Refusal::kNarrowRip)},
      {"enclu", {0x0f, 0x01, 0xd7}, refused(3, Refusal::kEnclave)},
  });
}

TEST_CASE("classify: operand-size branches") {
  const Refusal reason = Refusal::kOperandSizeBranch;
  Instruction jump = refused_branch(3, 0x13);
  jump.ends_block = true;
  Instruction call = refused(3, reason);
  call.is_call = true;
  Instruction long_call = refused(0, reason);
  long_call.is_call = true;
  run({
      {"data16 je rel8", {0x66, 0x74, 0x10}, refused_branch(3, 0x13)},
      {"data16 loop", {0x66, 0xe2, 0xf0}, refused_branch(3, -13)},
      {"data16 jrcxz", {0x66, 0xe3, 0x10}, refused_branch(3, 0x13)},
      {"data16 jmp rel8", {0x66, 0xeb, 0x10}, jump},
      {"data16 call rel32", {0x66, 0xe8, 1, 0, 0, 0}, long_call},
      {"data16 jmp rel32", {0x66, 0xe9, 1, 0, 0, 0}, refused_end(0, reason)},
      {"data16 je rel32", {0x66, 0x0f, 0x84, 1, 0, 0, 0}, refused(0, reason)},
      {"rex.W before data16 does not count", {0x48, 0x66, 0xe9, 1, 0, 0, 0}, refused_end(0, reason)},
      {"data16 call rax", {0x66, 0xff, 0xd0}, call},
      {"data16 jmp rax", {0x66, 0xff, 0xe0}, refused_end(3, reason)},
      {"data16 ret", {0x66, 0xc3}, refused_end(2, reason)},
      {"data16 rep ret", {0x66, 0xf3, 0xc3}, refused_end(3, reason)},
      {"data16 ret 8", {0x66, 0xc2, 8, 0}, refused_end(4, reason)},
      {"xbegin rel16", {0x66, 0xc7, 0xf8, 0x10, 0x00}, refused_branch(5, 0x15)},
  });
}

TEST_CASE("refusals have a code and a sentence of their own") {
  std::set<std::string_view> codes;
  std::set<std::string_view> messages;
  for (int number = 0; number <= static_cast<int>(Refusal::kEnclave); ++number) {
    codes.insert(refusal_code(static_cast<Refusal>(number)));
    messages.insert(refusal_message(static_cast<Refusal>(number)));
  }
  CHECK(codes.size() == static_cast<std::size_t>(Refusal::kEnclave) + 1);
  CHECK(messages.size() == codes.size());
  CHECK(codes.count("") == 0);
  CHECK(refusal_code(Refusal::kNone) == "none");
  CHECK(refusal_code(Refusal::kPrivileged) == "privileged");
  CHECK(refusal_code(Refusal::kInterrupt) == "interrupt");
  CHECK(refusal_code(Refusal::kEnclave) == "enclave");
  CHECK(refusal_message(Refusal::kStackSegment).find("stack segment") != std::string_view::npos);
}

}  // namespace
}  // namespace ubp::decoder

TEST_CASE("a system call behind more than six prefixes is refused, with fewer it is not") {
  for (std::size_t prefixes = 0; prefixes <= 13; ++prefixes) {
    std::vector<std::uint8_t> code(prefixes, 0x2e);
    code.insert(code.end(), {0x0f, 0x05});
    const auto instruction = ubp::decoder::classify(code);
    CHECK((instruction.route == ubp::decoder::Route::kSystem) == (prefixes <= 6));
  }
}
