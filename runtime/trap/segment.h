// Counting in one instruction: where a task's %gs leads.
//
// A detour that counts by `incq %gs:counter` (runtime/table/detour.h) needs each task's %gs base to lead to counters of
// its own, from before it runs probed code until it is gone. x86-64 Linux and libc leave %gs to the program. The
// displacement is such that a task whose base is 0, as the kernel makes a process, counts in a mapping that nobody
// reads (Segment::unread): so does a task that is inside the runtime (SlowLane), and one for which there were
// no counters.
//
//   a thread is made     its %gs base is its maker's: it traps before it returns from the system call
//                        (xol/slot_image.h), and gets its own
//   fork                 the child goes on in its parent's block, which it finds wiped, and claims that one (task.h)
//   vfork, posix_spawn   the child counts for its parent, which waits
//   the program sets it  the interposed arch_prctl() and syscall() see it first: the process leaves this way of
//                        counting, for good
//
// It is left too where consumers come (what they hit is to be missed), before a system call filter where setting the
// base takes a system call, and never entered where there are other threads already.
//
// Inline and free of libc: compiled into the trap path. Context: any. Async-signal-safe: yes. Source: arch_prctl(2),
// Documentation/ arch/x86/x86_64/fsgs.rst; SDM volume 2, WRGSBASE.
#pragma once

#include "runtime/trap/tls.h"

namespace ubp::trap {

inline constexpr long kSetGs = 0x1001, kGetGs = 0x1004;  // asm/prctl.h: ARCH_SET_GS, ARCH_GET_GS

[[gnu::always_inline]] inline void set_gs_base(std::uint64_t base) {
  if (g_process.processor.has_fsgsbase) {
    asm volatile("wrgsbase %0" : : "r"(base) : "memory");
  } else {
    sys::call4(SYS_arch_prctl, kSetGs, static_cast<long>(base));
  }
}

[[gnu::always_inline]] inline bool counts_by_segment() {
  return __atomic_load_n(&g_process.segment.is_used,
                         __ATOMIC_ACQUIRE);  // pairs with Probepoints, which has made the mapping
}

// A program may have put something else where the TLS was (wrfsbase): only a state's address is followed.
[[gnu::always_inline]] inline bool is_state(const TaskState* task) {
  const std::uint64_t offset =
      reinterpret_cast<std::uint64_t>(task) - reinterpret_cast<std::uint64_t>(g_process.tasks.states);
  return offset < g_process.tasks.blocks * g_process.tasks.state_bytes && offset % g_process.tasks.state_bytes == 0;
}

// The block of a state, also of one that a forked child finds wiped.
[[gnu::always_inline]] inline std::uint32_t block_of(const TaskState* task) {
  return static_cast<std::uint32_t>(
      (reinterpret_cast<std::uint64_t>(task) - reinterpret_cast<std::uint64_t>(g_process.tasks.states)) /
      g_process.tasks.state_bytes);
}

// Lets the running task, whose state this is, count in its own block.
[[gnu::always_inline]] inline void enter_segment(const TaskState* task) {
  if (!counts_by_segment() || this_thread().is_away || !is_state(task)) return;
#ifdef UBP_TEST_NO_BIRTH  // tests/preload/segment_test.cpp: a thread counts where its maker does
  if (block_of(task) != 0) return;
#endif
  set_gs_base(reinterpret_cast<std::uint64_t>(g_process.tasks.counters_of(block_of(task))) - g_process.segment.unread);
}

// In libc's storage only.
//
// Keeps the thread's detours from counting by themselves, as long as it lives: the breakpoint tier sees every hit, but
// for those of detours that count in one instruction, which are counted nowhere. Nests.
class SlowLane {
 public:
  [[gnu::always_inline]] SlowLane() : task_(t_thread.state), fast_(task_->fast), was_away_(t_thread.is_away) {
    if (fast_ != nullptr) task_->fast = nullptr;  // what threads without a state share is never written
    t_thread.is_away = true;
    if (!was_away_ && counts_by_segment() && is_state(task_)) set_gs_base(0);
  }
  [[gnu::always_inline]] ~SlowLane() { leave(); }
  [[gnu::always_inline]] void leave() {
    if (fast_ != nullptr && task_->tid.load(std::memory_order_relaxed) != 0)
      task_->fast = fast_;  // its own; 0: a forked child, wiped
    if (was_away_) return;
    was_away_ = true;
    t_thread.is_away = false;
    enter_segment(t_thread.state);
  }
  SlowLane(const SlowLane&) = delete;
  SlowLane& operator=(const SlowLane&) = delete;

 private:
  TaskState* task_;
  std::uint64_t* fast_;
  bool was_away_;
};

// While it lives, the thread runs libubp's own code: what that code calls is no hit.
class InRuntime {
 public:
  InRuntime() : was_(t_thread.in_runtime) { t_thread.in_runtime = true; }
  ~InRuntime() { t_thread.in_runtime = was_; }
  bool was() const { return was_; }
  InRuntime(const InRuntime&) = delete;
  InRuntime& operator=(const InRuntime&) = delete;

 private:
  SlowLane slow_lane_;
  bool was_;
};

}  // namespace ubp::trap
