// The trap path: everything between an int3 and the displaced instruction, and the start of application handlers.
//
// Context: signal handlers in application threads. Rules, enforced by tests/checks/link_check: no libc, no allocation,
// no lock, no C++ runtime; every function in a section of its own range (trap_entry.S explains the ranges); r15 is
// left alone (-ffixed-r15); general registers only.
#include "runtime/trap/clone.h"
#include "runtime/trap/consume.h"
#include "runtime/trap/death.h"
#include "runtime/trap/gate.h"
#include "runtime/trap/slots.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"
#include "xol/assert.h"
#include "xol/emulate.h"

#define UBP_RANGE(name) __attribute__((section(name), noinline, used))

namespace ubp::trap {

constinit Process g_process;
constinit AppHandlers g_handlers;
namespace {
constinit TaskState g_no_state{};  // of threads that have none
}
thread_local constinit Thread t_thread __attribute__((tls_model("initial-exec"))) = {.app_trap = {}, .mark = kThreadMark, .state = &g_no_state, .spilled = {}, .app_stack = {}, .is_away = false, .in_runtime = false, .clonings = {}};
constinit Thread g_nobody = {.app_trap = {}, .mark = 0, .state = &g_no_state, .spilled = {}, .app_stack = {}, .is_away = false, .in_runtime = false, .clonings = {}};
constinit std::uint64_t g_known_bases[kKnownBases]{};

extern "C" {
constinit std::atomic<bool> ubp_moves_fs{false};
}

namespace {

inline constexpr std::uint64_t kRetry = 1;

// The thread gets no state: out of memory, or more tasks than blocks. A probepoint that needs a slot of the thread's is taken out,
// so that the program goes on as if it had never been armed.
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
  if (!g_process.fast_return || (uc->eflags & (kTrapFlag | kNestedTask)) != 0 || (uc->stack_flags & kAutodisarm) != 0) return false;
  if (uc->cs != kUserCode || uc->ss != kUserStack) return false;
  if (uc->fpstate == nullptr || fp_word(uc, 464) != kFpMagic1) return false;
  if (has_shadow_stack()) return false;
  if (g_process.pkru_offset != 0) {
    constexpr std::uint32_t kPkruBit = 1u << 9, kXstateBv = 512;
    const std::uint32_t saved = (fp_word(uc, kXstateBv) & kPkruBit) != 0 ? fp_word(uc, g_process.pkru_offset) : 0;
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

// True when a frame's RIP may have to be translated: it lies in libubp or in slot memory.
[[gnu::always_inline]] inline bool is_in_ubp(std::uint64_t rip) {
  if (rip - g_process.text_low < g_process.text_high - g_process.text_low) return true;
  if (g_process.detours.chunk_of(rip) != nullptr) return true;
  for (std::uint32_t area = 0; area < g_process.area_count; ++area) {
    if (rip - g_process.areas[area].rx < g_process.layout.area_bytes) return true;
    if (rip - g_process.permanent[area].base < g_process.permanent[area].bytes) return true;
  }
  return false;
}

// Blocks every signal but SIGTRAP, whose handler is the runtime's; returns the mask that was. (A debugger's single step or
// watchpoint while SIGTRAP is blocked would make the kernel reset the handler.)
[[gnu::always_inline]] inline std::uint64_t block_all() { return sys::set_signal_mask(kAllSignals & ~kTrapBit); }

// A filter of the program's (SECCOMP_RET_TRAP) has raised SIGSYS for a system call of the runtime's own. The program's handler knows
// nothing of that, and the trap path, begun again behind it, would make the same call for ever: the call has failed, and the runtime does
// without.
[[gnu::always_inline]] inline bool refused_call(const siginfo_t* info, Context* uc) {
  constexpr int kSeccomp = 1;                        // SYS_SECCOMP, uapi/asm-generic/siginfo.h
  constexpr std::uint64_t kNoSuchCall = ~std::uint64_t{37};  // -ENOSYS
  if (info->si_signo != SIGSYS || info->si_code != kSeccomp) return false;
  const std::uint64_t call = reinterpret_cast<std::uint64_t>(info->si_addr);  // si_call_addr has its place
  if (call - g_process.text_low >= g_process.text_high - g_process.text_low && !this_thread().in_runtime) return false;
  uc->rax = kNoSuchCall;
  return true;
}

// Whether the system call at hand makes a task that runs beside this one in the same memory.
[[gnu::always_inline]] inline bool makes_thread(const Context* uc) {
  std::uint64_t flags = uc->rdi;
  if (uc->rax == SYS_clone3) {  // its argument's first word
    if (!sys::is_readable(uc->rdi)) return false;
    flags = *reinterpret_cast<const std::uint64_t*>(uc->rdi);
  } else if (uc->rax != SYS_clone) {
    return false;
  }
  return (flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM;
}

// It is one of the program's own: what libc's clone() is told (signals/interpose.cpp).
[[gnu::always_inline]] inline void share_memory(const Context* uc) {
  constexpr std::uint64_t kTls = 7;  // in clone_args
  const auto* const words = reinterpret_cast<const std::uint64_t*>(uc->rdi);
  const bool by_words = uc->rax == SYS_clone3;
  const std::uint64_t flags = by_words ? words[0] : uc->rdi;
  if ((flags & CLONE_SETTLS) == 0) g_process.shares_tls.store(true, std::memory_order_relaxed);  // this thread makes the task after this
  const bool brings_own = (flags & CLONE_SETTLS) != 0;
  const std::uint64_t own = !brings_own ? 0 : !by_words ? uc->r8 : sys::is_readable(uc->rdi + kTls * 8) ? words[kTls] : 0;
  const bool is_libcs = brings_own && is_marked(reinterpret_cast<const Thread*>(own + thread_offset()));  // libc has made it before
  if (is_libcs || g_process.before_sharing_tls == nullptr || !g_process.is_own_stack(address_of(uc))) return;
  const std::uint64_t before = block_all();
  if (brings_own) {
    leave_storage();
  } else {
    g_process.before_sharing_tls();
  }
  sys::set_signal_mask(before);
}

// A trap costs some 2 us, and a jump some 100 us to make.
constexpr std::uint64_t kHot = 256;

// Which counter to increment; for kRetry, the frame to return from.
struct Decision {
  std::uint64_t counter;
  Context* frame;
};

// A handler and the frame to call it with.
struct Prepared {
  std::uint64_t handler;
  Context* frame;
};

// Whether the trap is that of an int3 at this address, or of the one behind a detour's consumers.
[[gnu::always_inline]] inline bool is_breakpoint_of(Context* uc, void (*place)(std::uint64_t, TaskState*)) {
  return uc->info()->si_code == SI_KERNEL && uc->rip - 1 == reinterpret_cast<std::uint64_t>(place);
}
[[gnu::always_inline]] inline bool is_late(Context* uc) {
  if (uc->info()->si_code != SI_KERNEL) return false;
  const runtime::DetourInfo* const detour = g_process.detours.around(uc->rip - 1);
  return detour != nullptr && runtime::detour_position(*detour, uc->rip - 1).is(runtime::kDelivers);
}

// The consumers of a hit have run: calls the handler of the signal that was put off, as the kernel would have in the hit's own context.
// handler 0: there is none any more, and the thread goes on where it trapped.
[[gnu::always_inline]] inline Prepared deliver(Context* uc, TaskState* task) {
  const siginfo_t& info = task->deferred;
  const auto signal = static_cast<std::uint64_t>(info.si_signo) & 127;
  const std::uint64_t handler = g_handlers.handler[signal % 65].load(std::memory_order_acquire);  // pairs with sigaction
  if (handler <= 1) {
    give_up_deferred(task);  // the kernel knows what becomes of it
    return {0, uc};
  }
  KernelSigaction act{};
  sys::call4(SYS_rt_sigaction, static_cast<long>(signal), 0, reinterpret_cast<long>(&act), 8);
  block_all();
  copy_bytes(uc->info(), &info, sizeof info);
  __atomic_store_n(&task->has_deferred, kDelivering, __ATOMIC_RELAXED);  // its own, as below
  Context* const settled = settle(uc);
  __atomic_store_n(&task->has_deferred, 0, __ATOMIC_RELAXED);  // its own
  if (settled == nullptr) {
    uc->info()->si_signo = SIGSEGV;
    die(uc, SIGSEGV, true);
    return {0, uc};
  }
  expect_return(settled);
  const std::uint64_t own = (act.flags & SA_NODEFER) != 0 ? 0 : std::uint64_t{1} << (signal - 1);
  sys::set_signal_mask((settled->mask | act.mask | own) & ~kTrapBit);
  return {handler, settled};
}

}  // namespace

extern "C" {

// What the hit path does only now and then, out of its way: tests/checks/link_check looks at what is left, and finds no
// locked instruction in it. Each in the range of its caller.
UBP_RANGE("ubp_trap_a") TaskState* ubp_trap_find_task(const Context* uc) { return current_task(uc->rsp, uc->stack_base); }
UBP_RANGE("ubp_trap_a") bool ubp_trap_find_detoured(std::uint64_t rip, Detoured& found) { return find_detoured(rip, found); }
UBP_RANGE("ubp_trap_a") bool ubp_trap_give_birth(Context* uc) {
  const xol::Displaced* const made_by = born_at(uc->rip, uc->rax);
  if (made_by != nullptr) give_birth(uc, *made_by);
  return made_by != nullptr;
}
UBP_RANGE("ubp_trap_a") bool ubp_trap_take_out(std::uint32_t point, bool may_stay) {
  if (!may_stay && !take_out(point)) return false;
  const bool is_own = point < g_process.own_points;
  if (!is_own) g_process.taken_out->fetch_add(1, std::memory_order_relaxed);  // a statistic
  return true;
}
UBP_RANGE("ubp_trap_b") void ubp_trap_consume(Context* uc) { consume(uc); }
// A probepoint that still traps has been hit often: may it have a jump? With all signals blocked, so that none can abandon what
// goes on in there.
UBP_RANGE("ubp_trap_b") void ubp_trap_promote(Context* uc) {
  const Continuation& next = continuation(uc);
  // Its in_runtime will be set: whoever shares it would count nothing meanwhile.
  const bool is_alone = !sys::is_set(g_process.shares_tls);  // set by this thread before it shares
  const Thread* const thread = thread_in_storage();
  const bool can = is_alone && thread != nullptr && !thread->in_runtime && next.consumed != kMissed && g_process.is_own_stack(address_of(uc));
  if (!can) return;
#ifndef UBP_TEST_NO_SANDBOX  // tests/preload/environment_test.cpp: a program's filter is not minded
  if (sys::is_set(g_process.is_sandboxed)) return;  // set by this thread, or just now by another
#endif
  const std::uint64_t before = block_all();
  g_process.promote(static_cast<std::uint32_t>(next.index));
  sys::set_signal_mask(before);
}
UBP_RANGE("ubp_trap_b") bool ubp_trap_makes_thread(const Context* uc) { return counts_by_segment() && makes_thread(uc); }
// A program is about to be executed. Signals are blocked as in ubp_trap_promote; one that comes behind has it told again.
UBP_RANGE("ubp_trap_b") void ubp_trap_tell_exec(const Context* uc) {
  const bool can = g_process.before_exec != nullptr && !sys::is_set(g_process.is_sandboxed) && g_process.is_own_stack(address_of(uc));
  if (!can || this_thread().in_runtime) return;
  const std::uint64_t before = block_all();
  const Storage storage(false);
  if (storage.is_there()) g_process.before_exec(uc->rax == SYS_execve ? reinterpret_cast<const char*>(uc->rdi) : nullptr);
  sys::set_signal_mask(before);
}
// The program is about to set %fs. Signals are blocked as in ubp_trap_promote.
UBP_RANGE("ubp_trap_b") void ubp_trap_leave_storage() {
  const std::uint64_t before = block_all();
  leave_storage();
  sys::set_signal_mask(before);
}
// Where the thread goes on, when the system call is one for the gate; 0: it is not.
UBP_RANGE("ubp_trap_b") std::uint64_t ubp_trap_gate(Context* uc, const xol::Displaced& point) {
  if (uc->rax == SYS_exit_group) return leave_process(uc);
  if (makes_thread(uc)) share_memory(uc);
  if (uc->rax == SYS_arch_prctl && uc->rdi == static_cast<std::uint64_t>(kSetFs)) ubp_trap_leave_storage();
  if (uc->rax == SYS_execve || uc->rax == SYS_execveat) ubp_trap_tell_exec(uc);
  if (uc->rax == SYS_clone3) return pass_clone(uc, point);
  return pass_gate(uc, point) ? point.next() : 0;
}
// The thread has come back from the call that the gate has changed, or begins there. It goes on as one that leaves a pool's slot.
UBP_RANGE("ubp_trap_a") Decision ubp_trap_cloned(Context* uc, const xol::Displaced& point) {
  finish_clone(uc, point);
  Continuation& next = continuation(uc);
  next.origin = point.next();
  next.index = kLeftPool;
  next.task = nullptr;
  next.copy = 0;
  next.may_be_fast = 0;  // the mask is another
  return {reinterpret_cast<std::uint64_t>(&next.scratch), uc};
}
UBP_RANGE("ubp_trap_b") std::uint64_t ubp_trap_shared_slot(TaskState* task, std::uint32_t index, const xol::Displaced& point) {
  return shared_slot(task, index, point);
}

// Range: uncounted. Returns the counter to increment, or none when the trap is not a probepoint's, or kRetry and a frame
// to return from: the thread goes on at the probepoint, which was taken out, or hits it again.
UBP_RANGE("ubp_trap_a") Decision ubp_trap_decide(Context* uc) {
  std::uint64_t origin = uc->rip - 1;
  std::uint32_t index = g_process.table.find(origin);
  const std::uint64_t left_for = index == runtime::kNotFound ? left_pool(origin) : 0;
  Detoured detoured;
  if (index == runtime::kNotFound && left_for == 0) [[unlikely]] {
    if (const xol::Displaced* const gate = cloned_at(origin)) return ubp_trap_cloned(uc, *gate);
    if (ubp_trap_give_birth(uc)) return {kRetry, uc};
    if (!ubp_trap_find_detoured(uc->rip, detoured)) return {0, uc};
    origin = detoured.origin;
    index = detoured.point;
  }
  TaskState* task = known_task(uc->rsp);
  if (task == nullptr) [[unlikely]] task = ubp_trap_find_task(uc);
  // Not a hit: it was counted when the thread entered the slot or the detour; or it jumped into a window.
  const auto go_on = [&](std::uint64_t as) __attribute__((always_inline)) -> Decision {
    Continuation& next = continuation(uc);
    next.origin = left_for != 0 ? left_for : origin;
    next.index = as;
    next.task = task;
    next.copy = detoured.copy;
    next.may_be_fast = 1;
    return {reinterpret_cast<std::uint64_t>(&next.scratch), uc};
  };
  if (left_for != 0) return go_on(kLeftPool);
  if (index == runtime::kNotFound) [[unlikely]] return go_on(kAtBoundary);
  if (task == nullptr) [[unlikely]] {
    if (detoured.copy == 0) detoured.copy = g_process.detours.covered_copy(index, origin);  // its byte may be a jump's
    const bool needs_slot = detoured.copy == 0 && g_process.table.points[index].route == decoder::Route::kSlot;
    if (!ubp_trap_take_out(index, !needs_slot)) return {0, uc};
    if (detoured.copy != 0) return go_on(kAtBoundary);  // the jump stays: it is not so easily taken out
    continuation(uc).consumed = kConsumed;
    if (!needs_slot) return go_on(index);
    uc->rip = origin;
    return {kRetry, uc};
  }
  if (Context* frame = adopt_stack(uc, task)) [[unlikely]] return {kRetry, frame};
  Continuation& next = continuation(uc);
  next.origin = origin;
  next.index = index;
  next.task = task;
  next.copy = detoured.copy;
  next.may_be_fast = 1;
  const Thread* const storage = thread_in_storage();
  const Thread& thread = storage != nullptr ? *storage : this_thread();
  next.consumed = thread.in_runtime ? kConsumed : kNotConsumed;
  if (thread.in_runtime) [[unlikely]] return {reinterpret_cast<std::uint64_t>(&task->own_traps), uc};  // no hit
  std::uint64_t* counter = task->counters + index;
  if (is_consuming(task)) [[unlikely]] {
    if (is_below(task, uc->rsp)) {
      next.consumed = kMissed;
      counter += g_process.missed_offset;
    } else {
      end_consuming(task);  // a consumer was left by longjmp, which none may do
      give_up_deferred(task);
    }
  }
  if (storage == nullptr && next.consumed == kNotConsumed && g_process.table.points[index].has_consumers) [[unlikely]] {
    next.consumed = kMissed;
    counter += g_process.missed_offset;
  }
  if (task->moved_origin == origin && task->moved_rsp == uc->rsp) [[unlikely]] {  // the same hit: ubp_trap_resume
    task->moved_origin = 0;
    next.consumed = kConsumed;
    return {reinterpret_cast<std::uint64_t>(&next.scratch), uc};
  }
  // In a detour, a consumer runs on the task's own stack: the next trap's frame must not come where the application's are.
  const bool has_stack = uc->stack_base == g_process.stack_of(task->block);
  const bool may_count_alone = detoured.copy != 0 && next.consumed == kNotConsumed && storage != nullptr && task == storage->state && has_stack && task->moved_origin == 0;
  if (may_count_alone && !sys::is_set(g_process.shares_tls)) {  // set by this thread before it shares
    task->fast = task->optimised;
  }
  return {reinterpret_cast<std::uint64_t>(counter), uc};
}

// Range: pending. The hit is counted; finds where its displaced instruction is carried out.
UBP_RANGE("ubp_trap_b") void ubp_trap_displace(Context* uc) {
  Continuation& next = continuation(uc);
  if (next.index < kAtBoundary && g_process.table.points[next.index].has_consumers && next.consumed != kConsumed) [[unlikely]] {
    ubp_trap_consume(uc);
    if (next.task == nullptr) {  // a child that a consumer has forked, and that can have no state: it hits again
      next.store_address = address_of(&next.scratch);
      next.rip = next.origin;
      next.rsp = uc->rsp;
      next.rcx = uc->rcx;
      next.emulated = 1;
      next.fast = 0;
      return;
    }
  }
  next.store_address = address_of(&next.scratch);
  next.rsp = uc->rsp;
  next.rcx = uc->rcx;
  next.emulated = 0;
  if (next.index >= kAtBoundary) [[unlikely]] {
    next.rip = next.index == kAtBoundary ? next.copy : next.origin;
    next.emulated = 1;
    next.fast = next.may_be_fast != 0 && can_return_fast(uc) ? 1 : 0;
    if (next.task != nullptr) next.task->held.store(0, std::memory_order_release);  // pairs with is_held
    return;
  }
  const xol::Displaced& point = g_process.table.points[next.index];
  if (point.is_hook && !this_thread().in_runtime) [[unlikely]] {  // the linker has called an empty function: it calls ours instead
    next.rip = g_process.on_modules_changed;
    next.emulated = 1;
    next.fast = can_return_fast(uc) ? 1 : 0;
    return;
  }
  if (next.copy == 0) next.copy = g_process.detours.covered_copy(static_cast<std::uint32_t>(next.index), next.origin);
  if (next.copy != 0) [[unlikely]] {
    next.rip = next.copy;
    next.emulated = 1;
    next.fast = next.may_be_fast != 0 && can_return_fast(uc) ? 1 : 0;
    return;
  }
  const std::uint64_t count = next.task != nullptr ? next.task->counters[next.index] : 0;
  const bool is_hot = count >= kHot && (count & (count - 1)) == 0;  // again and again, ever more rarely
  if (is_hot && g_process.promote != nullptr) [[unlikely]] ubp_trap_promote(uc);
  switch (point.route) {
    case decoder::Route::kEmulate: {
      const xol::Outcome outcome = xol::emulate(point, registers_of(uc));
      next.rip = outcome.rip;
      next.rsp = outcome.rsp;
      next.rcx = outcome.rcx;
      if (outcome.stores) {
        next.store_address = outcome.store_address;
        next.store_value = outcome.store_value;
      }
      next.emulated = 1;
      break;
    }
    case decoder::Route::kSystem:
      next.rip = point.is_gate ? ubp_trap_gate(uc, point) : 0;
      if (next.rip != 0) {
        next.rsp = uc->rsp;
        next.rcx = uc->rcx;
        next.emulated = 1;
        next.may_be_fast = 0;  // all signals are blocked until rt_sigreturn sets the new mask
        break;
      }
      next.rip = g_process.permanent[point.area].base + point.system.permanent * xol::kSlotBytes;
      if (ubp_trap_makes_thread(uc)) next.rip += xol::kBirthOffset;
      break;
    default: {
      const auto index = static_cast<std::uint32_t>(next.index);
      next.rip = thread_slot(next.task, index, point);
      if (next.rip == 0) next.rip = ubp_trap_shared_slot(next.task, index, point);
      break;
    }
  }
  next.fast = next.may_be_fast != 0 && can_return_fast(uc) ? 1 : 0;
}

// Range: resuming. The handler of a signal, not of the instruction's own fault, has sent the thread elsewhere before the instruction of a
// hit that was counted. Maybe it comes back (asynchronous preemption), and hits again: the hit is no longer counted, or, where its
// consumers have run, remembered.
UBP_RANGE("ubp_trap_r") void ubp_trap_moved(Context* uc, TaskState* task, std::uint32_t index) {
  const std::uint64_t origin = uc->reserved[0];
  if (is_fault(uc->info())) return;
  const std::uint64_t before = block_all();  // once, whoever interrupts
  uc->reserved[0] = 0;
  if (g_process.table.points[index].has_consumers && uc->reserved[1] != kNotConsumed) {
    task->moved_rsp = uc->reserved[3];
    task->moved_origin = origin;
    if (this_thread().state == task) task->fast = nullptr;  // its detours leave the hit to ubp_trap_decide
  } else {
    std::uint64_t* const counter = task->counters + index;
    --*(*counter != 0 ? counter : counter + g_process.optimised_offset);
  }
  sys::set_signal_mask(before);
}

// Range: resuming. An application handler has returned. 1: from a translated frame, whose context still stands before
// the probepoint, whose counted hit goes on; 0: else, or the handler has moved it, and it is resumed as it is.
UBP_RANGE("ubp_trap_r") int ubp_trap_resume(Context* uc) {
  note_mask(uc);
  send_pending_trap();
  const std::uint64_t origin = uc->reserved[0];
  if (origin == 0) return 0;
  const std::uint32_t index = g_process.table.find(origin);
  TaskState* task = current_task(uc->rsp, uc->stack_base);
  if (index == runtime::kNotFound || task == nullptr) return 0;
  if (task->has_deferred != 0 && !is_consuming(task)) give_up_deferred(task);  // the signal of a fault came before its delivery
  if (uc->rip != origin) {
    ubp_trap_moved(uc, task, index);
    return 0;
  }
  Continuation& next = continuation(uc);
  next.origin = origin;
  next.index = index;
  next.task = task;
  next.copy = 0;
  next.may_be_fast = 0;  // the handler ran with a mask of its own
  next.consumed = uc->reserved[1];
  return 1;
}

// A system call that lends a mask (io_uring_enter, ppoll where libc's is not called) ends in EINTR, and the handler begins under that
// mask: SIGTRAP may be blocked. So it may where another handler was about to begin.
[[gnu::always_inline]] inline bool begins_in_lent_mask(const Context* uc) {
  constexpr auto kInterrupted = static_cast<std::uint64_t>(-4);  // -EINTR
  return uc->rax == kInterrupted || (uc->mask & kTrapBit) != 0;
}

// For a handler that is about to run: SIGTRAP is blocked for the application alone.
[[gnu::always_inline]] inline void keep_trap_unblocked() {
  std::uint64_t present = 0;
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&present), sizeof present);
  if ((present & kTrapBit) == 0) return;
  this_thread().app_trap.is_blocked = true;  // until the handler returns: note_mask
  sys::set_signal_mask(present & ~kTrapBit);
}

// Range: entering. Shows the handler the original context; handler 0: there is none, return from the frame.
UBP_RANGE("ubp_signal_s") Prepared ubp_signal_prepare(siginfo_t* info, Context* uc) {
  if (const xol::Displaced* const made_by = born_at(uc->rip, uc->rax)) [[unlikely]] give_birth(uc, *made_by);
  if (refused_call(info, uc) || defer(info, uc)) [[unlikely]] return {0, uc};
  const auto signal = static_cast<std::uint64_t>(info->si_signo);
  // One that was sent, in the gate, where SIGTRAP is blocked: it comes when the gate sets the thread's mask.
  if (signal == SIGSYS && info->si_code <= 0 && (uc->mask & kTrapBit) != 0) [[unlikely]] {
    uc->mask |= std::uint64_t{1} << (SIGSYS - 1);
    send_again(*info);
    return {0, uc};
  }
  if (signal == kSetxid && consuming_task(uc->rsp) != nullptr) [[unlikely]] {
    return {g_handlers.handler[kSetxid].load(std::memory_order_acquire), uc};  // pairs with sigaction
  }
  // The stack that a handler's frame belongs on is used up: the kernel kills by SIGSEGV then.
  const auto overflow = [](Context* frame) __attribute__((always_inline)) -> Prepared {
    while (range_of(frame->rip) == Range::kEntering) frame = interrupted_frame(frame);
    translate(frame, nullptr);
    frame->info()->si_signo = SIGSEGV;
    die(frame, SIGSEGV, true);
    return {0, frame};
  };
  if (range_of(uc->rip) == Range::kEntering && is_fault(info)) [[unlikely]] return overflow(uc);
  if (is_in_ubp(uc->rip) || g_process.is_own_stack(reinterpret_cast<std::uint64_t>(uc))) [[unlikely]] {
    const std::uint64_t before = block_all();
    Context* const settled = settle(uc);
    if (settled == nullptr) return overflow(uc);
    uc = settled;
    if (g_process.policy == xol::Policy::kSteal) [[unlikely]] {  // its context is in no slot any more
      if (TaskState* task = current_task(uc->rsp, uc->stack_base)) task->held.store(0, std::memory_order_release);  // pairs with is_held
    }
    sys::set_signal_mask(before);
  }
  const std::uint64_t handler = g_handlers.handler[signal % 65].load(std::memory_order_acquire);  // pairs with sigaction
  if (handler > 1) {
    const bool may_be_blocked = begins_in_lent_mask(uc);
    expect_return(uc);
    if (may_be_blocked) [[unlikely]] keep_trap_unblocked();
    return {handler, uc};
  }
  if (handler == 0 && ends_process(signal)) die(uc, signal, !is_fault(info));
  return {0, uc};
}

// Outside the ranges. A SIGTRAP that no probepoint caused: what the application's disposition makes of it. handler 0:
// nothing to call, return from the frame.
UBP_RANGE("ubp_trap_f") Prepared ubp_trap_foreign(siginfo_t* info, Context* uc) {
  // The kernel keeps one SIGTRAP pending: an int3 that is executed then has none of its own. No instruction begins behind the
  // first byte of a longer one: the int3 is executed again. (After one of a single byte, it cannot be told.)
  constexpr std::uint64_t kBreakpoint = 3;
  const std::uint32_t merged = info->si_code == SI_KERNEL || uc->trapno != kBreakpoint ? runtime::kNotFound : g_process.table.find(uc->rip - 1);
  if (merged != runtime::kNotFound && g_process.table.points[merged].length > 1) --uc->rip;
  const bool is_own = info->si_code == SI_QUEUE && reinterpret_cast<std::uint64_t>(info->si_value.sival_ptr) == UBP_ENTRY_MARK;
  if (is_own) return {0, uc};  // arm/threads.cpp asked, and no longer waits
  // A step inside a detour: the program sees one only where an instruction of its own has been executed.
  if (info->si_code == TRAP_TRACE && (is_before_copies(uc->rip) || consuming_task(uc->rsp) != nullptr)) return {0, uc};
  if (is_breakpoint_of(uc, &ubp_trap_deliver) || is_late(uc)) return deliver(uc, reinterpret_cast<TaskState*>(uc->rsi));
  const std::uint64_t before = block_all();
  if (is_in_ubp(uc->rip)) {
    Context* const settled = settle(uc);
    uc = settled != nullptr ? settled : uc;
  }
  const std::uint64_t handler = g_handlers.handler[SIGTRAP].load(std::memory_order_acquire);  // pairs with sigaction
  const bool is_fault = info->si_code > 0, is_breakpoint = info->si_code == SI_KERNEL;
  Thread& thread = this_thread();
  const bool is_blocked = thread.app_trap.is_blocked || thread.in_runtime || consuming_task(uc->rsp) != nullptr;
  if (is_blocked && !is_fault) {  // stays pending until it is unblocked: release_trap
    thread.app_trap.info = *info;
    thread.app_trap.is_pending = true;
    sys::set_signal_mask(before);
    return {0, uc};
  }
  if (handler > 1 && !is_blocked) {
    const std::uint64_t flags = g_handlers.trap_flags.load(std::memory_order_relaxed);  // set with the handler
    if ((flags & SA_RESETHAND) != 0) g_handlers.handler[SIGTRAP].store(0, std::memory_order_release);  // pairs with above
    sys::set_signal_mask(before | (g_handlers.trap_mask.load(std::memory_order_relaxed) & ~kTrapBit));  // as its flags
    if (const std::uint64_t target = frame_target(uc, SIGTRAP)) {
      Context* const moved = move_frame(uc, target);
      if (moved == nullptr) {
        die(uc, SIGSEGV, true);
        return {0, uc};
      }
      uc = moved;
    }
    expect_return(uc);
  } else if (handler == 0 || is_fault) {  // blocking and SIG_IGN stop kill(2), not a fault
    if (is_breakpoint) {
      const auto* after = reinterpret_cast<const std::uint8_t*>(uc->rip);
      uc->rip -= after[-1] == 0xcc ? 1 : 2;  // int3, or int $3: it traps again
    }
    die(uc, SIGTRAP, !is_breakpoint);
  }
  if (handler <= 1 || is_blocked) sys::set_signal_mask(before);
  return {handler > 1 && !is_blocked ? handler : 0, uc};
}

// Outside the ranges: called at load.
UBP_RANGE("ubp_trap_f") void ubp_trap_adopt_main(std::uint64_t stack_low, std::uint64_t stack_high) {
  TaskState* task = claim_state({sys::gettid(), true, true});
  if (task == nullptr) return;
  own_storage(task);
  enter_segment(task);
  task->verified_low = stack_low;
  task->verified_bytes = stack_high - stack_low;
}

// Outside the ranges: called at load. The linker may put the sections in any order, but puts them together.
UBP_RANGE("ubp_trap_f") void ubp_trap_text(std::uint64_t* low, std::uint64_t* high) {
  const char* const begins[] = {__start_ubp_trap_a, __start_ubp_trap_b, __start_ubp_trap_r, __start_ubp_trap_f, __start_ubp_trap_asm, __start_ubp_signal_s};
  const char* const ends[] = {__stop_ubp_trap_a, __stop_ubp_trap_b, __stop_ubp_trap_r, __stop_ubp_trap_f, __stop_ubp_trap_asm, __stop_ubp_signal_s};
  *low = ~std::uint64_t{0};
  *high = 0;
  for (int i = 0; i < 6; ++i) {
    *low = address_of(begins[i]) < *low ? address_of(begins[i]) : *low;
    *high = address_of(ends[i]) > *high ? address_of(ends[i]) : *high;
  }
}

// Outside the ranges: wherever the trap path finds an invariant broken.
[[noreturn]] UBP_RANGE("ubp_trap_f") void ubp_trap_broken(const char* text, std::uint64_t size) { end_broken(text, size); }

// Outside the ranges: called by the C interface.
UBP_RANGE("ubp_trap_f") bool ubp_trap_is_consuming(std::uint64_t rsp) { return consuming_task(rsp) != nullptr; }

// Outside the ranges: called by the interposed functions.
UBP_RANGE("ubp_trap_f") void ubp_trap_block(bool blocked) { block_trap(blocked); }

// Outside the ranges: called by the fork handler of a child, so that the child has its slot pages before it may
// forbid itself the system calls that make them.
UBP_RANGE("ubp_trap_f") bool ubp_trap_set_up_child() {
  Thread& thread = this_thread();
  thread.app_trap.is_pending = false;
  // The signal stack is a parent's, and another thread of the child may get that block: the application's own instead.
  std::uint64_t present[3] = {0, SS_DISABLE, 0};
  sys::call4(SYS_sigaltstack, 0, reinterpret_cast<long>(present));
  if (g_process.is_own_stack(present[0])) {
    const std::uint64_t flags = thread.app_stack.size == 0 ? SS_DISABLE : 0;
    const std::uint64_t wanted[3] = {thread.app_stack.base, flags, thread.app_stack.size};
    sys::call4(SYS_sigaltstack, reinterpret_cast<long>(wanted), 0);
  }
  if (!set_up_child(sys::gettid())) return false;
  // It may have counted in one instruction already, and never trap.
  if (counts_by_segment()) current_task(reinterpret_cast<std::uint64_t>(__builtin_frame_address(0)));
  return true;
}

}  // extern "C"

}  // namespace ubp::trap
