// Reading rings. See rings.h.
#include "runtime/record/rings.h"

#include "runtime/base/moment.h"
#include "runtime/base/reserve.h"
#include "xol/assert.h"

namespace ubp::record {

using trap::g_process;

namespace {

using runtime::Moment;
Moment g_start{};

}  // namespace

bool make_rings() {
  if (g_process.tasks.rings != 0) return true;
  g_process.tasks.rings = runtime::reserve_below(reinterpret_cast<std::uint64_t>(g_process.tasks.states),
                                                 g_process.tasks.blocks * kRingBytes);
  if (g_process.tasks.rings == 0) return false;
  g_start = runtime::this_moment();
  // Those that are there need ask the kernel for nothing later: no probe records yet.
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) open_ring(g_process.tasks.state(block));
  return true;
}

void read(bool takes, const std::function<void(const Record&)>& visit) {
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) {
    trap::TaskState* const task = g_process.tasks.state(block);
    const std::uint64_t ring = __atomic_load_n(&task->ring, __ATOMIC_ACQUIRE);  // pairs with open_ring()
    if (ring == 0) continue;
    const std::uint64_t head = __atomic_load_n(&task->ring_head, __ATOMIC_ACQUIRE);  // pairs with write()
    UBP_ASSERT(head - task->ring_tail <= kRingRecords);
    for (std::uint64_t at = task->ring_tail; at != head; ++at)
      visit(reinterpret_cast<const Record*>(ring)[at % kRingRecords]);
    if (!takes) continue;
    task->ring_tail = head;
    __atomic_store_n(&task->ring_limit, head + kRingRecords, __ATOMIC_RELEASE);  // pairs with write()
  }
}

Clock::Clock() {
  const Moment end = runtime::this_moment();
  ns_per_tick_ = end.ticks > g_start.ticks
                     ? static_cast<double>(end.ns - g_start.ns) / static_cast<double>(end.ticks - g_start.ticks)
                     : 0;
}

std::uint64_t Clock::nanoseconds(std::uint64_t time) const {
  const double passed = static_cast<double>(static_cast<std::int64_t>(time - g_start.ticks)) * ns_per_tick_;
  return g_start.ns + static_cast<std::uint64_t>(static_cast<std::int64_t>(passed));
}

}  // namespace ubp::record
