// classify() on what can be displaced: one instruction per class and per line of hazards.md section 14.
//
// Encoded by hand from the manuals, not by a decoder. Refusals are in refusal_test.cpp.
#include "tests/decoder/expectation.h"

namespace ubp::decoder {
namespace {

TEST_CASE("classify: nop, push, return") {
  const EmulateOp nothing{.effect = Effect::kNone};
  Bytes longest_nop(14, 0x66);
  longest_nop.push_back(0x90);
  run({
      {"nop", {0x90}, emulated(1, nothing)},
      {"data16 nop", {0x66, 0x90}, emulated(2, nothing)},
      {"rex.W nop", {0x48, 0x90}, emulated(2, nothing)},
      {"nop dword [rax+rax]", {0x0f, 0x1f, 0x44, 0x00, 0x00}, emulated(5, nothing)},
      {"nopw cs:disp32", {0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0}, emulated(10, nothing)},
      {"nop [rip+1]", {0x0f, 0x1f, 0x05, 1, 0, 0, 0}, emulated(7, nothing)},
      {"15-byte nop", longest_nop, emulated(15, nothing)},
      {"endbr64", {0xf3, 0x0f, 0x1e, 0xfa}, emulated(4, nothing)},
      {"xchg r8,rax is not nop", {0x41, 0x90}, slot(2)},
      {"xchg r8,rax, 64 bits", {0x49, 0x90}, slot(2)},
      {"pause", {0xf3, 0x90}, slot(2)},
      {"rdsspq rax: a nop only without shadow stacks", {0xf3, 0x48, 0x0f, 0x1e, 0xc8}, slot(5)},
      {"endbr32", {0xf3, 0x0f, 0x1e, 0xfb}, slot(4)},
      {"push rax", {0x50}, emulated(1, {.effect = Effect::kPush, .base = 0})},
      {"push rsp", {0x54}, emulated(1, {.effect = Effect::kPush, .base = 4})},
      {"push r8", {0x41, 0x50}, emulated(2, {.effect = Effect::kPush, .base = 8})},
      {"push r12", {0x41, 0x54}, emulated(2, {.effect = Effect::kPush, .base = 12})},
      {"push r15", {0x41, 0x57}, emulated(2, {.effect = Effect::kPush, .base = 15})},
      {"rex.W push rbp", {0x48, 0x55}, emulated(2, {.effect = Effect::kPush, .base = 5})},
      {"push ax: 16 bits", {0x66, 0x50}, slot(2)},
      {"data16 rex.W push rax", {0x66, 0x48, 0x50}, slot(3)},
      {"ret", {0xc3}, returning(1)},
      {"rep ret", {0xf3, 0xc3}, returning(2)},
      {"bnd ret", {0xf2, 0xc3}, returning(2)},
      {"rex.W ret", {0x48, 0xc3}, returning(2)},
      {"data16 rex.W ret", {0x66, 0x48, 0xc3}, returning(3)},
      {"ret 16", {0xc2, 0x10, 0x00}, returning(3, 16)},
      {"ret 0xfff8: unsigned", {0xc2, 0xf8, 0xff}, returning(3, 0xfff8)},
  });
}

TEST_CASE("classify: relative branches") {
  run({
      {"jmp +0x10", {0xeb, 0x10}, branch(2, Effect::kJump, 0x10)},
      {"jmp self", {0xeb, 0xfe}, branch(2, Effect::kJump, -2)},
      {"jmp -0x100", {0xe9, 0x00, 0xff, 0xff, 0xff}, branch(5, Effect::kJump, -0x100)},
      {"bnd jmp", {0xf2, 0xe9, 1, 0, 0, 0}, branch(6, Effect::kJump, 1)},
      {"jo", {0x70, 0x7f}, jump_if(2, 0, 0x7f)},
      {"je", {0x74, 0x80}, jump_if(2, 4, -0x80)},
      {"jg", {0x7f, 0x00}, jump_if(2, 15, 0)},
      {"jo rel32", {0x0f, 0x80, 0, 0, 0, 0x80}, jump_if(6, 0, INT32_MIN)},
      {"jne rel32", {0x0f, 0x85, 0x78, 0x56, 0x34, 0x12}, jump_if(6, 5, 0x12345678)},
      {"jg rel32", {0x0f, 0x8f, 0xff, 0xff, 0xff, 0x7f}, jump_if(6, 15, INT32_MAX)},
      {"je with a hint", {0x3e, 0x74, 0x05}, jump_if(3, 4, 5)},
      {"data16 rex.W je rel32", {0x66, 0x48, 0x0f, 0x84, 1, 0, 0, 0}, jump_if(8, 4, 1)},
      {"loopne", {0xe0, 0xfc}, branch(2, Effect::kLoopNotEqual, -4)},
      {"loope", {0xe1, 0xfc}, branch(2, Effect::kLoopEqual, -4)},
      {"loop", {0xe2, 0xfc}, branch(2, Effect::kLoop, -4)},
      {"loop on ecx", {0x67, 0xe2, 0xfb}, narrow(branch(3, Effect::kLoop, -5))},
      {"jrcxz", {0xe3, 0x05}, branch(2, Effect::kJumpRcxZero, 5)},
      {"jecxz", {0x67, 0xe3, 0x05}, narrow(branch(3, Effect::kJumpRcxZero, 5))},
      {"call", {0xe8, 0xfb, 0xff, 0xff, 0xff}, branch(5, Effect::kCall, -5)},
      {"addr32 call, from the linker", {0x67, 0xe8, 1, 0, 0, 0}, branch(6, Effect::kCall, 1)},
      {"data16 data16 rex.W call", {0x66, 0x66, 0x48, 0xe8, 1, 0, 0, 0}, branch(8, Effect::kCall, 1)},
      {"xbegin",
       {0xc7, 0xf8, 0x10, 0, 0, 0},
       {.length = 6, .route = Route::kSlot, .rip_disp_offset = 2, .has_target = true, .target = 0x16}},
      {"xabort", {0xc6, 0xf8, 0x01}, slot(3)},
      {"mov eax,1 shares xbegin's opcode", {0xc7, 0xc0, 1, 0, 0, 0}, slot(6)},
  });
}

TEST_CASE("classify: a target may lie farther than 2 GiB from the instruction") {
  CHECK(classify(Bytes{0x0f, 0x8f, 0xff, 0xff, 0xff, 0x7f}).target == 0x8000'0005);
}

TEST_CASE("classify: indirect branches") {
  run({
      {"call rax", {0xff, 0xd0}, call_through(2, {.base = 0})},
      {"call rsp", {0xff, 0xd4}, call_through(2, {.base = 4})},
      {"call r11", {0x41, 0xff, 0xd3}, call_through(3, {.base = 11})},
      {"notrack call rdx", {0x3e, 0xff, 0xd2}, call_through(3, {.base = 2})},
      {"bnd call rdx", {0xf2, 0xff, 0xd2}, call_through(3, {.base = 2})},
      {"call [rax]", {0xff, 0x10}, call_memory(2, {.base = 0})},
      {"call [r13-8]", {0x41, 0xff, 0x55, 0xf8}, call_memory(4, {.displacement = -8, .base = 13})},
      {"call [rsp+8]", {0xff, 0x54, 0x24, 0x08}, call_memory(4, {.displacement = 8, .base = 4})},
      {"call [r12]", {0x41, 0xff, 0x14, 0x24}, call_memory(4, {.base = 12})},
      {"call [rax+rcx*8]", {0xff, 0x14, 0xc8}, call_memory(3, {.base = 0, .index = 1, .scale = 3})},
      {"call [r8+r12*2+0x100]",
       {0x43, 0xff, 0x94, 0x60, 0, 1, 0, 0},
       call_memory(8, {.displacement = 0x100, .base = 8, .index = 12, .scale = 1})},
      {"call [rcx*4+0x1000]",
       {0xff, 0x14, 0x8d, 0, 0x10, 0, 0},
       call_memory(7, {.displacement = 0x1000, .index = 1, .scale = 2})},
      {"call [r13+rax] has a base", {0x41, 0xff, 0x54, 0x05, 0x00}, call_memory(5, {.base = 13, .index = 0})},
      {"call [0x2000]", {0xff, 0x14, 0x25, 0, 0x20, 0, 0}, call_memory(7, {.displacement = 0x2000})},
      {"call fs:[0x10]", {0x64, 0xff, 0x14, 0x25, 0x10, 0, 0, 0}, call_memory(8, {.displacement = 0x10, .segment = 1})},
      {"call gs:[rbx]", {0x65, 0xff, 0x13}, call_memory(3, {.base = 3, .segment = 2})},
      {"call cs:[rbx]: no segment", {0x2e, 0xff, 0x13}, call_memory(3, {.base = 3})},
      {"call [ebx]", {0x67, 0xff, 0x13}, call_memory(3, {.base = 3, .narrow_address = true})},
      {"call [rip-1]",
       {0xff, 0x15, 0xff, 0xff, 0xff, 0xff},
       call_memory(6, {.displacement = -1, .base = kRipRegister})},
      {"rex.B call [rip+1]", {0x41, 0xff, 0x15, 1, 0, 0, 0}, call_memory(7, {.displacement = 1, .base = kRipRegister})},
      {"data16 rex.W call [rip+1]",
       {0x66, 0x48, 0xff, 0x15, 1, 0, 0, 0},
       call_memory(8, {.displacement = 1, .base = kRipRegister})},
      {"call [eip+1]",
       {0x67, 0xff, 0x15, 1, 0, 0, 0},
       call_memory(7, {.displacement = 1, .base = kRipRegister, .narrow_address = true})},
      {"jmp rax", {0xff, 0xe0}, slot_jump(2)},
      {"notrack jmp rax", {0x3e, 0xff, 0xe0}, slot_jump(3)},
      {"jmp [r15+rax*8]", {0x41, 0xff, 0x24, 0xc7}, slot_jump(4)},
      {"jmp [rip+1]", {0xff, 0x25, 1, 0, 0, 0}, slot_jump(6, 2)},
      {"bnd jmp [rip+1], in a plt", {0xf2, 0xff, 0x25, 1, 0, 0, 0}, slot_jump(7, 3)},
      {"inc dword [rip+1] shares the opcode", {0xff, 0x05, 1, 0, 0, 0}, slot(6, 2)},
      {"push [rip+1]", {0xff, 0x35, 1, 0, 0, 0}, slot(6, 2)},
  });
}

TEST_CASE("classify: system calls") {
  run({
      {"syscall", {0x0f, 0x05}, system_call(2)},
      {"rex.W syscall", {0x48, 0x0f, 0x05}, system_call(3)},
      {"int 0x80", {0xcd, 0x80}, system_call(2)},
  });
}

TEST_CASE("classify: slots") {
  run({
      {"mov rax,[rip+1]", {0x48, 0x8b, 0x05, 1, 0, 0, 0}, slot(7, 3)},
      {"lea r15,[rip+1]", {0x4c, 0x8d, 0x3d, 1, 0, 0, 0}, slot(7, 3)},
      {"cmp byte [rip+1],5", {0x80, 0x3d, 1, 0, 0, 0, 5}, slot(7, 2)},
      {"mov qword [rip+1],7", {0x48, 0xc7, 0x05, 1, 0, 0, 0, 7, 0, 0, 0}, slot(11, 3)},
      {"vmovups ymm0,[rip+1]", {0xc5, 0xfc, 0x10, 0x05, 1, 0, 0, 0}, slot(8, 4)},
      {"vextractf128 [rip+1],ymm0,7", {0xc4, 0xe3, 0x7d, 0x19, 0x05, 1, 0, 0, 0, 7}, slot(10, 5)},
      {"vaddps zmm0,zmm0,[rip+1]", {0x62, 0xf1, 0x7c, 0x48, 0x58, 0x05, 1, 0, 0, 0}, slot(10, 6)},
      {"vpternlogd zmm0,zmm0,[rip+1],7", {0x62, 0xf3, 0x7d, 0x48, 0x25, 0x05, 1, 0, 0, 0, 7}, slot(11, 6)},
      {"pinsrw xmm0,[rip+1],7", {0x66, 0x0f, 0xc4, 0x05, 1, 0, 0, 0, 7}, slot(9, 4)},
      {"lock inc dword [rip+1]", {0xf0, 0xff, 0x05, 1, 0, 0, 0}, slot(7, 3)},
      {"prefetchnta [rip+1]", {0x0f, 0x18, 0x05, 1, 0, 0, 0}, slot(7, 3)},
      {"mov eax,[rbp+1]: no rip", {0x8b, 0x85, 1, 0, 0, 0}, slot(6)},
      {"mov eax,[0x1]: no rip", {0x8b, 0x04, 0x25, 1, 0, 0, 0}, slot(7)},
      {"mov rax,imm64", {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, slot(10)},
      {"mov eax,[moffs64]", {0xa1, 1, 2, 3, 4, 5, 6, 7, 8}, slot(9)},
      {"rep movsb", {0xf3, 0xa4}, slot(2)},
      {"repne scasb", {0xf2, 0xae}, slot(2)},
      {"lock cmpxchg [rdi],ecx", {0xf0, 0x0f, 0xb1, 0x0f}, slot(4)},
      {"push imm8", {0x6a, 0xff}, slot(2)},
      {"push [rsp+8]", {0xff, 0x74, 0x24, 0x08}, slot(4)},
      {"pop rsp", {0x5c}, slot(1)},
      {"pop [rsp]", {0x8f, 0x04, 0x24}, slot(3)},
      {"push fs", {0x0f, 0xa0}, slot(2)},
      {"leave", {0xc9}, slot(1)},
      {"enter 16,0", {0xc8, 0x10, 0x00, 0x00}, slot(4)},
      {"pushfq", {0x9c}, slot(1)},
      {"popfq", {0x9d}, slot(1)},
      {"mov fs,eax", {0x8e, 0xe0}, slot(2)},
      {"mov eax,ss", {0x8c, 0xd0}, slot(2)},
      {"cpuid", {0x0f, 0xa2}, slot(2)},
      {"rdtsc", {0x0f, 0x31}, slot(2)},
      {"rdtscp", {0x0f, 0x01, 0xf9}, slot(3)},
      {"rdpmc", {0x0f, 0x33}, slot(2)},
      {"xgetbv", {0x0f, 0x01, 0xd0}, slot(3)},
      {"rdpkru", {0x0f, 0x01, 0xee}, slot(3)},
      {"wrpkru", {0x0f, 0x01, 0xef}, slot(3)},
      {"wrfsbase rax", {0xf3, 0x48, 0x0f, 0xae, 0xd0}, slot(5)},
      {"rdgsbase rax", {0xf3, 0x48, 0x0f, 0xae, 0xc8}, slot(5)},
      {"xsavec [rsp]", {0x0f, 0xc7, 0x24, 0x24}, slot(4)},
      {"xrstor [rsp]", {0x0f, 0xae, 0x2c, 0x24}, slot(4)},
      {"sgdt [rax]: user mode without UMIP", {0x0f, 0x01, 0x00}, slot(3)},
      {"sldt eax", {0x0f, 0x00, 0xc0}, slot(3)},
      {"smsw eax", {0x0f, 0x01, 0xe0}, slot(3)},
      {"verw ax", {0x0f, 0x00, 0xe8}, slot(3)},
      {"umonitor rax", {0xf3, 0x0f, 0xae, 0xf0}, slot(4)},
      {"bndmov [rip+1]: a nop today", {0x66, 0x0f, 0x1b, 0x05, 1, 0, 0, 0}, slot(8, 4)},
      {"bndmk bnd0,[rip+1]: a nop today", {0xf3, 0x0f, 0x1b, 0x05, 1, 0, 0, 0}, slot(8, 4)},
      {"vpgatherdd zmm0{k1}", {0x62, 0xf2, 0x7d, 0x49, 0x90, 0x04, 0x08}, slot(7)},
      {"llwpcb rax, XOP", {0x8f, 0xe9, 0x78, 0x12, 0xc0}, slot(5)},
  });
}

}  // namespace
}  // namespace ubp::decoder
