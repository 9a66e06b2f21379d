// Calling a hit's consumers. Compiled without vector registers (meson.build): a detour saves none for consumers that touch none.
//
// Context: the trap path, and detours. Calls nothing but the consumers. Async-signal-safe: as they are.
#include "runtime/core/consumer_list.h"

namespace ubp::core {

const ConsumerList** g_consumer_lists = nullptr;
std::int64_t g_errno_offset = 0;
SanitizerHooks g_sanitizer;

namespace {

void run(trap::Context* uc, xol::DetourSave* save, trap::TaskState* task, std::uint32_t point, bool missed) {
  const ConsumerList* const list = __atomic_load_n(&g_consumer_lists[point], __ATOMIC_ACQUIRE);  // pairs with Consumers
  if (list == nullptr) return;                                                                   // taken out since the hit
  if (g_sanitizer.acquire != nullptr) g_sanitizer.acquire(&g_consumer_lists[point]);
  std::uint64_t thread;
  asm("mov %%fs:0, %0" : "=r"(thread));
  int& error = *reinterpret_cast<int*>(thread + static_cast<std::uint64_t>(g_errno_offset));
  const int before = error;
  const std::uint64_t offset = missed ? trap::g_process.missed_offset : 0;
  const std::uint64_t ip = trap::g_process.table.address_of(point);
  for (const Consumer *consumer = list->consumers, *const end = consumer + list->count; consumer != end; ++consumer) {
    std::uint64_t& count = task->counters[consumer->counter + offset];
    __atomic_store_n(&count, count + 1, __ATOMIC_RELAXED);  // the task's own; read by others at any time
    if (missed) continue;
    const bool reads = (consumer->flags & UBP_PROBE_NO_REGISTERS) == 0;
    const ubp_context context{reads ? uc : nullptr, reads ? save : nullptr, ip, consumer};
    consumer->function(&context, consumer->data);
  }
  error = before;
  if (g_sanitizer.release != nullptr) g_sanitizer.release(task);
}

}  // namespace

void run_consumers(trap::Context* uc, trap::TaskState* task, std::uint32_t point, bool missed) { run(uc, nullptr, task, point, missed); }

void run_detour_consumers(xol::DetourSave* save, trap::TaskState* task, const xol::DetourInfo* info) {
  run(nullptr, save, task, info->point, false);
}

}  // namespace ubp::core
