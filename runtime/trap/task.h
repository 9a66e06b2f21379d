// Which TaskState belongs to the task that has just trapped, and how one gets its own.
//
// Invariant 2: no two tasks ever refill the same bytes. A state is claimed by compare-and-swap of its tid, and a hit
// uses a state only after its owner was verified: by gettid, or because RSP lies where gettid verified it before.
// States of dead tasks are taken over by later ones; their counters stay and go on counting.
//
// Interruption: an application handler may interrupt and abandon any step. A claim is finished or repeated by the same
// tid; setting up a forked child is repeatable from the start.
//
// Inline and free of libc: compiled into the trap path (the uncounted and resuming ranges).
#pragma once

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::trap {

extern thread_local constinit TaskState* t_state __attribute__((tls_model("initial-exec")));

inline constexpr std::uint64_t kVerifyGap = 4096;  // how far outside the verified range still extends it

[[gnu::always_inline]] inline bool is_verified(const TaskState* task, std::uint64_t rsp) {
#ifdef UBP_TEST_NO_TASK_CHECK  // tests/preload/controls_test.cpp: whoever shares the TLS passes for the owner
  return task->tid.load(std::memory_order_relaxed) != 0;
#endif
  return rsp - task->verified_low < task->verified_bytes;
}

[[gnu::always_inline]] inline void verify_stack(TaskState* task, std::uint64_t rsp) {
  const std::uint64_t low = task->verified_low, high = low + task->verified_bytes;
  if (task->verified_bytes != 0 && rsp + kVerifyGap >= low && rsp < low) {
    task->verified_low = rsp;
    task->verified_bytes = high - rsp;
  } else if (task->verified_bytes != 0 && rsp >= high && rsp - high < kVerifyGap) {
    task->verified_bytes = rsp - low + 1;
  } else {
    task->verified_bytes = 0;
    task->verified_low = rsp;
    task->verified_bytes = 1;
  }
}

// A forked child (or one made by raw clone or _Fork) finds its states wiped: it needs slot pages of its own before it
// claims one. Returns false when the kernel denies the memory.
[[gnu::always_inline]] inline bool set_up_child(std::uint32_t tid) {
  std::atomic<std::uint32_t>& word = *g_process.fork_state;
  const std::uint32_t mine = tid << 1;
  for (;;) {
    std::uint32_t seen = word.load(std::memory_order_acquire);  // pairs with the release store of kReady below
    if (seen == kReady) return true;
    if (seen != 0 && seen != mine) {  // another thread of the child is at it
      sys::call4(SYS_sched_yield, 0);
      continue;
    }
    if (seen == 0 && !word.compare_exchange_strong(seen, mine, std::memory_order_acquire)) continue;
#ifndef UBP_TEST_SHARED_AFTER_FORK  // tests/preload/controls_test.cpp: the child keeps its parent's pages
    for (std::uint32_t area = 0; area < g_process.area_count; ++area) {
      const xol::Area& views = g_process.areas[area];
      if (!xol::map_views(views.rx, views.rw, g_process.layout.area_bytes)) {
        word.store(0, std::memory_order_relaxed);  // nothing was published: the next hit tries again
        return false;
      }
    }
#endif
    g_process.pid = sys::getpid();
    word.store(kReady, std::memory_order_release);  // pairs with the acquire load above
    return true;
  }
}

[[gnu::always_inline]] inline bool is_dead(std::uint32_t tid) {
  constexpr long kNoSuchProcess = -3;  // -ESRCH
  // tkill, not tgkill: a task made by clone(CLONE_VM) or vfork has a process id of its own.
  return sys::call4(SYS_tkill, static_cast<long>(tid), 0) == kNoSuchProcess;
}

[[gnu::always_inline]] inline TaskState* open_state(std::uint32_t block) {
  TaskState* task = g_process.state(block);
  task->block = block;
  task->counters = reinterpret_cast<std::uint64_t*>(g_process.counters + block * g_process.counter_bytes);
  return task;
}

// Finds the state whose owner is `tid`, or claims one: a dead task's, else a fresh one. nullptr: all are in use.
[[gnu::always_inline]] inline TaskState* claim_state(std::uint32_t tid) {
  const std::uint32_t limit = g_process.layout.blocks;
  const std::uint32_t used = g_process.high_water->load(std::memory_order_acquire);
  for (std::uint32_t block = 0; block < used && block < limit; ++block) {
    // Relaxed: only the task itself ever stores its own tid, so it sees its own claim.
    if (g_process.state(block)->tid.load(std::memory_order_relaxed) == tid) return open_state(block);
  }
  g_process.threads_seen->fetch_add(1, std::memory_order_relaxed);  // a statistic
  // Look at a few earlier owners, a different few for every task: the number of states then stays near the largest
  // number of tasks alive at once, at a bounded price per task.
  constexpr std::uint32_t kLooks = 8;
  for (std::uint32_t look = 0; look < kLooks && look < used; ++look) {
    TaskState* task = g_process.state((tid * kLooks + look) % used);
    std::uint32_t owner = task->tid.load(std::memory_order_acquire);
    if (owner != 0 && is_dead(owner) &&
        task->tid.compare_exchange_strong(owner, tid, std::memory_order_acq_rel)) {  // one claimant wins
      task->verified_bytes = 0;
      return open_state(static_cast<std::uint32_t>((reinterpret_cast<std::uint8_t*>(task) - g_process.states) /
                                                   g_process.state_bytes));
    }
  }
  const std::uint32_t fresh = g_process.high_water->fetch_add(1, std::memory_order_acq_rel);
  if (fresh < limit) {
    TaskState* task = open_state(fresh);
    task->tid.store(tid, std::memory_order_release);  // pairs with the acquire load of the owner above
    return task;
  }
  g_process.high_water->store(limit, std::memory_order_relaxed);
  for (std::uint32_t block = 0; block < limit; ++block) {  // all claimed: any dead one will do
    TaskState* task = g_process.state(block);
    std::uint32_t owner = task->tid.load(std::memory_order_acquire);
    if (is_dead(owner) && task->tid.compare_exchange_strong(owner, tid, std::memory_order_acq_rel)) {
      task->verified_bytes = 0;
      return open_state(block);
    }
  }
  return nullptr;
}

// The state of the task that trapped with this stack pointer; nullptr when it can have none.
[[gnu::always_inline]] inline TaskState* current_task(std::uint64_t rsp) {
  TaskState* task = t_state;
  if (task != nullptr && is_verified(task, rsp)) [[likely]] return task;
  const std::uint32_t tid = sys::gettid();
  if (!set_up_child(tid)) return nullptr;
  if (task == nullptr || task->tid.load(std::memory_order_relaxed) != tid) {  // relaxed: see claim_state
    task = claim_state(tid);
    if (task == nullptr) return nullptr;
    t_state = task;
  }
  verify_stack(task, rsp);
  return task;
}

}  // namespace ubp::trap
