// See call_event.h. Compiled without vector registers.
#include "runtime/consumers/outer_calls.h"
#include "runtime/helpers/call_event.h"
#include "runtime/helpers/helpers.h"
#include "runtime/helpers/point_names.h"

namespace ubp::program {
namespace {

// Null: there is no room, or it is told elsewhere, or it is too deep.
CallEvent* begin(Run* run, CallEvent::Kind kind) {
  const Machine& machine = *run->machine;
  const auto& call = reinterpret_cast<const runtime::CallContext*>(run->context)->call;
  if (call.is_again != 0 || call.depth >= machine.tree_depth) return nullptr;
  const PointName* const name = name_of(run);
  std::uint64_t letters = 0;
  while (name != nullptr && letters + 1 < kNameBytes && name->function[letters] != '\0') ++letters;
  const std::uint64_t words = letters / sizeof(std::uint64_t) + 1;
  std::uint64_t* const event = begin_event(run, machine.tree_event, kCallEventWords + words);
  if (event == nullptr) return nullptr;
  for (std::uint64_t i = 0; i < words; ++i) {
    std::uint64_t word = 0;
    if (name != nullptr) __builtin_memcpy(&word, name->function + i * sizeof word, sizeof word);
    event[kCallEventWords + i] = word;
  }
  auto* const its = reinterpret_cast<CallEvent*>(event);
  its->kind = kind;
  its->begin = call.begin;
  its->depth = call.depth;
  its->task = thread_id(run);
  return its;
}

}  // namespace

void tree_entered(const ubp_context* context, void* machine) {
  constexpr std::uint64_t kArguments[] = {7, 6, 2, 1, 8, 9};  // psABI 3.2.3
  const trap::TaskState* const task = context->task;
  Run run{static_cast<Machine*>(machine), context, 0, 0, task != nullptr ? task->block + 1U : 0, nullptr};
  if (__atomic_load_n(&run.machine->control->gate, __ATOMIC_RELAXED) != Control::kOpen) return;
  CallEvent* const event = begin(&run, CallEvent::kEntered);
  if (event == nullptr) return;
  for (unsigned i = 0; i < 6; ++i) event->values[i] = register_value(&run, kArguments[i]);
  end_event(&run, &event->kind);
}

void tree_returned(Run* run) {
  CallEvent* const event = begin(run, CallEvent::kReturned);
  if (event == nullptr) return;
  const auto& call = reinterpret_cast<const runtime::CallContext*>(run->context)->call;
  event->values[0] = call.elapsed;
  event->values[1] = call.self;
  event->values[2] = register_value(run, 0);
  for (unsigned i = 3; i < 6; ++i) event->values[i] = 0;
  end_event(run, &event->kind);
}

std::uint64_t is_outermost(Run* run) {
  constexpr std::uint64_t kStackPointer = 4;
  return runtime::is_within_another(*run->context, register_value(run, kStackPointer)) ? 0 : 1;
}

}  // namespace ubp::program
