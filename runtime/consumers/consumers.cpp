// Who consumes what. See consumers.h.
#include "runtime/consumers/consumers.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <ctime>
#include <memory>
#include <new>
#include <utility>

#include "runtime/base/cancellation.h"
#include "runtime/base/moment.h"
#include "runtime/base/reserve.h"
#include "runtime/consumers/call_lists.h"
#include "runtime/consumers/returns.h"
#include "runtime/trap/task.h"
#include "runtime/trap/trap_state.h"
#include "xol/assert.h"

namespace ubp::runtime {

namespace {

using trap::g_process;

// A thread sanitizer does not see what is not compiled for it: run_consumers(), and detours.
#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
void has_left(const trap::TaskState* task) { __tsan_acquire(const_cast<trap::TaskState*>(task)); }

struct Watched {
  ubp_consumer function;
  void* data;
};
__attribute__((no_sanitize_thread)) void run_watched(const ubp_context* context, void* data) {
  __tsan_acquire(&g_consumers[context->consumer->point]);
  const auto& watched = *static_cast<const Watched*>(data);
  watched.function(context, watched.data);
  __tsan_release(trap::t_thread.state);
}
void watch(Consumer& consumer) {
  if (consumer.action.kind != ActionKind::kCall) return;
  consumer.action.data = new Watched{consumer.action.function, consumer.action.data};
  consumer.action.function = &run_watched;
}
constexpr bool kIsWatched = true;
#else
void has_left(const trap::TaskState*) {}
void watch(Consumer&) {}
constexpr bool kIsWatched = false;
#endif

ActionNeeds needs_of(const Consumer& consumer) {
  ActionNeeds needs = consumer.action.needs;
  needs.all_fp |= kIsWatched;
  return needs;
}

// A copy of the consumers at a probepoint, with one more or one less.
const Consumer* copy_of(const Consumer* old, const Consumer* added, const ubp_probe* without, std::uint32_t point) {
  std::vector<Consumer> consumers;
  for (; old != nullptr; old = old->next) {
    if (old->probe != without) consumers.push_back(*old);
  }
  if (added != nullptr) consumers.push_back(*added);
  if (consumers.empty()) return nullptr;
  // Where a function is its own return, a call is noted for all who time it before it ends for any.
  std::stable_partition(consumers.begin(), consumers.end(),
                        [](const Consumer& consumer) { return consumer.action.function == &note_entry; });
  // And it ends for others' hits behind them.
  std::stable_partition(consumers.begin(), consumers.end(), [](const Consumer& consumer) {
    return consumer.action.function != &note_exit ||
           !static_cast<const ReturnExit*>(consumer.action.data)->owner->is_for_other_hits;
  });
  auto* const copy = new Consumer[consumers.size()];
  std::copy(consumers.begin(), consumers.end(), copy);
  for (std::size_t i = 0; i < consumers.size(); ++i) {
    copy[i].next = i + 1 < consumers.size() ? &copy[i + 1] : nullptr;
    copy[i].point = point;
    copy[i].needs = needs_of(copy[i]).bits();
#ifdef UBP_TEST_NO_NEEDS  // tests/api: a detour calls whom it has not saved enough for
    copy[i].needs = 0;
#endif
  }
  return copy;
}

void replace(std::uint32_t index, const Consumer* first) {
  __atomic_store_n(&g_consumers[index], first, __ATOMIC_RELEASE);  // pairs with run_consumers()
}

// Nanoseconds a tick, times 2^32: the two clocks are compared over some milliseconds, and agree to some 10 ns at the
// ends of these.
std::uint64_t measure_tick() {
  constexpr std::uint64_t kLeastNs = 5'000'000;
  const Moment begin = this_moment();
  Moment end = begin;
  while (end.ns - begin.ns < kLeastNs) {  // a signal may end the wait
    const timespec wait{0, static_cast<long>(kLeastNs - (end.ns - begin.ns))};
    sys::call4(SYS_nanosleep, reinterpret_cast<long>(&wait), 0);
    end = this_moment();
  }
  const double ns = static_cast<double>(end.ns - begin.ns);
  return static_cast<std::uint64_t>(ns / static_cast<double>(end.ticks - begin.ticks) * 4294967296.0);
}

}  // namespace

ActionNeeds Consumers::needs(std::uint32_t index, const Consumer* added) {
  const Consumer* const first = g_consumers != nullptr ? g_consumers[index] : nullptr;
  const Consumer* const only = first == nullptr ? added : first->next == nullptr && added == nullptr ? first : nullptr;
  ActionNeeds all;
  const bool records = only != nullptr && only->action.kind == ActionKind::kRecord;
  if (records || (only != nullptr && only->action.needs.shortcut != nullptr)) {
    all = records ? only->action.needs : needs_of(*only);
    all.block = records ? ActionKind::kRecord : ActionKind::kShortcut;
    all.counter = counter_of(*only);
    return all;
  }
  if (added != nullptr) all = needs_of(*added);
  for (const Consumer* consumer = first; consumer != nullptr; consumer = consumer->next)
    all = all | needs_of(*consumer);
  return all;
}

void Consumers::start(std::uint32_t capacity, Callbacks callbacks) {
  callbacks_ = std::move(callbacks);
  if (g_consumers != nullptr) return;
  capacity_ = capacity;
  void* const memory = mmap(nullptr, capacity * sizeof *g_consumers, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const auto thread = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
  g_errno_offset = static_cast<std::int64_t>(reinterpret_cast<std::uint64_t>(&errno) -
                                             thread);  // libc's TLS is there from the start
  g_cancel_offset = find_cancel_state();
  g_consumers = static_cast<const Consumer**>(memory);
  g_process.upcalls.run_consumers = &run_consumers;
}

void Consumers::add(const Runs& runs, const Consumer& consumer) {
  Consumer added = consumer;
  watch(added);
  for_each_index(runs, [&](std::uint32_t index) { add_at(index, added); });
}

void Consumers::add(const Consumer& consumer) {
  Consumer added = consumer;
  watch(added);
  add_at(consumer.point, added);
}

void Consumers::add_at(std::uint32_t index, const Consumer& added) {
  UBP_ASSERT(index < capacity_);
  const Consumer* const old = g_consumers[index];  // written under the caller's lock only
  if (old != nullptr) retired_.push_back(old);
  replace(index, copy_of(old, &added, nullptr, index));
  if (old == nullptr) callbacks_.mark(index, true);
}

void Consumers::remove(const Runs& runs, const ubp_probe* probe) {
  for_each_index(runs, [&](std::uint32_t index) {
    UBP_ASSERT(index < capacity_);
    const Consumer* const old = g_consumers[index];  // written under the caller's lock only
    if (old == nullptr) return;
    retired_.push_back(old);
    const Consumer* const first = copy_of(old, nullptr, probe, index);
    replace(index, first);
    if (first == nullptr) callbacks_.mark(index, false);
  });
}

bool make_call_stacks(bool keeps) {
  trap::Tasks& tasks = g_process.tasks;
  if (tasks.call_stacks == 0) {
    // Below what records may want.
    const std::uint64_t below = reinterpret_cast<std::uint64_t>(tasks.states) - 2 * tasks.blocks * kCallStackBytes;
    const std::uint64_t bytes = tasks.blocks * kCallStackBytes,
                        lists = reserve_below(below, bytes + NotedPlaces::kBytes);
    if (lists == 0) return false;
    if (mprotect(reinterpret_cast<void*>(lists + bytes), NotedPlaces::kBytes, PROT_READ | PROT_WRITE) != 0) {
      munmap(reinterpret_cast<void*>(lists), bytes + NotedPlaces::kBytes);
      return false;
    }
    tasks.noted_places = lists + bytes;
    tasks.call_stacks = lists;
  }
  if (!keeps || tasks.kept_calls != 0) return true;
  tasks.kept_calls = reserve_below(tasks.call_stacks, tasks.blocks * kKeptCallsBytes);
  if (tasks.ns_per_tick == 0) tasks.ns_per_tick = measure_tick();
  return tasks.kept_calls != 0;
}

bool make_goroutine_lists(std::int64_t word, bool keeps) {
  trap::Goroutines& goroutines = g_process.goroutines;
  if (goroutines.memory == 0) {
    goroutines.lists = std::bit_floor(g_process.tasks.blocks);
    const std::uint64_t owners = goroutines.lists * (sizeof(std::uint64_t) + sizeof(std::uint32_t));
    const std::uint64_t beside = (owners + sys::kPageBytes - 1) & ~(sys::kPageBytes - 1);
    const std::uint64_t bytes = goroutines.lists * kGoroutineListBytes;
    // Below what kept calls may want.
    const std::uint64_t below = g_process.tasks.call_stacks - 2 * g_process.tasks.blocks * kKeptCallsBytes;
    const std::uint64_t memory = reserve_below(below, beside + bytes);
    if (memory == 0) return false;
    if (mprotect(reinterpret_cast<void*>(memory), beside, PROT_READ | PROT_WRITE) != 0) {
      munmap(reinterpret_cast<void*>(memory), beside + bytes);
      return false;
    }
    goroutines.word = word;
    goroutines.owners = memory;
    goroutines.numbers = memory + goroutines.lists * sizeof(std::uint64_t);
    goroutines.memory = memory + beside;
    goroutines.are_found.store(true, std::memory_order_release);  // no call has been noted yet
  }
  if (!keeps || goroutines.kept_calls != 0) return true;
  goroutines.kept_calls = reserve_below(goroutines.owners, goroutines.lists * kGoroutineKeptBytes);
  return goroutines.kept_calls != 0;
}

void Consumers::wait() {
#ifdef UBP_TEST_NO_WAIT  // tests/api: a consumer may still run when its probe is gone
  return;
#endif
  if (retired_.empty()) return;
  callbacks_.synchronise();                             // detours mark their task without a fence
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in trap/consume.h
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) {
    const trap::TaskState* const task = g_process.tasks.state(block);
    const std::uint64_t mark = task->consumer.load(std::memory_order_acquire);  // pairs with end_consuming()
    if (mark == 0) {
      has_left(task);
      continue;
    }
    for (int turn = 0; task->consumer.load(std::memory_order_acquire) == mark; ++turn) {  // as above
      if (turn % 16 == 15 && trap::is_dead(task->tid.load(std::memory_order_relaxed)))
        break;  // ended inside its consumer; only a number
      const timespec moment{0, turn < 4 ? 0 : 50'000};
      sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
    }
    has_left(task);
  }
  for (const Consumer* first : retired_) delete[] first;
  retired_.clear();
}

}  // namespace ubp::runtime
