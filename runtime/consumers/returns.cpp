// See returns.h. Compiled without vector registers.
//
// Context: consumers of hits. Calls nothing but consumers. Async-signal-safe: as they are.
#include "runtime/consumers/returns.h"

#include <x86gprintrin.h>

#include "runtime/consumers/call_lists.h"
#include "xol/emulate.h"

namespace ubp::runtime {
namespace {

using trap::Counter;
using trap::g_process;
using trap::TaskState;

std::uint64_t& general_register(const ubp_context& hit, unsigned number) {
  return hit.save != nullptr ? hit.save->registers[number] : hit.registers->general(number);
}

__extension__ using Product = unsigned __int128;
// Of two spans together at least what it is of each.
std::uint64_t ns_of(std::uint64_t ticks) {
  return static_cast<std::uint64_t>(static_cast<Product>(ticks) * g_process.tasks.ns_per_tick >> 32);
}

constexpr std::uint8_t kArguments[kKeptArguments] = {UBP_RDI, UBP_RSI, UBP_RDX, UBP_RCX, UBP_R8, UBP_R9};

// While it lives the hit has a call's arguments where they were at its entry.
class ArgumentsAgain {
 public:
  ArgumentsAgain(const ubp_context& hit, const KeptCall& call) : hit_(hit) {
    for (unsigned i = 0; i < kKeptArguments; ++i) {
      std::uint64_t& place = general_register(hit, kArguments[i]);
      before_[i] = place;
      place = call.arguments[i];
    }
  }
  ~ArgumentsAgain() {
    for (unsigned i = 0; i < kKeptArguments; ++i) general_register(hit_, kArguments[i]) = before_[i];
  }
  ArgumentsAgain(const ArgumentsAgain&) = delete;
  ArgumentsAgain& operator=(const ArgumentsAgain&) = delete;

 private:
  const ubp_context& hit_;
  std::uint64_t before_[kKeptArguments];
};

SeenCall seen(const KeptCall& kept, std::uint64_t elapsed) {
  const std::uint64_t self = elapsed > kept.inner ? elapsed - kept.inner : 0;
  return {elapsed, self, kept.depth, kept.begin, (kept.flags & KeptCall::kAgain) != 0 ? 1U : 0U};
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

// Whether a consumer of the hit is the last of those whose calls' times are net: what the trap takes is taken off once.
bool is_last_net(const ubp_context* context) {
  for (const Consumer* later = context->consumer->next; later != nullptr; later = later->next) {
    const void* const data = later->action.data;
    const bool is_entry = later->action.function == &note_entry, is_exit = later->action.function == &note_exit;
    if (is_entry && static_cast<const ReturnFunction*>(data)->owner->is_net) return false;
    if (is_exit && static_cast<const ReturnExit*>(data)->owner->is_net) return false;
  }
  return true;
}

// Whether a frame of another owner was noted at this hit: all who note a call there do so one after the other.
bool is_of_hit(const ubp_context* context, const CallFrame& frame) {
  const auto* const owner = static_cast<const ReturnOwner*>(frame.owner);
  if (frame.generation != __atomic_load_n(&owner->generation, __ATOMIC_RELAXED)) return false;  // a number
  for (const Consumer* later = context->consumer->next; later != nullptr; later = later->next) {
    const bool is_entry = later->action.function == &note_entry;
    if (is_entry && static_cast<const ReturnFunction*>(later->action.data)->owner == owner) return false;
  }
  return true;
}

// While it lives the task is in a probe.
class ProbeTime {
 public:
  ProbeTime(const ubp_context* context, const ReturnOwner& owner)
      : context_(context), is_net_(owner.is_net), begin_(owner.family != nullptr ? __rdtsc() : 0) {}
  ~ProbeTime() {
    if (list_ == nullptr) return;
    if (is_net_) {
      const bool has_trapped = context_->registers != nullptr && is_last_net(context_);
      list_->end_probe(begin_, __rdtsc() - begin_ + (has_trapped ? g_process.tasks.trap_ticks : 0));
    }
    if (list_->base != 0 && list_->depth == 0) let_go(*list_);
  }
  ProbeTime(const ProbeTime&) = delete;
  ProbeTime& operator=(const ProbeTime&) = delete;

  // The probe works on this list. Null: on none.
  void spend_on(CallStack* list) {
    list_ = list;
    if (is_net_ && list != nullptr) list->begin_probe(begin_);
  }
  std::uint64_t begin() const { return begin_; }

 private:
  const ubp_context* context_;
  CallStack* list_ = nullptr;
  bool is_net_;
  std::uint64_t begin_;  // of the timestamp counter
};

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

// Whether a frame's call may be there: in its own function, or where that has jumped. Else another call has the place
// of one that was left, and nobody has noted its entry.
bool may_be_at(const ReturnExit& exit, const CallFrame& frame) {
  return frame.function->entry - exit.low < exit.high - exit.low || exit.is_in_part ||
         (frame.flags & CallFrame::kHasJumped) != 0;
}

// Tells the owner that a call has returned. kept: what is kept of it, if its owner has a family. False: the task is
// another one now, a child that the consumer has forked.
bool tell(const ubp_context* context, const ReturnFunction& function, const KeptCall* kept, std::uint64_t elapsed) {
  TaskState* const task = context->task;
  count(task, Counter::kPerformed, counter_of(function.told));
  if (function.told.action.function == nullptr) return true;
  const ubp_context hit{context->registers, context->save, task, &function.told};
  if (kept == nullptr) {
    function.told.action.function(&hit, function.told.action.data);
  } else {
    const CallContext told{hit, seen(*kept, elapsed)};
    if (function.owner->keeps_arguments) {
      const ArgumentsAgain arguments(hit, *kept);
      function.told.action.function(&told.hit, function.told.action.data);
    } else {
      function.told.action.function(&told.hit, function.told.action.data);
    }
  }
  return task->tid.load(std::memory_order_relaxed) != 0;
}

// The last time, of a call that is in the list no more.
bool tell_return(const ubp_context* context, const CallFrame& frame, const KeptCall* kept) {
  if ((frame.flags & CallFrame::kHasReturned) != 0) count(context->task, Counter::kPerformed, frame.function->entries);
  return tell(context, *frame.function, kept, kept != nullptr ? kept->elapsed : 0);
}

// More than a frame is kept of the call that has just been noted.
void keep_call(const ubp_context* context, const ReturnFunction& function, CallStack& stack, std::uint64_t now) {
  const ReturnOwner& owner = *function.owner;
  const bool is_first = stack.keep(owner.family, now, owner.is_net);
  KeptCall& kept = stack.kept[stack.depth - 1];
  for (unsigned i = 0; is_first && owner.keeps_arguments && i < kKeptArguments; ++i)
    kept.arguments[i] = general_register(*context, kArguments[i]);
  if (owner.entered == nullptr) return;
  const CallContext entered{{context->registers, context->save, context->task, &function.told}, seen(kept, 0)};
  owner.entered(&entered.hit, owner.entered_data);
}

}  // namespace

void note_entry(const ubp_context* context, void* data) {
  const auto& function = *static_cast<const ReturnFunction*>(data);
  const ReturnOwner& owner = *function.owner;
  ProbeTime time(context, owner);
  TaskState* const task = context->task;
  if (task->tid.load(std::memory_order_relaxed) == 0) return;  // a child that another consumer forked
  const bool keeps = owner.family != nullptr;
  const std::uint64_t address = general_register(*context, UBP_RSP);
  const std::uint16_t generation = __atomic_load_n(&owner.generation, __ATOMIC_RELAXED);
  std::uint64_t returns_to = 0;
  CallStack* const stack = list_to_note(task, address);
  time.spend_on(stack);
  const std::uint64_t place = stack != nullptr ? address - stack->base : 0;
  const GivesUp gives_up{task};
  const bool has_room = stack != nullptr && (!keeps || open_kept_calls(*stack)) &&
                        stack->make_room(IsLeft(*stack, place), gives_up) &&
                        read_return_address(*stack, address, returns_to) == Word::kThere;
  noted_places().note(address, has_room ? number_of(*stack) : NotedPlaces::kNobody);
  const bool asks = (owner.is_for_other_hits || !has_room) && stack != nullptr;
  const std::uint64_t before = asks ? stack->find(&owner, generation, place) : CallStack::kNone;
  if (!has_room) {
    if (before != CallStack::kNone) stack->give_up(before, gives_up);  // else it would be taken for this one
    count(task, Counter::kMissed, counter_of(function.told));
    return;
  }
  const bool is_doubtful =
      before != CallStack::kNone && stack->frames[before].returns_to == returns_to && stack->frames[before].flags == 0;
  stack->enter(
      {place, returns_to, &function, &owner, context->consumer->point, generation, 0}, IsLeft(*stack, place),
      [context](const CallFrame& other) { return is_of_hit(context, other); }, gives_up);
  if (keeps) keep_call(context, function, *stack, time.begin());
  if (is_doubtful) stack->kept[stack->depth - 1].flags |= KeptCall::kDoubtful;
}

void note_exit(const ubp_context* context, void* data) {
  const auto& exit = *static_cast<const ReturnExit*>(data);
  ProbeTime time(context, *exit.owner);
  TaskState* const task = context->task;
  const std::uint64_t address = general_register(*context, UBP_RSP);
  const std::uint16_t generation = __atomic_load_n(&exit.owner->generation, __ATOMIC_RELAXED);
  const FoundCall found = find_call(task, address, exit.owner, generation);
  time.spend_on(found.list);
  std::uint64_t at = found.at, returns_to = 0;
  if (found.list == nullptr || at == CallStack::kNone) return;
  CallStack& stack = *found.list;
  if (read_return_address(stack, address, returns_to) != Word::kThere) return;
  const std::uint64_t place = address - stack.base;
  const GivesUp gives_up{task};
  if (exit.kind != decoder::Exit::Kind::kReturn) {
    const Way way = way_of(context, exit);
    if (way == Way::kStays) return;
    for (; at != CallStack::kNone; --at) {
      CallFrame& frame = stack.frames[at];
      if (frame.place != place) return;
      if (frame.owner == exit.owner && frame.generation == generation && frame.returns_to == returns_to &&
          may_be_at(exit, frame)) {
        if (way == Way::kFollowed) {
          frame.flags |= CallFrame::kHasJumped;
        } else {
          count(task, Counter::kMissed, counter_of(frame.function->told));
          stack.give_up(at, [](const CallFrame&) {});
        }
      }
      if (at == 0) return;
    }
    return;
  }
  for (; at != CallStack::kNone; at = stack.find(exit.owner, generation, place)) {
    const CallFrame frame = stack.frames[at];
    if (frame.returns_to != returns_to || !may_be_at(exit, frame)) {
      stack.give_up(at, gives_up);
      continue;
    }
    const bool comes_again = frame.function->returns_twice && general_register(*context, UBP_RAX) == 0 &&
                             (frame.flags & CallFrame::kHasReturned) == 0;
    if (comes_again) {
      stack.frames[at].flags |= CallFrame::kHasReturned;
      const KeptCall* const kept = exit.owner->family != nullptr ? &stack.kept[at] : nullptr;
      tell(context, *frame.function, kept, kept != nullptr ? ns_of(kept->ticks(time.begin(), stack.probe_ticks)) : 0);
      return;
    }
    stack.give_up_below(place, IsLeft(stack, place), gives_up);
    at = stack.find(exit.owner, generation, place);  // those behind it may be gone
    if (exit.owner->family == nullptr) {
      stack.remove(at);
      if (!tell_return(context, frame, nullptr)) return;
      continue;
    }
    const void* const family = exit.owner->family;
    if (at + 1 != stack.depth) stack.set_apart(family, at + 1, stack.depth, place);
    stack.end_calls(place, returns_to, family, time.begin(), &ns_of);
    const KeptCall kept = stack.kept[at];
    stack.remove(at);
    if (!tell_return(context, frame, &kept)) return;
  }
}

}  // namespace ubp::runtime
