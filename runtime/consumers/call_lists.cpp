// See call_lists.h. Compiled without vector registers.
//
// Context: consumers of hits. Calls nothing. Async-signal-safe: signals are put off.
#include "runtime/consumers/call_lists.h"

namespace ubp::runtime {

using trap::g_process;
using trap::TaskState;

Word read_word(std::uint64_t address, std::uint64_t& word) {
  if (trap::reads_by_loads(true, address, sizeof word))
    return trap::ubp_read_bytes(&word, address, sizeof word).bytes == sizeof word ? Word::kThere : Word::kNone;
  if (!trap::may_ask()) return Word::kUnknown;
  return trap::read_by_call(address, &word, sizeof word) == sizeof word ? Word::kThere : Word::kNone;
}

namespace {

bool make_accessible(std::uint64_t at, std::uint64_t bytes) {
  return trap::may_ask() && !sys::failed(sys::call4(SYS_mprotect, static_cast<long>(at), static_cast<long>(bytes),
                                                    PROT_READ | PROT_WRITE));
}

// The calling task's list; null: memory is denied.
CallStack* open_call_stack(TaskState* task) {
  if (g_process.tasks.call_stacks == 0) return nullptr;
  const std::uint64_t at = g_process.tasks.call_stacks + task->block * kCallStackBytes;
  if (!make_accessible(at, kCallStackBytes)) return nullptr;
  auto* const stack = reinterpret_cast<CallStack*>(at);
  stack->room = kMostCalls;
  // A forked child goes on in the calls that its parent's thread was in. It is alone: that one's list does not change.
  trap::Thread* const thread = task->storage;
  const auto* const from = thread != nullptr ? reinterpret_cast<const CallStack*>(thread->call_stack) : nullptr;
  if (from != nullptr && from != stack) {
    stack->depth = stack->seams = 0;
    if (from->kept != nullptr && !open_kept_calls(*stack)) return nullptr;
    stack->waits = from->waits;
    stack->probe_ticks = from->probe_ticks;
    stack->net_clock = from->net_clock;
    for (std::uint64_t i = 0; i < from->depth; ++i) {
      if (is_anothers(*from, from->frames[i].place)) continue;  // here another task may have that one's number
      stack->push(from->frames[i]);
      if (from->kept != nullptr) stack->kept[stack->depth - 1] = from->kept[i];
      asm volatile("" ::: "memory");  // no call of memcpy
    }
    for (std::uint64_t i = 0; i < stack->depth; ++i) {  // not before: several may be at one place
      const std::uint64_t place = stack->frames[i].place;
      if (noted_places().last(place) == number_of(*from)) noted_places().note(place, number_of(*stack));
    }
  } else if (from == nullptr) {
    const bool is_of_this_process = stack->process == g_process.tasks.pid;
    for (std::uint64_t i = 0; is_of_this_process && i < stack->depth; ++i) GivesUp{task}(stack->frames[i]);
    stack->depth = stack->seams = stack->waits = 0;
  }
  stack->process = g_process.tasks.pid;
  if (thread != nullptr) thread->call_stack = at;
  task->call_stack = at;
  return stack;
}

// The list that belongs to a place among the owners. Null: memory is denied, or there is none left.
CallStack* list_at(std::uint32_t at) {
  trap::Goroutines& goroutines = g_process.goroutines;
  std::uint32_t& number = reinterpret_cast<std::uint32_t*>(goroutines.numbers)[at];
  if (number == 0) {
    // In order, so that what is accessible is one mapping.
    const std::uint32_t index = goroutines.used.fetch_add(1, std::memory_order_relaxed);  // a number
    if (index >= goroutines.lists) {
      goroutines.used.fetch_sub(1, std::memory_order_relaxed);  // as above
      return nullptr;
    }
    if (!make_accessible(goroutines.memory + index * kGoroutineListBytes, kGoroutineListBytes)) return nullptr;
    number = index + 1;
  }
  return reinterpret_cast<CallStack*>(goroutines.memory + (number - 1) * kGoroutineListBytes);
}

// The goroutine's list, or a free one. Null: there is none.
CallStack* claim_list(const Goroutine& goroutine) {
  if (CallStack* const own = find_list(goroutine)) return own;
  CallStack* list = nullptr;
  visit_owners(goroutine.g, [&](std::uint32_t at, std::uint64_t& owner) {
    std::uint64_t nobody = 0;
    if (__atomic_load_n(&owner, __ATOMIC_RELAXED) != 0) return false;
    if (!__atomic_compare_exchange_n(&owner, &nobody, goroutine.g, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      return false;  // acquire: pairs with let_go()
    list = list_at(at);
    if (list == nullptr) {
      __atomic_store_n(&owner, 0, __ATOMIC_RELEASE);  // as let_go() does
      return true;
    }
    list->slot = at;
    list->depth = list->seams = list->waits = list->probe_ticks = list->net_clock = 0;
    list->room = kGoroutineCalls;
    list->base = goroutine.end;
    return true;
  });
  return list;
}

// The goroutine's stack has been copied to where it ends now: what was noted at its places was noted there. But for
// calls that nobody has; of others, whoever uses the old stack may have noted his own there.
void move_list(TaskState* task, CallStack& list, std::uint64_t end, std::uint64_t address) {
  const GivesUp gives_up{task};
  while (list.depth != 0 && list.frames[list.depth - 1].place < address - end) list.give_up(list.depth - 1, gives_up);
  for (std::uint64_t at = list.depth; at-- != 0;) {
    if (noted_places().last(list.frames[at].place + list.base) == NotedPlaces::kNobody) list.give_up(at, gives_up);
  }
  list.base = end;
  for (std::uint64_t at = 0; at < list.depth; ++at) noted_places().note(list.frames[at].place + end, number_of(list));
}

// A task that has no frame of the call that ends here: it may have begun in another, where its frame is still. That
// one's list may change meanwhile, or be of a task that is gone.
void look_for_move(const TaskState* task, const ReturnOwner* owner, std::uint64_t place) {
  trap::Tasks& tasks = g_process.tasks;
  const std::uint32_t last = noted_places().last(place);
  const bool is_tasks = last >= NotedPlaces::kFirstList && last < NotedPlaces::kFirstList + tasks.blocks;
  if (!is_tasks || last == number_of(task) || sys::is_set(tasks.calls_move)) return;
  std::uint64_t returns_to = 0;
  if (read_word(place, returns_to) != Word::kThere) return;
  constexpr std::uint64_t kMostLooks = 256;
  const auto& list = *reinterpret_cast<const CallStack*>(
      tasks.call_stacks + std::uint64_t{last - NotedPlaces::kFirstList} * kCallStackBytes);
  const std::uint64_t depth = __atomic_load_n(&list.depth, __ATOMIC_RELAXED);  // as below: a look, no more
  for (std::uint64_t at = depth < kMostCalls ? depth : kMostCalls, looks = 0; at-- != 0 && looks < kMostLooks;
       ++looks) {
    const CallFrame& frame = list.frames[at];
    if (__atomic_load_n(&frame.place, __ATOMIC_RELAXED) != place ||
        __atomic_load_n(&frame.returns_to, __ATOMIC_RELAXED) != returns_to ||
        __atomic_load_n(&frame.owner, __ATOMIC_RELAXED) != owner)
      continue;
    tasks.calls_move.store(true, std::memory_order_relaxed);  // a fact on its own
    return;
  }
}

}  // namespace

CallStack* list_to_note(TaskState* task, std::uint64_t address) {
  const Goroutine goroutine = goroutine_at(task, address);
  if (!goroutine.is_known) return nullptr;
  task->goroutine = goroutine.running;
  if (goroutine.g == 0) {
    if (task->call_stack != 0) [[likely]]
      return reinterpret_cast<CallStack*>(task->call_stack);
    return open_call_stack(task);
  }
  CallStack* const list = claim_list(goroutine);
  if (list != nullptr && list->base != goroutine.end) move_list(task, *list, goroutine.end, address);
  return list;
}

FoundCall find_call(TaskState* task, std::uint64_t address, const ReturnOwner* owner, std::uint16_t generation) {
  if (task->tid.load(std::memory_order_relaxed) == 0) return {};  // its own: a child that a consumer forked
  const Goroutine goroutine = goroutine_at(task, address);
  if (!goroutine.is_known) return {};
  task->goroutine = goroutine.running;
  CallStack* list = nullptr;
  if (goroutine.g != 0) {
    list = find_list(goroutine);
    if (list != nullptr && list->base != goroutine.end) move_list(task, *list, goroutine.end, address);
  } else if (task->call_stack != 0) {
    list = reinterpret_cast<CallStack*>(task->call_stack);
  } else if (task->storage != nullptr && task->storage->call_stack != 0) {  // a forked child
    list = open_call_stack(task);
  }
  const std::uint64_t place = list != nullptr ? address - list->base : 0;
  std::uint64_t at = list != nullptr ? list->find(owner, generation, place) : CallStack::kNone;
  if (at == CallStack::kNone) {
    if (goroutine.g == 0) look_for_move(task, owner, address);
  } else if (is_anothers(*list, place)) {
    for (; at != CallStack::kNone; at = list->find(owner, generation, place)) list->give_up(at, GivesUp{task});
  }
  return {list, at};
}

bool open_kept_calls(CallStack& list) {
  if (list.kept != nullptr) return true;
  const bool is_goroutines = list.base != 0;
  const std::uint64_t memory = is_goroutines ? g_process.goroutines.kept_calls : g_process.tasks.kept_calls;
  const std::uint64_t bytes = is_goroutines ? kGoroutineKeptBytes : kKeptCallsBytes;
  const std::uint64_t index = is_goroutines ? index_of_goroutines(list) : number_of(list) - NotedPlaces::kFirstList;
  if (memory == 0 || !make_accessible(memory + index * bytes, bytes)) return false;
  list.kept = reinterpret_cast<KeptCall*>(memory + index * bytes);
  for (std::uint64_t i = 0; i < list.depth; ++i) list.kept[i].family = nullptr;
  return true;
}

void let_go(CallStack& list) {
  __atomic_store_n(&reinterpret_cast<std::uint64_t*>(g_process.goroutines.owners)[list.slot], 0,
                   __ATOMIC_RELEASE);  // pairs with claim_list()
}

}  // namespace ubp::runtime
