// The trap path's state, and what the rest of the runtime calls of it. Outside the ranges.
//
// Context: signal handlers in application threads. Rules, enforced by tests/checks/link_check: no libc, no allocation,
// no lock, no C++ runtime; every function in the section of its range (ranges.h); r15 is left alone (-ffixed-r15);
// general registers only.
#include "runtime/trap/gate.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"
#include "xol/assert.h"

namespace ubp::trap {

constinit Process g_process;
constinit AppHandlers g_handlers;
namespace {
constinit TaskState g_no_state{};  // of threads that have none
constexpr Thread without_state(std::uint64_t mark) {
  Thread thread{};
  thread.mark = mark;
  thread.state = &g_no_state;
  return thread;
}
}  // namespace
thread_local constinit Thread t_thread __attribute__((tls_model("initial-exec"))) = without_state(kThreadMark);
constinit Thread g_nobody = without_state(0);
constinit std::uint64_t g_known_bases[kKnownBases]{};

extern "C" {
constinit std::atomic<bool> ubp_moves_fs{false};
}

extern "C" {

// Outside the ranges: called at load.
UBP_RANGE(outside) void ubp_trap_adopt_main(std::uint64_t stack_low, std::uint64_t stack_high) {
  TaskState* task = claim_state({sys::gettid(), true, true});
  if (task == nullptr) return;
  own_storage(task);
  enter_segment(task);
  task->verified_low = stack_low;
  task->verified_bytes = stack_high - stack_low;
}

// Outside the ranges: called at load. The linker may put the sections in any order, but puts them together.
UBP_RANGE(outside) void ubp_trap_text(std::uint64_t* low, std::uint64_t* high) {
  const char* const begins[] = {__start_ubp_trap_uncounted, __start_ubp_trap_pending, __start_ubp_trap_resuming,
                                __start_ubp_trap_outside,   __start_ubp_trap_asm,     __start_ubp_trap_entering};
  const char* const ends[] = {__stop_ubp_trap_uncounted, __stop_ubp_trap_pending, __stop_ubp_trap_resuming,
                              __stop_ubp_trap_outside,   __stop_ubp_trap_asm,     __stop_ubp_trap_entering};
  *low = ~std::uint64_t{0};
  *high = 0;
  for (int i = 0; i < 6; ++i) {
    *low = address_of(begins[i]) < *low ? address_of(begins[i]) : *low;
    *high = address_of(ends[i]) > *high ? address_of(ends[i]) : *high;
  }
}

// Outside the ranges: wherever the trap path finds an invariant broken.
[[noreturn]] UBP_RANGE(outside) void ubp_trap_broken(const char* text, std::uint64_t size) { end_broken(text, size); }

// Outside the ranges: called by the C interface.
UBP_RANGE(outside) bool ubp_trap_is_consuming(std::uint64_t rsp) { return consuming_task(rsp) != nullptr; }

// Outside the ranges: called by the interposed functions.
UBP_RANGE(outside) void ubp_trap_block(bool blocked) { block_trap(blocked); }

// Outside the ranges: called by what runs at hits. No guest gives an answer that its maker would find in their storage.
UBP_RANGE(outside) bool ubp_trap_look_at_faults() {
#ifdef UBP_TEST_NO_FAULT_LOOK  // tests/preload/reads_test.cpp: no mask is minded
  return true;
#endif
  if (!g_process.has_gate || g_process.misses_gate || has_shadow_stack() || !sys::is_process(g_process.tasks.pid))
    return false;
  std::uint64_t mask = 0, stack[3] = {0, SS_DISABLE, 0};
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&mask), sizeof mask);
  sys::call4(SYS_sigaltstack, 0, reinterpret_cast<long>(stack));
  const bool is_own = g_process.tasks.is_own_stack(stack[0]) && (stack[1] & (SS_DISABLE | kAutodisarm)) == 0;
  const bool are_caught = (mask & kReadSignals) == 0 && is_own;
  __atomic_store_n(&t_thread.faults, are_caught ? Faults::kCaught : Faults::kNotCaught, __ATOMIC_RELAXED);  // its own
  return are_caught;
}

// Outside the ranges, as above. Source: msync(2), which fails where a part is not mapped, and else does nothing.
UBP_RANGE(outside) bool ubp_trap_stack_reaches(std::uint64_t address) {
  StackGap& gap = g_process.stack_gap;
  const std::uint64_t page = address & ~(xol::kPageBytes - 1), high = gap.high.load(std::memory_order_relaxed);
  if (page >= high) return true;
  const long flags = MS_ASYNC;
  if (sys::failed(sys::call4(SYS_msync, static_cast<long>(page), static_cast<long>(high - page), flags))) return false;
  if (page < high) gap.high.store(page, std::memory_order_relaxed);  // a stack does not shrink
  return true;
}

// Outside the ranges: called by the fork handler of a child, so that the child has its slot pages before it may
// forbid itself the system calls that make them.
UBP_RANGE(outside) bool ubp_trap_set_up_child() {
  Thread& thread = this_thread();
  thread.app_trap.is_pending = false;
  forget_faults(thread);
  // The signal stack is a parent's, and another thread of the child may get that block: the application's own instead.
  std::uint64_t present[3] = {0, SS_DISABLE, 0};
  sys::call4(SYS_sigaltstack, 0, reinterpret_cast<long>(present));
  if (g_process.tasks.is_own_stack(present[0])) {
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
