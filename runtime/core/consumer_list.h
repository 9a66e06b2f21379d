// A probepoint's consumers, as the trap path and detours run them. Plain data: its reader (run_consumers.cpp) is compiled without
// vector registers.
#pragma once

#include <cstdint>

#include "runtime/include/ubp.h"
#include "runtime/trap/trap_state.h"

namespace ubp::core {

struct Consumer {
  ubp_consumer function;
  void* data;
  ubp_probe* probe;
  std::uint32_t counter;  // among the task counters: its hits, and the missed ones
  std::uint32_t flags;    // UBP_PROBE_*
};

// Immutable once published.
struct ConsumerList {
  std::uint32_t count;
  const Consumer* consumers;
};

extern const ConsumerList** g_consumer_lists;  // by probepoint; null: none
extern std::int64_t g_errno_offset;            // of errno, from %fs:0
// A thread sanitizer does not see what is not compiled for it. Null: there is none.
struct SanitizerHooks {
  void (*acquire)(void*) = nullptr;
  void (*release)(void*) = nullptr;
};
extern SanitizerHooks g_sanitizer;

// Called by the trap path, and by detours with what they saved, with the task marked (trap/consume.h).
void run_consumers(trap::Context* uc, trap::TaskState* task, std::uint32_t point, bool missed);
void run_detour_consumers(xol::DetourSave* save, trap::TaskState* task, const xol::DetourInfo* info);

}  // namespace ubp::core

struct ubp_context {
  ubp::trap::Context* registers;      // of a trap,
  ubp::xol::DetourSave* save;         // or of a detour; both null: the consumer wants none
  std::uint64_t ip;
  const ubp::core::Consumer* consumer;
};
