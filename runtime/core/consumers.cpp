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

namespace ubp::core {

namespace {

using trap::g_process;

#ifdef __SANITIZE_THREAD__
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
void has_left(const trap::TaskState* task) { __tsan_acquire(const_cast<trap::TaskState*>(task)); }
#else
void has_left(const trap::TaskState*) {}
#endif

std::uint64_t* register_of(const ubp_context& hit, unsigned id) {
  if (xol::DetourSave* const save = hit.save) {
    std::uint64_t* const saved[] = {&save->rax, &save->rcx, &save->rdx, &save->rbx, &save->rsp, &save->rbp, &save->rsi, &save->rdi,
                                    &save->r8,  &save->r9,  &save->r10, &save->r11, &save->r12, &save->r13, &save->r14, &save->r15};
    return id < 16 ? saved[id] : nullptr;
  }
  trap::Context* const uc = hit.registers;
  if (uc == nullptr) return nullptr;
  std::uint64_t* const registers[] = {&uc->rax, &uc->rcx, &uc->rdx, &uc->rbx, &uc->rsp, &uc->rbp, &uc->rsi, &uc->rdi,
                                      &uc->r8,  &uc->r9,  &uc->r10, &uc->r11, &uc->r12, &uc->r13, &uc->r14, &uc->r15};
  return id < 16 ? registers[id] : nullptr;
}

ConsumerList* copy_of(const ConsumerList* old, const Consumer* added, const ubp_probe* without) {
  std::vector<Consumer> consumers;
  for (std::uint32_t i = 0; old != nullptr && i < old->count; ++i) {
    if (old->consumers[i].probe != without) consumers.push_back(old->consumers[i]);
  }
  if (added != nullptr) consumers.push_back(*added);
  if (consumers.empty()) return nullptr;
  auto* const copy = new Consumer[consumers.size()];
  std::copy(consumers.begin(), consumers.end(), copy);
  return new ConsumerList{static_cast<std::uint32_t>(consumers.size()), copy};
}

void replace(std::uint32_t index, const ConsumerList* list) {
  __atomic_store_n(&g_consumer_lists[index], list, __ATOMIC_RELEASE);  // pairs with run()
}

}  // namespace

xol::ConsumerNeeds needs_of(std::uint32_t flags) {
  xol::ConsumerNeeds needs;
  needs.reads = (flags & UBP_PROBE_NO_REGISTERS) == 0;
  needs.modifies = (flags & UBP_PROBE_MODIFY) != 0;
  needs.xmm = (flags & UBP_PROBE_NO_FP) == 0;
  needs.all_fp = (flags & (UBP_PROBE_NO_FP | UBP_PROBE_SSE_ONLY)) == 0;
  return needs;
}

xol::ConsumerNeeds Consumers::needs(std::uint32_t index) {
  xol::ConsumerNeeds all;
  const ConsumerList* const list = g_consumer_lists != nullptr ? g_consumer_lists[index] : nullptr;
  for (std::uint32_t i = 0; list != nullptr && i < list->count; ++i) {
    const xol::ConsumerNeeds one = needs_of(list->consumers[i].flags);
    all = {all.reads || one.reads, all.modifies || one.modifies, all.xmm || one.xmm, all.all_fp || one.all_fp};
  }
  return all;
}

void Consumers::start(std::uint32_t capacity) {
  if (g_consumer_lists != nullptr) return;
  void* const memory = mmap(nullptr, capacity * sizeof *g_consumer_lists, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  std::uint64_t thread;
  asm("mov %%fs:0, %0" : "=r"(thread));
  g_errno_offset = static_cast<std::int64_t>(reinterpret_cast<std::uint64_t>(&errno) - thread);  // libc's TLS is there from the start
  g_consumer_lists = static_cast<const ConsumerList**>(memory);
  g_process.run_consumers = &run_consumers;
#ifdef __SANITIZE_THREAD__
  g_sanitizer = {&__tsan_acquire, &__tsan_release};
#endif
}

void Consumers::add(Machine& machine, const Runs& runs, const Consumer& consumer) {
  for_each_index(runs, [&](std::uint32_t index) {
    const ConsumerList* const old = g_consumer_lists[index];  // written under the caller's lock only
    if (old != nullptr) retired_.push_back(old);
    replace(index, copy_of(old, &consumer, nullptr));
    if (old == nullptr) machine.set_consumers(index, true);
  });
}

void Consumers::remove(Machine& machine, const Runs& runs, const ubp_probe* probe) {
  for_each_index(runs, [&](std::uint32_t index) {
    const ConsumerList* const old = g_consumer_lists[index];  // written under the caller's lock only
    if (old == nullptr) return;
    retired_.push_back(old);
    const ConsumerList* const list = copy_of(old, nullptr, probe);
    replace(index, list);
    if (list == nullptr) machine.set_consumers(index, false);
  });
}

void Consumers::wait(Machine& machine) {
#ifdef UBP_TEST_NO_WAIT  // tests/api: a consumer may still run when its probe is gone
  return;
#endif
  if (retired_.empty()) return;
  machine.synchronise();                                // for detours, which mark their task without a fence
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
  for (const ConsumerList* list : retired_) {
    delete[] list->consumers;
    delete list;
  }
  retired_.clear();
}

}  // namespace ubp::core

using ubp::core::register_of;

namespace {

std::uint64_t value_of(const ubp_context& hit, unsigned id) {
  const std::uint64_t* const value = register_of(hit, id);
  return value != nullptr ? *value : 0;
}

}  // namespace

uint64_t ubp_context_ip(const ubp_context* context) { return context->ip; }

uint64_t ubp_context_register(const ubp_context* context, ubp_register_id id) { return value_of(*context, static_cast<unsigned>(id)); }

uint64_t ubp_context_flags(const ubp_context* context) {
  return context->save != nullptr ? context->save->eflags : context->registers != nullptr ? context->registers->eflags : 0;
}

uint32_t ubp_context_thread_id(const ubp_context*) { return ubp::sys::gettid(); }

uint64_t ubp_context_argument(const ubp_context* context, unsigned index) {
  constexpr unsigned kInRegisters[] = {UBP_RDI, UBP_RSI, UBP_RDX, UBP_RCX, UBP_R8, UBP_R9};
  if (index < 6) return value_of(*context, kInRegisters[index]);
  const std::uint64_t rsp = value_of(*context, UBP_RSP);
  return rsp != 0 ? reinterpret_cast<const std::uint64_t*>(rsp)[index - 5] : 0;  // [0]: the return address
}

ubp_probe* ubp_context_probe(const ubp_context* context) { return context->consumer->probe; }

ubp_status ubp_context_set_register(const ubp_context* context, ubp_register_id id, uint64_t value) {
  std::uint64_t* const place = register_of(*context, static_cast<unsigned>(id));
  if (place == nullptr || id == UBP_RSP) return UBP_E_INVALID;
  if ((context->consumer->flags & UBP_PROBE_MODIFY) == 0) return UBP_E_REFUSED;
  *place = value;
  return UBP_OK;
}
