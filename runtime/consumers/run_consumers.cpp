// Calling a hit's consumers, and what they see of it. Compiled without vector registers (meson.build): a consumer that
// says that it touches none may call all this.
//
// Context: the trap path, and consumers. Calls nothing but the consumers. Async-signal-safe: as they are.
#include "runtime/consumers/call_lists.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/consumers/returns.h"
#include "runtime/record/rings.h"
#include "runtime/stack/walk.h"
#include "runtime/trap/read_memory.h"
#include "runtime/trap/read_stack.h"

namespace ubp::runtime {

using trap::Counter;

const Consumer** g_consumers = nullptr;
std::int64_t g_errno_offset = 0;
std::int32_t g_cancel_offset = 0;
const stack::FrameTables* g_frame_tables = nullptr;

void run_consumers(trap::Context* uc, trap::TaskState* task, std::uint32_t point, std::uint64_t consumed) {
  std::uint64_t* const counters = task->jumped;  // a forked child's state is wiped
  const Consumer* consumer =
      __atomic_load_n(&g_consumers[point], __ATOMIC_ACQUIRE);  // pairs with Consumers; null: taken out since the hit
  const auto count_in = [](std::uint64_t& count) {
    __atomic_store_n(&count, count + 1, __ATOMIC_RELAXED);
  };                                // the task's own; read by others at any time
  if (consumed == trap::kMissed) {  // %fs may lead anywhere
    for (; consumer != nullptr; consumer = consumer->next) {
      count_in(counters[trap::g_process.tasks.offset_of(Counter::kMissed) + consumer->counter_offset / 8]);
      if (consumer->action.function == &note_entry) noted_places().note(uc->rsp, NotedPlaces::kNobody);
    }
    return;
  }
  const auto thread = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
  int& error = *reinterpret_cast<int*>(thread + static_cast<std::uint64_t>(g_errno_offset));
  const int before = error;
  // No cancellation point in a consumer ends the thread. Relaxed: a bit on its own; other threads set others of the
  // byte.
  auto* const cancel =
      reinterpret_cast<std::uint8_t*>(thread + static_cast<std::uint64_t>(std::int64_t{g_cancel_offset}));
  const bool disables = g_cancel_offset != 0 && (__atomic_load_n(cancel, __ATOMIC_RELAXED) & 1) == 0;
  if (disables) __atomic_fetch_or(cancel, 1, __ATOMIC_RELAXED);
  for (; consumer != nullptr; consumer = consumer->next) {
    const bool is_of_calls = consumer->action.function == &note_entry || consumer->action.function == &note_exit;
    if (consumed == trap::kAgain && !is_of_calls) continue;
    count_in(counters[consumer->counter_offset / 8]);
    const ubp_context context{uc, nullptr, task, consumer};
    consumer->action.function(&context, consumer->action.data);
  }
  if (disables) __atomic_fetch_and(cancel, static_cast<std::uint8_t>(~1), __ATOMIC_RELAXED);
  error = before;
}

void record_hit(const ubp_context* context, void*) {
  const Consumer& consumer = *context->consumer;
  if (context->task->tid.load(std::memory_order_relaxed) == 0)
    return;  // a child that another consumer forked: the hit is its parent's
  const std::uint32_t counter = counter_of(consumer);
  if (record::write(context->task, consumer.point, counter)) return;
  std::uint64_t& dropped = context->task->counters[trap::g_process.tasks.offset_of(Counter::kDropped) + counter];
  __atomic_store_n(&dropped, dropped + 1, __ATOMIC_RELAXED);  // the task's own; read by others at any time
}

namespace {

std::uint64_t* register_of(const ubp_context& hit, unsigned id) {
  if (id >= 16 || !hit.consumer->action.needs.reads) return nullptr;
  return hit.save != nullptr ? &hit.save->registers[id] : &hit.registers->general(id);
}

std::uint64_t value_of(const ubp_context& hit, unsigned id) {
  const std::uint64_t* const value = register_of(hit, id);
  return value != nullptr ? *value : 0;
}

}  // namespace

}  // namespace ubp::runtime

using namespace ubp::runtime;

uint64_t ubp_context_ip(const ubp_context* context) {
  return ubp::trap::g_process.table.address_of(context->consumer->point);
}

uint64_t ubp_context_register(const ubp_context* context, ubp_register_id id) {
  return value_of(*context, static_cast<unsigned>(id));
}

uint64_t ubp_context_flags(const ubp_context* context) {
  if (!context->consumer->action.needs.reads) return 0;
  if (context->save == nullptr) return context->registers->eflags;
  // The other flags are the thread's still: no function changes them for its caller (psABI, 3.2.1). A detour does clear
  // the direction.
  std::uint64_t flags;
  asm volatile("pushfq; popq %0" : "=r"(flags)::"memory");
  const ubp::runtime::DetourInfo* const detour = ubp::trap::g_process.detours.of(context->consumer->point);
  // One that covers the probepoint is another's: this one's own is of no function's entry, and saves it.
  const bool is_inside =
      detour != nullptr && (detour->point != context->consumer->point || detour->shape->saves_direction);
  if (is_inside) flags |= context->save->rflags & ubp::runtime::kDirectionFlag;
  return ubp::runtime::with_status(flags, context->save->status);
}

uint32_t ubp_context_thread_id(const ubp_context*) { return ubp::sys::gettid(); }

uint64_t ubp_context_argument(const ubp_context* context, unsigned index) {
  constexpr std::uint8_t kInRegisters[] = {UBP_RDI, UBP_RSI, UBP_RDX, UBP_RCX, UBP_R8, UBP_R9};
  if (index < 6) return value_of(*context, kInRegisters[index]);
  const std::uint64_t rsp = value_of(*context, UBP_RSP);
  return rsp != 0 ? reinterpret_cast<const std::uint64_t*>(rsp)[index - 5] : 0;  // [0]: the return address
}

ubp_probe* ubp_context_probe(const ubp_context* context) { return context->consumer->handle; }

ubp_status ubp_context_set_register(const ubp_context* context, ubp_register_id id, uint64_t value) {
  std::uint64_t* const place = register_of(*context, static_cast<unsigned>(id));
  if (place == nullptr || id == UBP_RSP) return UBP_E_INVALID;
  const Action& action = context->consumer->action;
  constexpr unsigned kArguments =
      1U << UBP_RDI | 1U << UBP_RSI | 1U << UBP_RDX | 1U << UBP_RCX | 1U << UBP_R8 | 1U << UBP_R9;
  if (!action.needs.modifies || (action.seen == Action::kCall && (kArguments >> id & 1) != 0)) return UBP_E_REFUSED;
  *place = value;
  return UBP_OK;
}

ubp_status ubp_context_return(const ubp_context* context, uint64_t value) {
  return override_call(*context, value) ? UBP_OK : UBP_E_REFUSED;
}

ubp_status ubp_context_retval(const ubp_context* context, uint64_t* value) {
  if (value == nullptr || context->consumer->action.seen == Action::kHit) return UBP_E_INVALID;
  *value = context->save != nullptr ? context->save->registers[UBP_RAX] : context->registers->general(UBP_RAX);
  return UBP_OK;
}

ubp_status ubp_context_call(const ubp_context* context, ubp_call* call) {
  if (call == nullptr || context->consumer->action.seen != Action::kCall) return UBP_E_INVALID;
  if (call->struct_size < sizeof *call) return UBP_E_STRUCT_SIZE;
  const SeenCall& seen = reinterpret_cast<const CallContext*>(context)->call;
  call->elapsed_ns = seen.elapsed;
  call->self_ns = seen.self;
  call->depth = seen.depth;
  return UBP_OK;
}

size_t ubp_context_backtrace(const ubp_context* context, uint64_t* addresses, size_t limit) {
  namespace stack = ubp::stack;
  const auto* const tables = __atomic_load_n(&g_frame_tables, __ATOMIC_ACQUIRE);  // pairs with prepare_backtraces()
  const ActionNeeds& needs = context->consumer->action.needs;
  if (tables == nullptr || !needs.walks || !needs.reads) return 0;
  stack::Start start;
  start.address = ubp_context_ip(context);
  for (unsigned i = 0; i < stack::kRegisters; ++i) start.registers[i] = value_of(*context, i);
  const ubp::trap::StackReader read(true, start.registers[stack::kRsp]);
  std::uint64_t count = stack::Walk(*tables, start, read).run(addresses, limit);
  if (count != 0 && addresses[count - 1] == stack::kNotFound) --count;
  for (std::uint64_t i = 0; i < count; ++i) addresses[i] &= ~stack::kInterrupted;
  return count;
}
