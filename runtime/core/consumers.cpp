// Consumers and their contexts. See consumers.h.
#include "runtime/core/consumers.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <memory>
#include <new>

#include "runtime/trap/task.h"
#include "runtime/trap/trap_state.h"

struct ubp_context {
  ubp::trap::Context* registers;
  std::uint64_t ip;
  const ubp::core::Consumer* consumer;
};

namespace ubp::core {

struct Consumers::List {
  std::vector<Consumer> consumers;
};

namespace {

using trap::g_process;

// A thread sanitizer does not see into the trap path, which orders these two.
#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
void leaves(trap::TaskState* task) { __tsan_release(task); }
void has_left(const trap::TaskState* task) { __tsan_acquire(const_cast<trap::TaskState*>(task)); }
#else
void leaves(trap::TaskState*) {}
void has_left(const trap::TaskState*) {}
#endif

std::atomic<const Consumers::List*>* g_lists = nullptr;  // by probepoint

// Called by the trap path with the task marked; what is called here is the consumers' and this file's.
void run_consumers(trap::Context* uc, trap::TaskState* task, std::uint32_t point, bool missed) {
  const Consumers::List* const list = g_lists[point].load(std::memory_order_acquire);  // pairs with add(), remove()
  if (list == nullptr) return;                                                         // taken out since the hit
  int& error = [&]() -> int& {
    const trap::InRuntime in_runtime;  // __errno_location may be probed
    return errno;
  }();
  const int before = error;
  for (const Consumer& consumer : list->consumers) {
    std::uint64_t& count = task->counters[consumer.counter + (missed ? g_process.missed_offset : 0)];
    __atomic_store_n(&count, count + 1, __ATOMIC_RELAXED);  // the task's own; read by others at any time
    if (missed) continue;
    const ubp_context context{uc, g_process.table.address_of(point), &consumer};
    consumer.function(&context, consumer.data);
  }
  error = before;
  leaves(task);
}

std::uint64_t* register_of(trap::Context* uc, unsigned id) {
  std::uint64_t* const registers[] = {&uc->rax, &uc->rcx, &uc->rdx, &uc->rbx, &uc->rsp, &uc->rbp, &uc->rsi, &uc->rdi,
                                      &uc->r8,  &uc->r9,  &uc->r10, &uc->r11, &uc->r12, &uc->r13, &uc->r14, &uc->r15};
  return id < 16 ? registers[id] : nullptr;
}

}  // namespace

void Consumers::start(std::uint32_t capacity) {
  if (g_lists != nullptr) return;
  void* const memory =
      mmap(nullptr, capacity * sizeof *g_lists, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  g_lists = static_cast<std::atomic<const List*>*>(memory);
  g_process.run_consumers = &run_consumers;
}

void Consumers::add(Machine& machine, const Runs& runs, const Consumer& consumer) {
  for_each_index(runs, [&](std::uint32_t index) {
    const List* const old = g_lists[index].load(std::memory_order_relaxed);  // written under the caller's lock only
    auto list = std::make_unique<List>(old != nullptr ? *old : List());
    list->consumers.push_back(consumer);
    if (old != nullptr) retired_.push_back(old);
    g_lists[index].store(list.release(), std::memory_order_release);  // pairs with run_consumers()
    if (old == nullptr) machine.set_consumers(index, true);
  });
}

void Consumers::remove(Machine& machine, const Runs& runs, const ubp_probe* probe) {
  for_each_index(runs, [&](std::uint32_t index) {
    const List* const old = g_lists[index].load(std::memory_order_relaxed);  // written under the caller's lock only
    if (old == nullptr) return;
    auto list = std::make_unique<List>(*old);
    std::erase_if(list->consumers, [&](const Consumer& consumer) { return consumer.probe == probe; });
    retired_.push_back(old);
    const bool is_last = list->consumers.empty();
    g_lists[index].store(is_last ? nullptr : list.release(), std::memory_order_release);  // pairs with run_consumers()
    if (is_last) machine.set_consumers(index, false);
  });
}

void Consumers::wait() {
#ifdef UBP_TEST_NO_WAIT  // tests/api: a consumer may still run when its probe is gone
  return;
#endif
  if (retired_.empty()) return;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the one in trap/consume.h
  for (std::uint32_t block = 0; block < g_process.used_blocks(); ++block) {
    const trap::TaskState* const task = g_process.state(block);
    const std::uint64_t mark = task->consumer.load(std::memory_order_acquire);  // pairs with end_consuming()
    if ((mark & 1) == 0) {
      has_left(task);
      continue;
    }
    for (int turn = 0; task->consumer.load(std::memory_order_acquire) == mark; ++turn) {       // likewise
      if (turn % 16 == 15 && trap::is_dead(task->tid.load(std::memory_order_relaxed))) break;  // ended inside its consumer
      const timespec moment{0, turn < 4 ? 0 : 50'000};
      sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
    }
    has_left(task);
  }
  for (const List* list : retired_) delete list;
  retired_.clear();
}

}  // namespace ubp::core

using ubp::core::register_of;

uint64_t ubp_context_ip(const ubp_context* context) { return context->ip; }

uint64_t ubp_context_register(const ubp_context* context, ubp_register_id id) {
  const std::uint64_t* const value = register_of(context->registers, static_cast<unsigned>(id));
  return value != nullptr ? *value : 0;
}

uint64_t ubp_context_flags(const ubp_context* context) { return context->registers->eflags; }

uint32_t ubp_context_thread_id(const ubp_context*) { return ubp::sys::gettid(); }

uint64_t ubp_context_argument(const ubp_context* context, unsigned index) {
  const ubp::trap::Context* const r = context->registers;
  const std::uint64_t in_registers[] = {r->rdi, r->rsi, r->rdx, r->rcx, r->r8, r->r9};
  if (index < 6) return in_registers[index];
  return reinterpret_cast<const std::uint64_t*>(r->rsp)[index - 5];  // [0]: the return address
}

ubp_probe* ubp_context_probe(const ubp_context* context) { return context->consumer->probe; }

ubp_status ubp_context_set_register(const ubp_context* context, ubp_register_id id, uint64_t value) {
  std::uint64_t* const place = register_of(context->registers, static_cast<unsigned>(id));
  if (place == nullptr || id == UBP_RSP) return UBP_E_INVALID;
  if ((context->consumer->flags & UBP_PROBE_MODIFY) == 0) return UBP_E_REFUSED;
  *place = value;
  return UBP_OK;
}
