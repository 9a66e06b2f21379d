// The trap path: everything between an int3 and the displaced instruction. The ranges uncounted and pending; signals
// and application handlers: signal_path.cpp.
//
// Context: signal handlers in application threads. Rules, enforced by tests/checks/link_check: no libc, no allocation,
// no lock, no C++ runtime; every function in the section of its range (ranges.h); r15 is left alone (-ffixed-r15);
// general registers only.
#include "runtime/trap/clone.h"
#include "runtime/trap/consume.h"
#include "runtime/trap/death.h"
#include "runtime/trap/gate.h"
#include "runtime/trap/slots.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"
#include "xol/emulate.h"

namespace ubp::trap {
namespace {

inline constexpr std::uint64_t kRetry = 1;

// The thread gets no state: out of memory, or more tasks than blocks. A probepoint that needs a slot of the thread's is
// taken out, so that the program goes on as if it had never been armed.
[[gnu::always_inline]] inline bool take_out(std::uint32_t point) {
  const long fd = open_memory();
  if (sys::failed(fd)) return false;
  const bool done = restore_byte(fd, point);
  sys::call4(SYS_close, fd);
  return done;
}

[[gnu::always_inline]] inline std::uint32_t read_pkru() {
  std::uint32_t value, high;
  asm volatile("rdpkru" : "=a"(value), "=d"(high) : "c"(0));
  return value;
}

// Whether the thread may leave by XRSTOR and IRETQ instead of rt_sigreturn: only when rt_sigreturn would do nothing
// else. Source: arch/x86/kernel/signal_64.c, fpu/signal.c.
[[gnu::always_inline]] inline bool can_return_fast(const Context* uc) {
  constexpr std::uint64_t kTrapFlag = 0x100, kNestedTask = 0x4000;
  constexpr std::uint16_t kUserCode = 0x33, kUserStack = 0x2b;
  if (!g_process.processor.fast_return || (uc->eflags & (kTrapFlag | kNestedTask)) != 0 ||
      (uc->stack_flags & kAutodisarm) != 0)
    return false;
  if (uc->cs != kUserCode || uc->ss != kUserStack) return false;
  if (uc->fpstate == nullptr || fp_word(uc, 464) != kFpMagic1) return false;
  if (has_shadow_stack()) return false;
  if (g_process.processor.pkru_offset != 0) {
    constexpr std::uint32_t kPkruBit = 1u << 9, kXstateBv = 512;
    const std::uint32_t saved =
        (fp_word(uc, kXstateBv) & kPkruBit) != 0 ? fp_word(uc, g_process.processor.pkru_offset) : 0;
    if (saved != read_pkru()) return false;
  }
  return true;
}

[[gnu::always_inline]] inline xol::Registers registers_of(Context* uc) {
  xol::Registers registers;
  for (unsigned number = 0; number < 16; ++number) registers.gpr[number] = &uc->general(number);
  registers.rflags = uc->eflags;
  return registers;
}

// A trap costs some 2 us, and a jump some 100 us to make.
constexpr std::uint64_t kHot = 256;

// Which counter to increment; for kRetry, the frame to return from.
struct Decision {
  std::uint64_t counter;
  Context* frame;
};

// Begins the way on from a trap. is_mask_current: see Continuation.
[[gnu::always_inline]] inline Continuation& begin_continuation(Context* uc, const Trap& trap, TaskState* task,
                                                               bool is_mask_current) {
  Continuation& next = continuation(uc);
  next.origin = trap.origin;
  next.index = trap.index;
  next.kind = trap.kind;
  next.task = task;
  next.copy = trap.copy;
  next.is_mask_current = is_mask_current;
  return next;
}

// A consumer was left by longjmp, which none may do.
extern "C" UBP_RANGE(uncounted) void ubp_trap_left_consumer(TaskState* task) {
  end_consuming(task);
  give_up_deferred(task);
}

// Which counter a hit of the task's counts in, and whether its consumers are to run.
[[gnu::always_inline]] inline std::uint64_t* counter_of(Continuation& next, const Context* uc, const Thread* storage) {
  TaskState* const task = next.task;
  const Thread& thread = storage != nullptr ? *storage : this_thread();
  next.consumed = kConsumed;
  if (thread.in_runtime) [[unlikely]]
    return &task->own_traps;  // no hit of the application's
  next.consumed = kNotConsumed;
  std::uint64_t* const counter = task->counters + next.index;
  if (is_consuming(task)) [[unlikely]] {
    if (is_below(task, uc->rsp)) {
      next.consumed = kMissed;
      return counter + g_process.tasks.offset_of(Counter::kMissed);
    }
    ubp_trap_left_consumer(task);
  }
  if (task->moved_origin == next.origin && task->moved_rsp == uc->rsp) [[unlikely]] {  // the same hit: ubp_trap_resume
    task->moved_origin = 0;
    // A goroutine may have come back in another thread before, and call again from there.
    const bool may_differ = storage != nullptr && sys::is_set(g_process.goroutines.are_found);
    next.consumed = may_differ ? kAgain : kConsumed;
    return &next.scratch;
  }
  if (storage == nullptr && g_process.table.points[next.index].has_consumers) [[unlikely]] {
    next.consumed = kMissed;
    return counter + g_process.tasks.offset_of(Counter::kMissed);
  }
  return counter;
}

}  // namespace

extern "C" {

// What the hit path does only now and then, out of its way: tests/checks/link_check looks at what is left, and finds no
// locked instruction in it. Each in the range of its caller.
UBP_RANGE(uncounted) TaskState* ubp_trap_find_task(const Context* uc) { return current_task(uc->rsp, uc->stack_base); }
UBP_RANGE(uncounted) void ubp_trap_find_other(const Context* uc, Trap& trap) { trap = other_trap_of(g_process, uc); }
UBP_RANGE(pending) void ubp_trap_consume(Context* uc) { consume(uc); }
// A probepoint that still traps has been hit often: may it have a jump? With all signals blocked, so that none can
// abandon what goes on in there.
UBP_RANGE(pending) void ubp_trap_promote(Context* uc) {
  const Continuation& next = continuation(uc);
  // Its in_runtime will be set: whoever shares it would count nothing meanwhile.
  const bool is_alone = !sys::is_set(g_process.tasks.shares_tls);  // set by this thread before it shares
  const Thread* const thread = thread_in_storage();
  const bool can = is_alone && thread != nullptr && !thread->in_runtime && next.consumed != kMissed &&
                   g_process.tasks.is_own_stack(address_of(uc));
  if (!can) return;
#ifndef UBP_TEST_NO_SANDBOX  // tests/preload/environment_test.cpp: a program's filter is not minded
  if (sys::is_set(g_process.is_sandboxed)) return;  // set by this thread, or just now by another
#endif
  const std::uint64_t before = block_all();
  g_process.upcalls.promote(next.index);
  sys::set_signal_mask(before);
}
UBP_RANGE(pending) bool ubp_trap_makes_thread(const Context* uc) { return counts_by_segment() && makes_thread(*uc); }
// A program is about to be executed. Signals are blocked as in ubp_trap_promote; one that comes behind has it told
// again.
UBP_RANGE(pending) void ubp_trap_tell_exec(const Context* uc) {
  const bool can = g_process.upcalls.before_exec != nullptr && !sys::is_set(g_process.is_sandboxed) &&
                   g_process.tasks.is_own_stack(address_of(uc));
  if (!can || this_thread().in_runtime) return;
  const std::uint64_t before = block_all();
  const Storage storage(false);
  if (storage.is_there())
    g_process.upcalls.before_exec(uc->rax == SYS_execve ? reinterpret_cast<const char*>(uc->rdi) : nullptr);
  sys::set_signal_mask(before);
}
// The program is about to set %fs. Signals are blocked as in ubp_trap_promote.
UBP_RANGE(pending) void ubp_trap_leave_storage() {
  const std::uint64_t before = block_all();
  leave_storage();
  sys::set_signal_mask(before);
}
// Where the thread goes on, when the system call is carried out at the gate; 0: it runs as any displaced one does.
UBP_RANGE(pending) std::uint64_t ubp_trap_gate(Context* uc, const xol::Displaced& point) {
  const Gated call = gated_part(*uc);
  switch (call) {
    case Gated::kNothing: return 0;
    case Gated::kExit: return leave_process(uc, false);
    case Gated::kThreadExit: return leave_process(uc, true);
    case Gated::kStorage: ubp_trap_leave_storage(); return 0;
    case Gated::kClone:
    case Gated::kClone3:
      if (makes_thread(*uc)) share_memory(uc);
      return call == Gated::kClone3 ? pass_clone(uc, point) : 0;
    case Gated::kReturn: return gated_return(uc);
    case Gated::kExec: ubp_trap_tell_exec(uc); break;
    case Gated::kMask:
    case Gated::kDisposition: break;
  }
  return pass_gate(uc, call, point);
}
// The thread goes on without a hit: it was counted when it entered the slot or the detour, or it has jumped into a
// window.
UBP_RANGE(uncounted) Decision ubp_trap_go_on(Context* uc, const Trap& trap, TaskState* task, bool is_mask_current) {
  Continuation& next = begin_continuation(uc, trap, task, is_mask_current);
  const bool costs_alone = trap.kind == TrapKind::kAtBoundary && task != nullptr;  // no hit's trap
  return {address_of(costs_alone ? &task->own_traps : &next.scratch), uc};
}
// It is back from the call that the gate has changed, or begins there; or a new thread begins.
UBP_RANGE(uncounted) Decision ubp_trap_begin(Context* uc, TrapKind kind) {
  if (kind == TrapKind::kBorn) {
    give_birth(uc, *born_at(g_process, uc->rip, uc->rax));
    return {kRetry, uc};
  }
  const xol::Displaced& gate = *cloned_at(g_process, uc->rip - 1);
  finish_clone(uc, gate);
  return ubp_trap_go_on(uc, {TrapKind::kLeftSlot, runtime::kNotFound, gate.next()}, nullptr, false);
}
// A hit of a task that can have no state: uncounted, and its probepoint is taken out if it needs a slot.
UBP_RANGE(uncounted) Decision ubp_trap_without_state(Context* uc, Trap& trap) {
  if (trap.copy == 0) trap.copy = g_process.detours.covered_copy(trap.index, trap.origin);  // its byte may be a jump's
  const bool needs_slot = trap.copy == 0 && g_process.table.points[trap.index].route == decoder::Route::kSlot;
  if (needs_slot && !take_out(trap.index)) return {0, uc};
  const bool is_own = trap.index < g_process.own_points;
  if (!is_own) g_process.tasks.taken_out->fetch_add(1, std::memory_order_relaxed);  // a statistic
  if (needs_slot) {
    uc->rip = trap.origin;
    return {kRetry, uc};
  }
  continuation(uc).consumed = kConsumed;
  if (trap.copy != 0) trap.kind = TrapKind::kAtBoundary;  // the jump stays: it is not so easily taken out
  return ubp_trap_go_on(uc, trap, nullptr, true);
}
UBP_RANGE(pending)
std::uint64_t ubp_trap_shared_slot(TaskState* task, std::uint32_t index, const xol::Displaced& point) {
  return shared_slot(task, index, point);
}

// Range: uncounted. Returns the counter to increment, or none when the trap is not a probepoint's, or kRetry and a
// frame to return from: the thread goes on at the probepoint, which was taken out, or hits it again.
UBP_RANGE(uncounted) Decision ubp_trap_decide(Context* uc) {
  Trap trap{TrapKind::kHit, g_process.table.find(uc->rip - 1), uc->rip - 1};
  if (trap.index == runtime::kNotFound) [[unlikely]]
    ubp_trap_find_other(uc, trap);
  if (trap.kind == TrapKind::kForeign) [[unlikely]]
    return {0, uc};
  if (trap.kind >= TrapKind::kCloned) [[unlikely]]
    return ubp_trap_begin(uc, trap.kind);
  TaskState* task = known_task(uc->rsp);
  if (task == nullptr) [[unlikely]]
    task = ubp_trap_find_task(uc);
  if (trap.kind != TrapKind::kHit) [[unlikely]]
    return ubp_trap_go_on(uc, trap, task, true);
  if (task == nullptr) [[unlikely]]
    return ubp_trap_without_state(uc, trap);
  if (Context* frame = adopt_stack(uc, task)) [[unlikely]]
    return {kRetry, frame};
  Continuation& next = begin_continuation(uc, trap, task, true);
  const Thread* const storage = thread_in_storage();
  std::uint64_t* const counter = counter_of(next, uc, storage);
  // In a detour, a consumer runs on the task's own stack: the next trap's frame must not come where the application's
  // are.
  const bool has_stack = uc->stack_base == g_process.tasks.stack_of(task->block);
  const bool may_count_alone = trap.copy != 0 && next.consumed == kNotConsumed && storage != nullptr &&
                               task == storage->state && has_stack && task->moved_origin == 0;
  if (may_count_alone && !sys::is_set(g_process.tasks.shares_tls)) {  // set by this thread before it shares
    task->fast = task->jumped;
  }
  return {address_of(counter), uc};
}

// The displaced instruction's work is done, but for the store: the thread goes on there.
[[gnu::always_inline]] inline void go_on_at(Continuation& next, std::uint64_t rip) {
  next.rip = rip;
  next.is_emulated = true;
}

[[gnu::always_inline]] inline void emulate(Continuation& next, Context* uc, const xol::Displaced& point) {
  const xol::Outcome outcome = xol::emulate(point, registers_of(uc));
  next.rsp = outcome.rsp;
  next.rcx = outcome.rcx;
  if (outcome.stores) {
    next.store_address = outcome.store_address;
    next.store_value = outcome.store_value;
  }
  go_on_at(next, outcome.rip);
}

[[gnu::always_inline]] inline void call_system(Continuation& next, Context* uc, const xol::Displaced& point) {
  if (const std::uint64_t rip = point.is_gate ? ubp_trap_gate(uc, point) : 0) {
    next.rsp = uc->rsp;
    next.rcx = uc->rcx;
    next.is_mask_current = false;  // all signals are blocked until rt_sigreturn sets the new mask
    go_on_at(next, rip);
    return;
  }
  next.rip = g_process.slots.permanent[point.area].base + point.system.permanent * xol::kSlotBytes;
  if (ubp_trap_makes_thread(uc)) next.rip += xol::kBirthOffset;
}

// Where the displaced instruction of a hit is carried out, once its consumers have run.
[[gnu::always_inline]] inline void displace_hit(Continuation& next, Context* uc) {
  const xol::Displaced& point = g_process.table.points[next.index];
  if (point.is_hook && !this_thread().in_runtime) [[unlikely]] {
    return go_on_at(
        next,
        g_process.upcalls.on_modules_changed);  // the linker has called an empty function: it calls ours instead
  }
  if (next.copy == 0) next.copy = g_process.detours.covered_copy(next.index, next.origin);
  if (next.copy != 0) [[unlikely]]
    return go_on_at(next, next.copy);
  const std::uint64_t count = next.task != nullptr ? next.task->counters[next.index] : 0;
  const bool is_hot = count >= kHot && (count & (count - 1)) == 0;  // again and again, ever more rarely
  if (is_hot && g_process.upcalls.promote != nullptr) [[unlikely]]
    ubp_trap_promote(uc);
  switch (point.route) {
    case decoder::Route::kEmulate: return emulate(next, uc, point);
    case decoder::Route::kSystem: return call_system(next, uc, point);
    default:
      next.rip = thread_slot(next.task, next.index, point);
      if (next.rip == 0) next.rip = ubp_trap_shared_slot(next.task, next.index, point);
  }
}

// Range: pending. The hit is counted; finds where its displaced instruction is carried out.
UBP_RANGE(pending) void ubp_trap_displace(Context* uc) {
  Continuation& next = continuation(uc);
  bool hits_again = false;
  if (next.kind == TrapKind::kHit && g_process.table.points[next.index].has_consumers && next.consumed != kConsumed)
      [[unlikely]] {
    ubp_trap_consume(uc);
    hits_again = next.task == nullptr;  // a child that a consumer has forked, and that can have no state
  }
  const bool is_hit = next.kind == TrapKind::kHit;  // and no consumer has ended the call
  next.store_address = address_of(&next.scratch);
  next.rsp = uc->rsp;
  next.rcx = uc->rcx;
  next.is_emulated = false;
  if (!is_hit) [[unlikely]] {
    go_on_at(next, next.kind == TrapKind::kAtBoundary ? next.copy : next.origin);
    if (next.task != nullptr) next.task->held.store(0, std::memory_order_release);  // pairs with is_held
  } else if (hits_again) [[unlikely]] {
    go_on_at(next, next.origin);
  } else {
    displace_hit(next, uc);
  }
  if (!next.is_mask_current) [[unlikely]]
    forget_faults(this_thread());
  next.returns_in_user_mode = next.is_mask_current && can_return_fast(uc) ? 1 : 0;
}

}  // extern "C"

}  // namespace ubp::trap
