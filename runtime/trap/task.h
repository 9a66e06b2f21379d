// Which TaskState belongs to the task that has just trapped, and how one gets its own.
//
// Invariant 2: no two tasks ever refill the same bytes. A state is claimed by compare-and-swap of its tid, and a hit
// uses a state only after its owner was verified: by gettid, or because RSP lies where gettid verified it before. Where
// a task is known to run on another's TLS (clone(), runtime/signals/interpose.cpp), every hit asks gettid.
// States of dead tasks are taken over by later ones; their counters stay and go on counting.
//
// Interruption: an application handler may interrupt and abandon any step. A claim is finished or repeated by the same
// tid; setting up a forked child is repeatable from the start.
//
// Inline and free of libc: compiled into the trap path (the uncounted and resuming ranges).
#pragma once

#include "runtime/trap/segment.h"
#include "xol/sys.h"

namespace ubp::trap {

inline constexpr std::uint64_t kVerifyGap = 65536;  // how far outside the verified range still extends it

[[gnu::always_inline]] inline bool is_verified(const TaskState* task, std::uint64_t rsp) {
#ifdef UBP_TEST_NO_TASK_CHECK  // tests/preload/controls_test.cpp: whoever shares the TLS passes for the owner
  return task->tid.load(std::memory_order_relaxed) != 0;
#endif
  return rsp - task->verified_low < task->verified_bytes && !sys::is_set(g_process.tasks.shares_tls);
}

// Called by the owner only. Whoever interrupts sees a smaller range or the larger one, both true.
[[gnu::always_inline]] inline void verify_stack(TaskState* task, std::uint64_t rsp) {
  const std::uint64_t low = task->verified_low, high = low + task->verified_bytes;
  const bool is_near = task->verified_bytes != 0 && rsp + kVerifyGap >= low && rsp < high + kVerifyGap;
  const std::uint64_t new_low = is_near && low < rsp ? low : rsp;
  const std::uint64_t new_high = is_near && high > rsp ? high : rsp + 1;
  __atomic_store_n(&task->verified_bytes, 0, __ATOMIC_RELAXED);  // this task's alone: no ordering but the compiler's
  asm volatile("" ::: "memory");
  task->verified_low = new_low;
  asm volatile("" ::: "memory");
  task->verified_bytes = new_high - new_low;
}

// Counters of a forked child's own in place of its parent's, which it has found where they are shared: nothing counts
// there before this, since the states are wiped.
[[gnu::always_inline]] inline bool own_counters() {
  Tasks& tasks = g_process.tasks;
  if (!tasks.shares_counters) return true;
  const auto at = reinterpret_cast<long>(tasks.counters);
  const auto bytes = static_cast<long>(tasks.blocks * tasks.counter_bytes);
  constexpr long kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  if (sys::failed(sys::call6(SYS_mmap, at, bytes, PROT_NONE, kFlags, -1, 0)) ||
      sys::failed(sys::call4(SYS_madvise, at, bytes, MADV_WIPEONFORK)))
    return false;
  tasks.shares_counters = false;
  return true;
}

// A forked child (or one made by raw clone or _Fork) finds its states wiped: it needs slot pages of its own before it
// claims one. Returns false when the kernel denies the memory.
[[gnu::always_inline]] inline bool set_up_child(std::uint32_t tid) {
  std::atomic<std::uint32_t>& word = *g_process.tasks.fork_state;
  const std::uint32_t mine = tid << 1;
  for (;;) {
    std::uint32_t seen = word.load(std::memory_order_acquire);  // pairs with the release store of kReady below
    if (seen == kReady) return true;
    if (seen != 0 && seen != mine) {  // another thread of the child is at it
      sys::call4(SYS_sched_yield, 0);
      continue;
    }
    if (seen == 0 && !sys::exchange_if(word, seen, mine, __ATOMIC_ACQUIRE)) continue;
#ifndef UBP_TEST_SHARED_AFTER_FORK  // tests/preload/controls_test.cpp: the child keeps its parent's pages
    for (std::uint32_t area = 0; area < g_process.slots.area_count; ++area) {
      const xol::Area& views = g_process.slots.areas[area];
      const xol::AreaLayout& layout = g_process.slots.layout;
      if (!xol::map_views(views.rx, views.rw, layout.area_bytes) ||
          (layout.shared_bytes != 0 && !xol::open_pages(views, layout.shared_offset, layout.shared_bytes))) {
        word.store(0, std::memory_order_relaxed);  // nothing was published: the next hit tries again
        return false;
      }
    }
    if (!own_counters()) {
      word.store(0, std::memory_order_relaxed);  // as above
      return false;
    }
#endif
    g_process.tasks.pid = sys::getpid();
    word.store(kReady, std::memory_order_release);  // pairs with the acquire load above
    return true;
  }
}

// Whether the owner of a state is gone for certain. For those who may ask: a guest may live in another pid namespace.
[[gnu::always_inline]] inline bool is_dead(std::uint32_t key) {
  constexpr long kNoSuchProcess = -3;  // -ESRCH
  if (key == 0 || (key & kOtherNamespace) != 0) return false;
  // tkill, not tgkill: a guest has a process id of its own.
  return sys::call4(SYS_tkill, static_cast<long>(key & ~kGuest), 0) == kNoSuchProcess;
}

// Makes the pages of a block accessible: its state, counters and stack, its slots in both views of every area.
// Idempotent.
[[gnu::always_inline]] inline bool open_block(std::uint32_t block) {
  const auto open = [](std::uint64_t address, std::uint64_t bytes) __attribute__((always_inline)) {
    const std::uint64_t low = address & ~(xol::kPageBytes - 1);
    const std::uint64_t high = (address + bytes + xol::kPageBytes - 1) & ~(xol::kPageBytes - 1);
    return !sys::failed(
        sys::call4(SYS_mprotect, static_cast<long>(low), static_cast<long>(high - low), PROT_READ | PROT_WRITE));
  };
  bool done = open(reinterpret_cast<std::uint64_t>(g_process.tasks.state(block)), g_process.tasks.state_bytes);
  done &= open(reinterpret_cast<std::uint64_t>(g_process.tasks.counters) + block * g_process.tasks.counter_bytes,
               g_process.tasks.counter_bytes);
  done &= open(g_process.tasks.stack_of(block), g_process.tasks.own_stack_bytes - xol::kPageBytes);
  for (std::uint32_t area = 0; area < g_process.slots.area_count; ++area) {
    const std::uint64_t offset = block * g_process.slots.layout.block_bytes;
    done &= xol::open_pages(g_process.slots.areas[area], offset, g_process.slots.layout.block_bytes);
  }
  return done;
}

inline constexpr std::uint32_t kAnyBlock = ~0U;

// What an earlier owner has left, or a thread that had the same number: nothing of it is the new one's.
[[gnu::always_inline]] inline void start_over(TaskState* task) {
  task->stack_tries = 0;
  task->call_stack = 0;
  task->goroutine = 0;
  task->moved_origin = 0;
  task->fast = nullptr;
}

// Finds the state whose owner is `who`, or claims one: a dead task's, else a fresh one. nullptr: all are in use, or
// memory is denied. wanted: where nothing is claimed yet, this block, in which a forked child may have counted already.
[[gnu::always_inline]] inline TaskState* claim_state(Identity who, std::uint32_t wanted = kAnyBlock) {
  const std::uint32_t limit = g_process.tasks.blocks;
  std::uint32_t used = g_process.tasks.high_water->load(std::memory_order_acquire);  // pairs with the exchange below
  if (TaskState* const task = find_state(who.key, used)) return task;
  g_process.tasks.threads_seen->fetch_add(1, std::memory_order_relaxed);  // a statistic
  const auto take_over = [&](std::uint32_t block) __attribute__((always_inline))->TaskState* {
    TaskState* task = g_process.tasks.state(block);
    std::uint32_t owner = task->tid.load(std::memory_order_acquire);  // pairs with the owner's stores
    if (!is_dead(owner) || !sys::exchange_if(task->tid, owner, who.key, __ATOMIC_ACQ_REL)) return nullptr;
    task->verified_bytes = 0;
    task->signal_stack = 0;
    start_over(task);
    __atomic_store_n(&task->has_deferred, 0, __ATOMIC_RELAXED);  // the new owner's, as is the next one
    task->consumer.store(0, std::memory_order_relaxed);
    return task;
  };
  // Look at a few earlier owners, a different few for every task: the number of states then stays near the largest
  // number of tasks alive at once, at a bounded price per task.
  constexpr std::uint32_t kLooks = 8;
  for (std::uint32_t look = 0; who.may_ask && look < kLooks && look < used; ++look) {
    if (TaskState* task = take_over((who.key * kLooks + look) % used)) return task;
  }
  while (used < limit) {
    const std::uint32_t block = used == 0 && wanted < limit ? wanted : used;
    if (!open_block(block)) return nullptr;
    if (sys::exchange_if(*g_process.tasks.high_water, used, block + 1, __ATOMIC_ACQ_REL)) {
      TaskState* task = g_process.tasks.state(block);
      task->block = block;
      task->own.state = task;
      task->counters = g_process.tasks.counters_of(block);
      task->jumped = task->counters + g_process.tasks.offset_of(Counter::kJumped);
      task->consumer_stack = g_process.tasks.stack_end(block);
      auto* const save = reinterpret_cast<runtime::DetourSave*>(task->consumer_stack);
      save->context[1] = task->consumer_stack;
      save->context[runtime::kContextTask] = reinterpret_cast<std::uint64_t>(task);
      save->counters = reinterpret_cast<std::uint64_t>(task->jumped);
      task->tid.store(who.key, std::memory_order_release);  // pairs with take_over
      return task;
    }
  }
  for (std::uint32_t block = 0; who.may_ask && block < limit; ++block) {  // all claimed: any dead one will do
    if (TaskState* task = take_over(block)) return task;
  }
  return nullptr;
}

// The state of the task that trapped with this stack pointer; nullptr when it can have none.
//
// A thread's state (Thread::state) belongs to the thread whose TLS it is. A guest never stores it and never verifies a
// stack for its owner; it looks its own state up at every hit. A guest whose maker waits for it (vfork, posix_spawn)
// needs none, and passes for its maker: alone of all guests it inherits the maker's signal stack.
//
// known_task: without asking the kernel; nullptr when that does not do. current_task: for certain. signal_stack: where
// the kernel puts the task's signal frames; 0: on no stack of their own, or it is not known.
[[gnu::always_inline]] inline TaskState* known_task(std::uint64_t rsp) {
  TaskState* const task = this_thread().state;
  return is_state(task) && is_verified(task, rsp) ? task : nullptr;
}

// From here on what is kept for the running thread, whose state this is, is found by it.
[[gnu::always_inline]] inline void own_storage(TaskState* task) {
  Thread* const thread = thread_in_storage();
  task->storage = thread;
  if (thread == nullptr) return;
  thread->state = task;
  forget_faults(*thread);  // a forked child's stack is its parent's: reads.h
}

[[gnu::always_inline]] inline TaskState* current_task(std::uint64_t rsp, std::uint64_t signal_stack = 0) {
  if (TaskState* const known = known_task(rsp)) return known;
  TaskState* task = this_thread().state;
  const std::uint32_t tid = sys::gettid();
  if (!set_up_child(tid)) return nullptr;
  const bool has_state = is_state(task);
  if (has_state && task->tid.load(std::memory_order_relaxed) == tid) {  // relaxed: see claim_state
    verify_stack(task, rsp);
    if (signal_stack != 0) task->signal_stack = signal_stack;
    return task;
  }
  const bool is_orphan =
      !has_state || task->tid.load(std::memory_order_relaxed) == 0;  // fresh TLS, or a forked child's
  const Identity who = identify(tid);
  // Source: kernel/fork.c, sas_ss_reset.
  if (!who.is_member && !is_orphan && signal_stack != 0 && signal_stack == task->signal_stack) return task;
  const bool may_have_counted = has_state && is_orphan && who.is_member && counts_by_segment();
  task = claim_state(who, may_have_counted ? block_of(task) : kAnyBlock);
  if (task == nullptr) return nullptr;
  if (who.is_member && is_orphan) {
    start_over(task);
    own_storage(task);
    verify_stack(task, rsp);
    task->signal_stack = signal_stack;
  }
  enter_segment(task);
  return task;
}

// A SIGTRAP of the application's own that came while it was not to be delivered, and may be now.
[[gnu::always_inline]] inline void send_pending_trap() {
  AppTrap& trap = this_thread().app_trap;
  if (!trap.is_pending || trap.is_blocked) return;
  trap.is_pending = false;
  sys::call4(SYS_rt_tgsigqueueinfo, sys::getpid(), sys::gettid(), SIGTRAP, reinterpret_cast<long>(&trap.info));
}

}  // namespace ubp::trap
