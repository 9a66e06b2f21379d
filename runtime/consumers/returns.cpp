// See returns.h. Compiled without vector registers.
//
// Context: consumers of hits. Calls nothing but consumers. Async-signal-safe: as they are.
#include "runtime/consumers/returns.h"

#include "runtime/trap/read_memory.h"
#include "xol/emulate.h"

namespace ubp::runtime {
namespace {

using trap::Counter;
using trap::g_process;
using trap::TaskState;

// In the task's counters, which others read at any time.
void count(TaskState* task, Counter name, std::uint64_t counter) {
  std::uint64_t& value = task->counters[g_process.tasks.offset_of(name) + counter];
  __atomic_store_n(&value, value + 1, __ATOMIC_RELAXED);
}

enum class Word : std::uint8_t { kThere, kNone, kUnknown };

// A word that may be of a stack that is gone. kUnknown: nothing may be asked.
Word read_word(std::uint64_t address, std::uint64_t& word) {
  if (trap::reads_by_loads(true, address, sizeof word))
    return trap::ubp_read_bytes(&word, address, sizeof word).bytes == sizeof word ? Word::kThere : Word::kNone;
  if (!trap::may_ask()) return Word::kUnknown;
  return trap::read_by_call(address, &word, sizeof word) == sizeof word ? Word::kThere : Word::kNone;
}

bool is_left(const CallFrame& frame) {
  std::uint64_t word = 0;
  const Word got = read_word(frame.place, word);
  return got == Word::kNone || (got == Word::kThere && word != frame.returns_to);
}

// Calls that were not seen to return. Those of an owner that has paused since are nobody's.
class GivesUp {
 public:
  explicit GivesUp(TaskState* task) : task_(task) {}
  void operator()(const CallFrame& frame) const {
    if (frame.generation == __atomic_load_n(&frame.function->owner->generation, __ATOMIC_RELAXED))  // a number
      count(task_, Counter::kLeft, frame.function->entries);
  }

 private:
  TaskState* task_;
};

// The calling task's list; null: memory is denied.
CallStack* open_call_stack(TaskState* task) {
  if (g_process.tasks.call_stacks == 0 || !trap::may_ask()) return nullptr;
  const std::uint64_t at = g_process.tasks.call_stacks + task->block * kCallStackBytes;
  if (sys::failed(sys::call4(SYS_mprotect, static_cast<long>(at), kCallStackBytes, PROT_READ | PROT_WRITE)))
    return nullptr;
  auto* const stack = reinterpret_cast<CallStack*>(at);
  // A forked child goes on in the calls that its parent's thread was in. It is alone: that one's list does not change.
  trap::Thread* const thread = task->storage;
  const auto* const from = thread != nullptr ? reinterpret_cast<const CallStack*>(thread->call_stack) : nullptr;
  if (from != nullptr && from != stack) {
    stack->depth = from->depth;
    stack->seams = from->seams;
    stack->waits = from->waits;
    for (std::uint64_t i = 0; i < from->depth; ++i) {
      stack->frames[i] = from->frames[i];
      asm volatile("" ::: "memory");  // no call of memcpy
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

CallStack* call_stack_of(TaskState* task) {
  if (task->call_stack != 0) [[likely]]
    return reinterpret_cast<CallStack*>(task->call_stack);
  return open_call_stack(task);
}

std::uint64_t general_register(const ubp_context& hit, unsigned number) {
  return hit.save != nullptr ? hit.save->registers[number] : hit.registers->general(number);
}

bool is_followed(const ReturnOwner& owner, std::uint64_t address) {
  const CodeSpans& known = *__atomic_load_n(&owner.followed, __ATOMIC_ACQUIRE);  // pairs with its publication
  std::uint64_t low = 0, high = known.count;
  while (low < high) {
    const std::uint64_t middle = (low + high) / 2;
    if (known.spans[middle].begin <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low != 0 && address < known.spans[low - 1].end;
}

enum class Way : std::uint8_t { kStays, kFollowed, kUnknown };

Way way_of(const ubp_context* context, const ReturnExit& exit) {
  if (exit.kind == decoder::Exit::Kind::kJump) {
    const bool is_taken =
        exit.condition == decoder::Exit::kAlways || xol::condition_holds(exit.condition, ubp_context_flags(context));
    return !is_taken ? Way::kStays : exit.is_followed ? Way::kFollowed : Way::kUnknown;
  }
  std::uint64_t target = 0;
  if (exit.operand.is_memory) {
    if (exit.operand.segment == 1 || exit.operand.segment == 2) return Way::kUnknown;
    xol::Registers registers;
    std::uint64_t values[16];
    for (unsigned i = 0; i < 16; ++i) {
      values[i] = general_register(*context, i);
      registers.gpr[i] = &values[i];
    }
    if (read_word(xol::effective_address(exit.operand, registers, exit.next), target) != Word::kThere)
      return Way::kUnknown;
  } else {
    target = general_register(*context, exit.operand.base);
  }
  if (target - exit.low < exit.high - exit.low) return Way::kStays;
  return is_followed(*exit.owner, target) ? Way::kFollowed : Way::kUnknown;
}

// Tells the owner that a call has returned. False: the task is another one now, a child that the consumer has forked.
bool tell(const ubp_context* context, const ReturnFunction& function) {
  TaskState* const task = context->task;
  count(task, Counter::kPerformed, counter_of(function.told));
  if (function.told.action.function == nullptr) return true;
  const ubp_context told{context->registers, context->save, task, &function.told};
  function.told.action.function(&told, function.told.action.data);
  return task->tid.load(std::memory_order_relaxed) != 0;
}

}  // namespace

void note_entry(const ubp_context* context, void* data) {
  const auto& function = *static_cast<const ReturnFunction*>(data);
  TaskState* const task = context->task;
  if (task->tid.load(std::memory_order_relaxed) == 0) return;  // a child that another consumer forked
  CallStack* const stack = call_stack_of(task);
  const GivesUp gives_up{task};
  if (stack == nullptr || !stack->make_room(is_left, gives_up)) {
    count(task, Counter::kMissed, counter_of(function.told));
    return;
  }
  const std::uint64_t place = general_register(*context, UBP_RSP);
  std::uint64_t returns_to = 0;
  if (read_word(place, returns_to) != Word::kThere) {
    count(task, Counter::kMissed, counter_of(function.told));
    return;
  }
  stack->enter({place, returns_to, &function, function.owner, context->consumer->point,
                __atomic_load_n(&function.owner->generation, __ATOMIC_RELAXED), 0},
               is_left, gives_up);
}

void note_exit(const ubp_context* context, void* data) {
  const auto& exit = *static_cast<const ReturnExit*>(data);
  TaskState* const task = context->task;
  if (task->call_stack == 0) {  // it has entered nothing, unless it is a forked child
    const bool inherits = task->storage != nullptr && task->storage->call_stack != 0;
    if (task->tid.load(std::memory_order_relaxed) == 0 || !inherits || open_call_stack(task) == nullptr)
      return;  // its own
  }
  auto& stack = *reinterpret_cast<CallStack*>(task->call_stack);
  const std::uint64_t place = general_register(*context, UBP_RSP);
  const std::uint16_t generation = __atomic_load_n(&exit.owner->generation, __ATOMIC_RELAXED);
  std::uint64_t at = stack.find(exit.owner, generation, place);
  if (at == CallStack::kNone) return;
  const GivesUp gives_up{task};
  std::uint64_t returns_to = 0;
  if (read_word(place, returns_to) != Word::kThere) return;
  if (exit.kind != decoder::Exit::Kind::kReturn) {
    const Way way = way_of(context, exit);
    if (way == Way::kStays) return;
    for (; at != CallStack::kNone; --at) {
      CallFrame& frame = stack.frames[at];
      if (frame.place != place) return;
      if (frame.owner == exit.owner && frame.generation == generation && frame.returns_to == returns_to) {
        if (way == Way::kFollowed) {
          frame.flags |= CallFrame::kHasJumped;
        } else {
          count(task, Counter::kMissed, counter_of(frame.function->told));
          stack.remove(at);
        }
      }
      if (at == 0) return;
    }
    return;
  }
  for (; at != CallStack::kNone; at = stack.find(exit.owner, generation, place)) {
    const CallFrame frame = stack.frames[at];
    if (frame.returns_to != returns_to) {
      gives_up(frame);
      stack.remove(at);
      continue;
    }
    const bool comes_again = frame.function->returns_twice && general_register(*context, UBP_RAX) == 0 &&
                             (frame.flags & CallFrame::kHasReturned) == 0;
    if (comes_again) {
      stack.frames[at].flags |= CallFrame::kHasReturned;
      tell(context, *frame.function);
      return;
    }
    stack.give_up_below(place, is_left, gives_up);
    at = stack.find(exit.owner, generation, place);  // those behind it may be gone
    stack.remove(at);
    if ((frame.flags & CallFrame::kHasReturned) != 0) count(task, Counter::kPerformed, frame.function->entries);
    if (!tell(context, *frame.function)) return;
  }
}

}  // namespace ubp::runtime
