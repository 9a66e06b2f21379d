// What probes record: a ring for each task, which it alone writes, and whoever drains reads.
//
// Invariant: `ring_head` counts the records that the task has ever written, `ring_tail` those that were taken; what
// lies between stands in the ring. A record's bytes are stored before the head moves over it, which alone makes it one:
// whoever is interrupted before has recorded nothing. A record that finds no room is counted as dropped.
//
// Inline part: in consumers (run_consumers.cpp), and as machine code in detours (runtime/jump/count_code.cpp).
// Async-signal-safe, no libc. rings.cpp: normal context, under the registry's lock.
#pragma once

#include <x86gprintrin.h>

#include <cstdint>
#include <functional>

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::record {

// In a ring. Written at traps by record_hit (consumers/run_consumers.cpp), and by detours (jump/count_code.cpp).
struct Record {
  std::uint64_t time;      // of the timestamp counter
  std::uint32_t point;     // index of the probepoint
  std::uint32_t counter;   // the probe's, among the task counters
  std::uint32_t task;      // TaskState::tid
  std::uint32_t reserved;  // 0
};
inline constexpr std::uint64_t kRingRecords = 65536;
inline constexpr std::uint64_t kRingBytes = kRingRecords * sizeof(Record);

// Gives the task its ring. False: memory is denied.
[[gnu::always_inline]] inline bool open_ring(trap::TaskState* task) {
  // Behind a system call filter of the program's own, nothing new is asked of the kernel.
  const bool may_ask =
      !trap::g_process.is_sandboxed.load(std::memory_order_relaxed);  // set by this thread, or just now by another
  if (trap::g_process.tasks.rings == 0 || !may_ask) return false;
  const std::uint64_t at = trap::g_process.tasks.rings + task->block * kRingBytes;
  if (sys::failed(sys::call4(SYS_mprotect, static_cast<long>(at), kRingBytes, PROT_READ | PROT_WRITE))) return false;
  __atomic_store_n(&task->ring_limit, task->ring_tail + kRingRecords, __ATOMIC_RELAXED);
  __atomic_store_n(&task->ring, at, __ATOMIC_RELEASE);  // pairs with read()
  return true;
}

// Records a hit of the calling task. False: it is dropped.
[[gnu::always_inline]] inline bool write(trap::TaskState* task, std::uint32_t point, std::uint32_t counter) {
  if (task->ring == 0 && !open_ring(task)) return false;  // or the timestamp counter is forbidden
  const std::uint64_t head = task->ring_head;
  if (head == __atomic_load_n(&task->ring_limit, __ATOMIC_ACQUIRE))
    return false;  // pairs with read(): what stood there was read
  auto& record = reinterpret_cast<Record*>(task->ring)[head % kRingRecords];
  record = {__rdtsc(), point, counter, task->tid.load(std::memory_order_relaxed), 0};  // its own
  __atomic_store_n(&task->ring_head, head + 1, __ATOMIC_RELEASE);                      // pairs with read()
  return true;
}

// Reserves the rings of all tasks there can be; they become memory when they are written. False: it is denied.
bool make_rings();

// Calls visit(record) for all that stand in the rings. takes: they are gone then.
void read(bool takes, const std::function<void(const Record&)>& visit);

// Timestamps in CLOCK_MONOTONIC's nanoseconds: as the two clocks stood when the rings were made, and stand now.
class Clock {
 public:
  Clock();
  std::uint64_t nanoseconds(std::uint64_t time) const;

 private:
  double ns_per_tick_;
};

}  // namespace ubp::record
