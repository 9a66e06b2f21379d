// A probepoint's consumers, as the trap path and detours run them. Plain data: its reader (run_consumers.cpp) is
// compiled without vector registers.
#pragma once

#include <cstdint>

#include "runtime/include/ubp.h"
#include "runtime/trap/hit.h"
#include "runtime/trap/trap_state.h"

namespace ubp::stack {
struct FrameTables;
}

namespace ubp::runtime {

// What a probe does at each of its hits. Every kind is performed by a call; a detour may do without
// (ActionNeeds::block, table/action.h).
struct Action {
  ActionKind kind = ActionKind::kCount;
  ubp_consumer function = nullptr;  // performs it; null: kCount
  void* data = nullptr;
  ActionNeeds needs;
  // What it is called with: a hit; a return; a call that returns, of which more is kept (CallContext).
  enum Seen : std::uint8_t { kHit, kReturn, kCall } seen = kHit;
};

// A probe's action at one probepoint. Immutable once published.
struct Consumer {
  Action action;
  const Consumer* next;  // at the same probepoint; null: none
  // Bytes from TaskState::jumped to Counter::kPerformed of the action; negative, since those stand before.
  std::int64_t counter_offset;
  ubp_probe* probe;
  std::uint32_t point;  // index of the probepoint
  ubp_probe* handle;    // as the C interface has it: one for several probes
  std::uint32_t needs;  // ActionNeeds::bits(): a detour that lacks some leaves it out, as not there yet
};

// Consumer::counter_offset of the action with these counters.
inline std::int64_t from_jumped(std::uint32_t counter) {
  return (std::int64_t{counter} - static_cast<std::int64_t>(trap::g_process.tasks.offset_of(trap::Counter::kJumped))) *
         8;
}
// The other way: their index among those of one name.
inline std::uint32_t counter_of(const Consumer& consumer) {
  return static_cast<std::uint32_t>(consumer.counter_offset / 8 +
                                    static_cast<std::int64_t>(trap::g_process.tasks.offset_of(trap::Counter::kJumped)));
}

extern const Consumer** g_consumers;              // by probepoint: the first one; null: none
extern std::int64_t g_errno_offset;               // of errno, from %fs:0
extern std::int32_t g_cancel_offset;              // of the thread's cancellation state (cancellation.h); 0: not known
extern const stack::FrameTables* g_frame_tables;  // for consumers that walk stacks; null: there never was one

// Called by the trap path with the task marked (trap/consume.h). consumed: trap::Consumed. Detours do the same in
// machine code (runtime/jump/call_code.cpp).
void run_consumers(trap::Context* uc, trap::TaskState* task, std::uint32_t point, std::uint64_t consumed);
// Performs ActionKind::kRecord. What it writes: record/rings.h.
void record_hit(const ubp_context* context, void* data);

}  // namespace ubp::runtime

struct ubp_context {
  ubp::trap::Context* registers;   // of a trap; null:
  ubp::runtime::DetourSave* save;  // of a detour
  ubp::trap::TaskState* task;
  const ubp::runtime::Consumer* consumer;
};
static_assert(sizeof(ubp_context) == sizeof(ubp::runtime::DetourSave::context));
static_assert(offsetof(ubp_context, task) == ubp::runtime::kContextTask * sizeof(void*));
static_assert(offsetof(ubp_context, consumer) == ubp::runtime::kContextConsumer * sizeof(void*));

namespace ubp::runtime {

// What is kept of a call, as consumers see it: at its return, or where it is entered.
struct SeenCall {
  std::uint64_t elapsed, self;  // ns; self: without that of the calls in it
  std::uint64_t depth;
  std::uint64_t begin;     // of the timestamp counter
  std::uint64_t is_again;  // another registration of the family has been told of it, too
};
// What consumers of returns are passed whose owner has a family (returns.h). The call's arguments stand in the
// registers of the hit, where they are kept.
struct CallContext {
  ubp_context hit;
  SeenCall call;
};

// Ends the call whose first instruction the hit is at, once all of its consumers have run: it returns this value.
// False: the probe has not asked for that, or another consumer of the hit was first.
[[gnu::always_inline]] inline bool override_call(const ubp_context& hit, std::uint64_t value) {
  if (!hit.consumer->action.needs.overrides) return false;
  trap::Continuation* const next = hit.save == nullptr ? &trap::continuation(hit.registers) : nullptr;
  std::uint64_t& is_overridden = next != nullptr ? next->is_overridden : hit.save->is_overridden;
  if (is_overridden != 0) return false;
  (next != nullptr ? next->returned : hit.save->returned) = value;
  is_overridden = 1;
  return true;
}

}  // namespace ubp::runtime
