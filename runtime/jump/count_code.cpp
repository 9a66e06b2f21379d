// Counting and recording in a detour. See detour_assembler.h.
#include "runtime/jump/detour_assembler.h"
#include "runtime/record/rings.h"

namespace ubp::runtime {

using trap::TaskState;
using Xbyak::Label;

// Leaves the hit to the breakpoint tier: of what is spilled, only rcx is no longer what it was.
void DetourAssembler::slow_way(Label& slow) {
  L(slow);
  holds(kRcxSpilled);
  unspill(rcx);
  holds(kLeaves);
  int3();
  holds_no_longer(kLeaves);
}

// rcx: where the task counts; to the slow way where it does not.
void DetourAssembler::enter(const Label& slow) {
  code_.block.entry = static_cast<std::uint16_t>(getSize());
  spill(rcx);
  mov(rcx, thread(storage_.state));
  mov(rcx, ptr[rcx + offsetof(TaskState, fast)]);
  jrcxz(slow);
}

void DetourAssembler::increment(const Xbyak::Address& counter) {
  mov(rax, counter);
  lea(rax, ptr[rax + 1]);
  mov(counter, rax);
}

void DetourAssembler::increment(const Xbyak::Reg64& base, Blank blank) {
  mov(rax, ptr[base + kBlank]);
  leave_blank(blank);
  lea(rax, ptr[rax + 1]);
  mov(ptr[base + kBlank], rax);
  leave_blank(blank);
}

BlockCode DetourAssembler::count(bool is_later) {
  start_block();
  Label slow, entry;
  if (is_later) jmp(entry, T_SHORT);
  slow_way(slow);
  L(entry);
  enter(slow);
  spill(rax);
  increment(rcx, Blank::kCounter);
  holds(kCounted);
  unspill(rax);
  unspill(rcx);
  return finish_block();
}

BlockCode DetourAssembler::count_by_segment() {
  start_block();
  putSeg(gs);
  inc(qword[reinterpret_cast<const void*>(std::uintptr_t{kBlank})]);
  leave_blank(Blank::kInSegment);
  return finish_block();
}

// Loses rcx, rax and rdx, which are spilled; all other registers are the thread's. Without a mark: what makes the
// record one is the store of the head. Where there is no room, the compare is by jrcxz too: limit - head = limit +
// ~head + 1, by instructions that leave the flags alone.
BlockCode DetourAssembler::record() {
  static_assert(record::kRingRecords == 1 << 16 &&
                sizeof(record::Record) == 3 * 8);  // movzx, and lea by three and by eight
  start_block();
  Label slow, full, done;
  slow_way(slow);
  holds(kUnconsumed);
  enter(slow);
  mov(rcx, thread(storage_.state));
  mov(rcx, ptr[rcx + offsetof(TaskState, ring)]);
  jrcxz(slow);  // it has no ring yet
  spill(rax);
  spill(rdx);
  mov(rcx, thread(storage_.state));
  mov(rdx, ptr[rcx + offsetof(TaskState, fast)]);
  increment(rdx, Blank::kCounter);
  holds(kCounted);
  mov(rax, ptr[rcx + offsetof(TaskState, ring_head)]);
  mov(rcx, ptr[rcx + offsetof(TaskState, ring_limit)]);
  not_(rax);
  lea(rcx, ptr[rcx + rax + 1]);
  jrcxz(full);
  not_(rax);
  movzx(eax, ax);  // the record's number in the ring
  lea(rax, ptr[rax + rax * 2]);
  mov(rcx, thread(storage_.state));
  mov(edx, ptr[rcx + offsetof(TaskState, tid)]);
  mov(rcx, ptr[rcx + offsetof(TaskState, ring)]);
  lea(rcx, ptr[rcx + rax * 8]);
  mov(ptr[rcx + offsetof(record::Record, task)], edx);
  mov(dword[rcx + offsetof(record::Record, point)], kBlank);
  leave_blank(Blank::kPoint);
  mov(dword[rcx + offsetof(record::Record, counter)], kBlank);
  leave_blank(Blank::kAction);
  rdtsc();
  mov(ptr[rcx + offsetof(record::Record, time)], eax);
  mov(ptr[rcx + offsetof(record::Record, time) + 4], edx);
  mov(rcx, thread(storage_.state));
  increment(ptr[rcx + offsetof(TaskState, ring_head)]);
  holds_no_longer(kUnconsumed);
  jmp(done, T_SHORT);
  L(full);
  holds(kUnconsumed);
  increment(rdx, Blank::kDropped);
  holds_no_longer(kUnconsumed);
  L(done);
  unspill(rax);
  unspill(rdx);
  unspill(rcx);
  return finish_block();
}

}  // namespace ubp::runtime
