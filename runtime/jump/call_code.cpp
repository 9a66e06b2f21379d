// Calling consumers in a detour. See detour_assembler.h.
#include <syscall.h>

#include <csignal>

#include "runtime/consumers/consumer_list.h"
#include "runtime/jump/detour_assembler.h"

namespace ubp::runtime {

using trap::TaskState;
using Xbyak::Label;
using Xbyak::Reg64;

namespace {

constexpr std::size_t kTaskInSave = offsetof(DetourSave, context) + offsetof(ubp_context, task);
constexpr std::size_t kConsumerInSave = offsetof(DetourSave, context) + offsetof(ubp_context, consumer);

// What calls clobber but rax and rcx, and what they keep but r15 and rsp.
constexpr int kClobbered[] = {Xbyak::Operand::RDX, Xbyak::Operand::RSI, Xbyak::Operand::RDI, Xbyak::Operand::R8,
                              Xbyak::Operand::R9,  Xbyak::Operand::R10, Xbyak::Operand::R11};
constexpr int kKept[] = {Xbyak::Operand::RBX, Xbyak::Operand::RBP, Xbyak::Operand::R12, Xbyak::Operand::R13,
                         Xbyak::Operand::R14};

std::size_t in_save(int reg) {
  return offsetof(DetourSave, registers) + static_cast<std::size_t>(reg) * sizeof(std::uint64_t);
}

}  // namespace

void DetourAssembler::save(const Reg64& reg, const Reg64& base) { mov(ptr[base + in_save(reg.getIdx())], reg); }
void DetourAssembler::load(const Reg64& reg, const Reg64& base) { mov(reg, ptr[base + in_save(reg.getIdx())]); }

// rax, rcx, rdx and rdi are lost.
void DetourAssembler::call_with_save(std::uint64_t function) {
  mov(rdi, rsp);
  mov(rax, function);
  call(rax);
}

// The forms for 64 bits, which Xbyak does not have: the image's last instruction pointer is a whole one.
void DetourAssembler::xsave(const DetourConsumers& consumers, bool restores) {
  mov(eax, static_cast<std::uint32_t>(consumers.floating.components));
  mov(edx, static_cast<std::uint32_t>(consumers.floating.components >> 32));
  const bool compacts = consumers.floating.compacts && !restores;
  const int extension = restores ? 5 : 4;
  db(0x48);
  db(0x0f);
  db(compacts ? 0xc7 : 0xae);  // xsave64, xsavec64 or xrstor64 of image(%rsp): SDM volume 2
  db(0x84 | extension << 3);
  db(0x24);
  dd(offsetof(DetourSave, image));
}

// Saves what of vector and floating-point state the consumers may change, and sets MXCSR and x87 as a C function may
// expect them, as the kernel does for handlers. The task is marked: no signal sees it.
void DetourAssembler::save_floating(const DetourConsumers& consumers) {
  const ActionNeeds& needs = consumers.needs;
  if (!needs.all_fp && !needs.xmm) return;
  if (needs.all_fp && consumers.floating.save != 0) return call_with_save(consumers.floating.save);
  if (needs.all_fp) {
    xsave(consumers, false);
    mov(dword[rsp + offsetof(DetourSave, in_use)], kInImage);
  } else {
    mov(dword[rsp + offsetof(DetourSave, in_use)], 0);
    for (int i = 0; i < 16; ++i)
      movaps(saved(offsetof(DetourSave, vectors) + 16 * static_cast<std::size_t>(i)), Xbyak::Xmm(i));
  }
  constexpr std::uint32_t kDefault = 0x1f80,
                          kMet = 0x3f;  // all exceptions masked, and none met; which were does not matter
  Label is_default;
  stmxcsr(saved(offsetof(DetourSave, mxcsr)));
  mov(eax, saved(offsetof(DetourSave, mxcsr)));
  and_(eax, ~kMet);
  cmp(eax, kDefault);
  je(is_default, T_SHORT);
  push(kDefault);
  ldmxcsr(ptr[rsp]);
  lea(rsp, ptr[rsp + 8]);
  L(is_default);
  if (needs.all_fp) fninit();
}

void DetourAssembler::restore_floating(const DetourConsumers& consumers) {
  if (consumers.needs.all_fp) {
    if (consumers.floating.restore != 0) return call_with_save(consumers.floating.restore);
    return xsave(consumers, true);
  }
  if (!consumers.needs.xmm) return;
  for (int i = 0; i < 16; ++i)
    movaps(Xbyak::Xmm(i), saved(offsetof(DetourSave, vectors) + 16 * static_cast<std::size_t>(i)));
  ldmxcsr(saved(offsetof(DetourSave, mxcsr)));  // cheaper than to look whether it is another
}

// Saves all, counts, marks the task, calls the consumers and restores all. It is on the task's own stack in between.
// The stack pointer is kept in r15: through memory, it would tie each hit to the one before.
void DetourAssembler::call_consumers(const DetourConsumers& consumers) {
  const ActionNeeds& needs = consumers.needs;
  mov(rcx, thread(storage_.state));
  mov(rcx, ptr[rcx + offsetof(TaskState, consumer_stack)]);
  save(rax, rcx);
  holds(kRaxSaved);
  lahf();
  seto(al);
  mov(ptr[rcx + offsetof(DetourSave, status)], rax);
  mov(rax, thread(storage_.rcx));
  mov(ptr[rcx + in_save(rcx.getIdx())], rax);
  for (const int reg : kClobbered) save(Reg64(reg), rcx);
  if (needs.reads) {
    for (const int reg : kKept) save(Reg64(reg), rcx);
  }
  save(rsp, rcx);
  save(r15, rcx);
  holds_no_longer(kRcxSpilled | kRaxSaved);
  holds(kAllSaved | kSaveInRcx | (needs.reads ? kKeptSaved : kNothing));
  mov(r15, rsp);
  mov(rsp, rcx);
  if (consumers.is_inside) {
    pushfq();
    pop(qword[rsp + offsetof(DetourSave, rflags)]);  // rsp is as it is behind it
    cld();
    holds(kDirectionSaved);
  }
  holds_no_longer(kSaveInRcx);

  mov(rsi, saved(kTaskInSave));
  mov(rdx, saved(offsetof(DetourSave, counters)));
  mov(rcx, ptr[rdx + kBlank]);
  leave_blank(Blank::kCounter);
  inc(rcx);
  mov(rax, rcx);
  shl(rax, kMarkBits);
  or_(rax, kDetourMark);
  mov(ptr[rsi + offsetof(TaskState, consumer)], rax);
  mov(ptr[rdx + kBlank], rcx);
  leave_blank(Blank::kCounter);
  holds(kCounted);
  mov(qword[rsi + offsetof(TaskState, fast)], 0);
  if (needs.overrides) mov(qword[rsp + offsetof(DetourSave, is_overridden)], 0);
  mov(eax, thread(consumers.error));
  mov(saved(offsetof(DetourSave, error)), eax);
  const bool disables = needs.all_fp && consumers.cancel != 0;  // others call nothing that could be cancelled
  if (disables) {
    movzx(eax, thread(consumers.cancel, &byte));
    mov(saved(offsetof(DetourSave, cancel)), eax);
    lock();
    or_(thread(consumers.cancel, &byte), 1);
  }
  save_floating(consumers);

  Label next, skip, none;
  mov(rax, kBlankQuad);
  leave_blank(Blank::kList);
  mov(rax, ptr[rax]);
  test(rax, rax);
  jz(none, T_SHORT);  // taken out since the hit
  L(next);
  // One that has just come may ask for more than is saved here: until another detour does, its hits are none.
  const std::uint32_t lacks = ActionNeeds::kAllBits & ~needs.served_bits();
  if (lacks != 0) {
    test(byte[rax + offsetof(Consumer, needs)], lacks);
    jnz(skip, T_SHORT);
  }
  mov(saved(kConsumerInSave), rax);
  mov(rdx, saved(offsetof(DetourSave, counters)));
  mov(rcx, ptr[rax + offsetof(Consumer, counter_offset)]);
  inc(qword[rdx + rcx]);
  lea(rdi, saved(offsetof(DetourSave, context)));
  mov(rsi, ptr[rax + offsetof(Consumer, action.data)]);
  call(ptr[rax + offsetof(Consumer, action.function)]);
  mov(rax, saved(kConsumerInSave));
  L(skip);
  mov(rax, ptr[rax + offsetof(Consumer, next)]);
  test(rax, rax);
  jnz(next, T_SHORT);
  L(none);
  holds_no_longer(kUnconsumed);
  if (needs.overrides) holds(kOverrides);

  Label is_same_error, was_disabled;
  mov(eax, saved(offsetof(DetourSave, error)));
  cmp(eax, thread(consumers.error));
  je(is_same_error, T_SHORT);  // a store costs more
  mov(thread(consumers.error), eax);
  L(is_same_error);
  if (disables) {
    mov(eax, saved(offsetof(DetourSave, cancel)));
    test(al, 1);
    jnz(was_disabled, T_SHORT);
    lock();
    and_(thread(consumers.cancel, &byte), ~1U);
    L(was_disabled);
  }
  restore_floating(consumers);
  mov(rsi, saved(kTaskInSave));
  mov(rax, ptr[rsi + offsetof(TaskState, jumped)]);  // 0 in a forked child, whose states are wiped
  mov(ptr[rsi + offsetof(TaskState, fast)], rax);
  mov(qword[rsi + offsetof(TaskState, consumer)], 0);
  cmp(qword[rsi + offsetof(TaskState, has_deferred)], 0);
  jne(getCurr());
  leave_blank(Blank::kToLate);

  code_.resume = static_cast<std::uint16_t>(getSize());
  if (needs.overrides) {
    cmp(qword[rsp + offsetof(DetourSave, is_overridden)], 0);
    jne(getCurr());
    leave_blank(Blank::kToReturn);
  }
  load_all(consumers, false);
}

// Gives the thread all that was saved, and its stack. returns: but for what the call returns.
void DetourAssembler::load_all(const DetourConsumers& consumers, bool returns) {
  if (consumers.is_inside) {
    Label is_clear;
    test(dword[rsp + offsetof(DetourSave, rflags)], kDirectionFlag);
    jz(is_clear, T_SHORT);
    std();
    L(is_clear);
  }
  mov(rax, saved(offsetof(DetourSave, status)));
  add(al, 0x7f);  // sets OF as it was
  sahf();
  for (const int reg : kClobbered) load(Reg64(reg), rsp);
  if (consumers.needs.modifies) {
    for (const int reg : kKept) load(Reg64(reg), rsp);
  }
  if (returns) {
    mov(rax, saved(offsetof(DetourSave, returned)));
  } else {
    load(rax, rsp);
  }
  mov(rcx, rsp);
  holds(kSaveInRcx);
  mov(rsp, r15);
  load(r15, rcx);
  load(rcx, rcx);
}

BlockCode DetourAssembler::consumers(const DetourConsumers& consumers) {
  start_block();
  Label slow;
  slow_way(slow);
  holds(kUnconsumed);
  enter(slow);
  call_consumers(consumers);
  return finish_block();
}

// A signal was put off: an int3 calls its handler, and the hit goes on from there. If there is none any more, sets the
// thread's mask as it was. rsi: the task's state. Behind it, where consumers may end the call: its return.
BlockCode DetourAssembler::late(const BlockCode& first, const DetourConsumers& consumers) {
  const std::uint32_t before = first.block.at(first.resume);
  start_block();
  Label deliver;
  L(deliver);
  holds(before | kDelivers);
  int3();
  holds_no_longer(kDelivers);
  cmp(qword[rsi + offsetof(TaskState, has_deferred)], 0);
  jne(deliver, T_SHORT);  // another's SIGTRAP came in its way
  mov(eax, SYS_rt_sigprocmask);
  mov(edi, SIG_SETMASK);
  lea(rsi, saved(offsetof(DetourSave, mask)));
  xor_(edx, edx);
  mov(r10d, sizeof(DetourSave::mask));
  syscall();
  // They came at once, and translation took it back; else it is done here.
  mov(rsi, saved(kTaskInSave));
  mov(qword[rsi + offsetof(TaskState, has_deferred)], 0);
  jmp(getCurr(), T_NEAR);
  leave_blank(Blank::kToResume);
  if (!consumers.needs.overrides) return finish_block();
  const auto leave = static_cast<std::uint16_t>(getSize());
  load_all(consumers, true);
  note(kReturns);
  ret();
  code_.leave = leave;
  return finish_block();
}

}  // namespace ubp::runtime
