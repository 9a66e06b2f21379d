// Which slot a displaced instruction runs in: the policies (xol/shared_slots.h, xol/slot_cache.h) at work.
//
// Inline and free of libc: compiled into the trap path (the pending range). Everything can be abandoned and done again.
#pragma once

#include "runtime/trap/task.h"
#include "xol/assert.h"

namespace ubp::trap {

inline constexpr std::uint8_t kEarned = 4;  // refills after which a probepoint gets a slot of its own (policy adaptive)

// The thread's own slot, refilled if need be.
[[gnu::always_inline]] inline std::uint64_t own_slot(TaskState* task, std::uint32_t index,
                                                     const xol::Displaced& point) {
  xol::SlotCache cache = g_process.slots.cache(task, point.area);
  const xol::Area& area = g_process.slots.areas[point.area];
  const std::uint64_t block = task->block * g_process.slots.layout.block_bytes;
  const xol::SlotCache::Claim claim = cache.claim(index);
  UBP_ASSERT(claim.slot < g_process.slots.geometry.slots && task->block < g_process.tasks.blocks);
  const std::uint64_t offset = block + claim.slot * xol::kSlotBytes;
  xol::write_slot(reinterpret_cast<std::uint8_t*>(area.rw + offset), xol::SlotAddress{area.rx + offset}, point);
  cache.publish(claim.slot, index);
  ++task->refills;
  task->evictions += claim.evicted ? 1 : 0;
  return area.rx + offset;
}

// The address of the probepoint's write-once slot; gives it one. 0: the budget is spent.
[[gnu::always_inline]] inline std::uint64_t give_once(TaskState* task, std::uint32_t index,
                                                      const xol::Displaced& point) {
  const xol::SharedSlots& shared = g_process.slots.shared[point.area];
  const xol::Area& area = g_process.slots.areas[point.area];
  const std::uint64_t base = g_process.slots.layout.shared_offset;
  const std::uint32_t slot = shared.hand_out();
  if (slot == xol::kNoSlot) return 0;
  const std::uint64_t offset = base + slot * xol::kSlotBytes;
  xol::write_once_slot(reinterpret_cast<std::uint8_t*>(area.rw + offset), xol::SlotAddress{area.rx + offset}, point);
  ++task->refills;
  return area.rx + base + shared.publish(index, slot) * xol::kSlotBytes;
}

// Whether some task may be in the pool's slot.
[[gnu::always_inline]] inline bool is_held(std::uint64_t mark) {
  const std::uint32_t used = g_process.tasks.high_water->load(std::memory_order_acquire);  // pairs with claims
  for (std::uint32_t block = 0; block < used && block < g_process.tasks.blocks; ++block) {
    const TaskState* task = g_process.tasks.state(block);
    // Sequentially consistent, as the store that enters: one of the two sees the other.
    if (task->held.load(std::memory_order_seq_cst) == mark && !is_dead(task->tid.load(std::memory_order_relaxed)))
      return true;
  }
  return false;
}

// A slot of the process's pool, stolen if need be.
[[gnu::always_inline]] inline std::uint64_t pool_slot(TaskState* task, std::uint32_t index,
                                                      const xol::Displaced& point) {
  const xol::SharedSlots& shared = g_process.slots.shared[point.area];
  const xol::Area& area = g_process.slots.areas[point.area];
  task->held.store(0, std::memory_order_release);  // the task is here, and in no slot; pairs with is_held
  const auto mark_of = [&](std::uint32_t slot) { return (std::uint64_t{point.area} << 32 | slot) + 1; };
  for (;;) {
    std::uint32_t slot = shared.pool_find(g_process.slots.geometry, index);
    if (slot != xol::kNoSlot) {
      task->held.store(mark_of(slot), std::memory_order_seq_cst);              // pairs with is_held
      if (shared.points[slot].load(std::memory_order_seq_cst) == index + 1) {  // pairs with pool_take's exchange
        ++task->slot_hits;
        return area.rx + g_process.slots.layout.shared_offset + slot * xol::kSlotBytes;
      }
      task->held.store(0, std::memory_order_release);  // pairs with is_held
      continue;
    }
    // Nobody may be abandoned while the slot is busy. SIGTRAP itself stays unblocked: the kernel would take the handler
    // away at a debugger's single step.
    const std::uint64_t before = sys::set_signal_mask(~kSynchronousSignals);
    Thread& thread = this_thread();
    const bool was_blocked = thread.app_trap.is_blocked;
    thread.app_trap.is_blocked = true;
    std::uint64_t was_held = 0;
    std::uint32_t was = 0;
    slot = shared.pool_take(
        g_process.slots.geometry, index, static_cast<std::uint32_t>(task->turn++),
        [&](std::uint32_t s) { return is_held(mark_of(s)); }, was);
    if (slot != xol::kNoSlot) {
      UBP_ASSERT(slot < shared.slots);
      const std::uint64_t offset = g_process.slots.layout.shared_offset + slot * xol::kSlotBytes;
      xol::write_pool_slot(reinterpret_cast<std::uint8_t*>(area.rw + offset), xol::SlotAddress{area.rx + offset},
                           point);
      was_held = mark_of(slot);
      task->held.store(was_held, std::memory_order_seq_cst);  // before anybody can take it: pairs with is_held
      shared.pool_give(slot, index);
      ++task->misses;
      ++task->refills;
      task->evictions += was != 0 ? 1 : 0;
    }
    thread.app_trap.is_blocked = was_blocked;
    sys::set_signal_mask(before);
    send_pending_trap();
    if (slot != xol::kNoSlot) return area.rx + g_process.slots.layout.shared_offset + slot * xol::kSlotBytes;
    sys::call4(SYS_sched_yield, 0);  // every slot of the set is being executed
  }
}

// The address of a slot that holds the probepoint's instruction, as far as the thread's own slots decide it; 0: they do
// not. Policy thread always decides here.
[[gnu::always_inline]] inline std::uint64_t thread_slot(TaskState* task, std::uint32_t index,
                                                        const xol::Displaced& point) {
  const xol::Policy policy = g_process.slots.policy;
  if (policy != xol::Policy::kThread && policy != xol::Policy::kAdaptive) return 0;
  const std::uint32_t slot = g_process.slots.cache(task, point.area).find(index);
  if (slot != xol::kNoSlot) [[likely]] {
    ++task->slot_hits;
    return g_process.slots.areas[point.area].rx + task->block * g_process.slots.layout.block_bytes +
           slot * xol::kSlotBytes;
  }
  if (policy == xol::Policy::kAdaptive) return 0;
  ++task->misses;
  return own_slot(task, index, point);
}

// The same for the other policies, and for what policy adaptive does about a miss.
[[gnu::always_inline]] inline std::uint64_t shared_slot(TaskState* task, std::uint32_t index,
                                                        const xol::Displaced& point) {
  if (g_process.slots.policy == xol::Policy::kSteal) return pool_slot(task, index, point);
  const std::uint32_t once = g_process.slots.shared[point.area].find(index);
  if (once != xol::kNoSlot) {
    ++task->slot_hits;
    return g_process.slots.areas[point.area].rx + g_process.slots.layout.shared_offset + once * xol::kSlotBytes;
  }
  ++task->misses;
  std::uint8_t& heat = g_process.slots.heat[index % kHeatEntries];
  // Threads may lose each other's counts here: it is a measure of heat, not an account.
  const bool earns =
      g_process.slots.policy == xol::Policy::kProbepoint || __atomic_load_n(&heat, __ATOMIC_RELAXED) >= kEarned;
  if (earns) {
    if (const std::uint64_t given = give_once(task, index, point)) return given;
  } else {
    __atomic_store_n(&heat, static_cast<std::uint8_t>(heat + 1), __ATOMIC_RELAXED);
  }
  return own_slot(task, index, point);
}

}  // namespace ubp::trap
