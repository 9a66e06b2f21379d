// What the trap path knows of the process, grouped by what it serves. Decisions take the groups that they need.
//
// Written by the rooms above at load (before the first int3 is armed) and by the trap path itself. Plain data.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/table/detour_save.h"
#include "runtime/table/detour_view.h"
#include "runtime/table/table_view.h"
#include "runtime/trap/task_state.h"
#include "xol/area.h"
#include "xol/shared_slots.h"
#include "xol/slot_cache.h"

namespace ubp::trap {

struct Context;

struct PermanentSlots {
  std::uint64_t base = 0;   // RX pages, each written once before it is executable; kSlotBytes a slot
  std::uint64_t bytes = 0;  // reserved
  std::uint64_t used = 0;   // of them written, in whole pages
};

inline constexpr std::uint32_t kHeatEntries = 65536;

// Where displaced instructions are executed: XOL areas near the code, with slots of each task's own and slots that
// tasks share, and permanent slots.
struct Slots {
  xol::CacheGeometry geometry;
  xol::AreaLayout layout;
  xol::Area areas[xol::kMaxAreas];
  xol::Policy policy = xol::Policy::kThread;
  xol::SharedSlots shared[xol::kMaxAreas];
  std::uint8_t* heat = nullptr;  // policy adaptive: refills by probepoint modulo kHeatEntries, roughly
  std::uint32_t area_count = 0;
  PermanentSlots permanent[xol::kMaxAreas];  // one group per area

  [[gnu::always_inline]] bool holds(std::uint64_t address) const {
    for (std::uint32_t area = 0; area < area_count; ++area) {
      if (address - areas[area].rx < layout.area_bytes) return true;
      if (address - permanent[area].base < permanent[area].bytes) return true;
    }
    return false;
  }
  // A task's cache of one area.
  [[gnu::always_inline]] inline xol::SlotCache cache(TaskState* task, std::uint32_t area) const {
    const std::uint64_t per_area = geometry.slots * sizeof(xol::SlotCache::Tag) + geometry.sets;
    std::uint8_t* at = reinterpret_cast<std::uint8_t*>(task + 1) + area * ((per_area + 7) & ~std::uint64_t{7});
    return {reinterpret_cast<xol::SlotCache::Tag*>(at), at + geometry.slots * sizeof(xol::SlotCache::Tag), geometry};
  }
};

// Fork generations: the word lives in wiped memory, so zero means "a forked child that has not set itself up".
// Otherwise kReady, or the tid of the task that is setting up, shifted left by one.
inline constexpr std::uint32_t kReady = 1;

// The tasks: what each has by the number of its block, and who has one.
struct Tasks {
  std::uint32_t blocks = 0;        // AreaLayout::blocks
  std::uint8_t* states = nullptr;  // blocks x state_bytes
  std::uint64_t state_bytes = 0;
  std::uint8_t* counters = nullptr;  // blocks x counter_bytes
  std::uint64_t counter_bytes = 0;
  bool shares_counters = false;       // they lie in a session's file, which a forked child's are not to be in
  std::uint64_t counted = 0;          // probepoints and actions: counters of each name in a task
  std::uint64_t stacks = 0;           // blocks x own_stack_bytes
  std::uint64_t own_stack_bytes = 0;  // UBP's own signal stack of one task; its lowest page stays inaccessible
  bool keeps_stacks = false;          // the process has Go code: frame.h
  std::uint64_t rings = 0;            // blocks x record::kRingBytes; 0: no probe ever recorded
  std::uint64_t call_stacks = 0;      // blocks x kCallStackBytes (consumers/call_stack.h); 0: no returns were asked for
  std::uint64_t kept_calls = 0;       // blocks x kKeptCallsBytes; 0: no more is kept of calls
  std::uint64_t ns_per_tick = 0;      // of the timestamp counter, as calls are timed: times 2^32
  std::uint64_t trap_ticks = 0;       // that a hit takes by a trap, where times are to be without; 0: not measured
  std::uint64_t noted_places = 0;     // consumers/noted_places.h; there with call_stacks
  std::atomic<bool> calls_move{false};  // a call that one task has noted was seen to end in another
  std::atomic<std::uint32_t>* fork_state = nullptr;
  std::atomic<std::uint32_t>* high_water = nullptr;  // blocks ever claimed
  std::atomic<std::uint32_t>* threads_seen = nullptr;
  std::atomic<std::uint64_t>* taken_out = nullptr;  // hits of tasks without a state: counted nowhere else
  std::uint32_t pid = 0;                            // of the process that these states belong to
  std::atomic<bool> shares_tls{false};              // some task runs on another's TLS: never trust it without asking
  std::uint64_t loading_tls = 0;                    // the TLS of the thread that has loaded libubp

  // How many blocks were ever claimed.
  [[gnu::always_inline]] std::uint32_t used_blocks() const {
    if (high_water == nullptr) return 0;
    const std::uint32_t used = high_water->load(std::memory_order_acquire);  // pairs with claims
    return used < blocks ? used : blocks;
  }
  // Where a name's counters begin among a task's.
  [[gnu::always_inline]] std::uint64_t offset_of(Counter name) const {
    return static_cast<std::uint64_t>(name) * counted;
  }
  std::uint64_t* counters_of(std::uint32_t block) const {
    return reinterpret_cast<std::uint64_t*>(counters + block * counter_bytes);
  }
  TaskState* state(std::uint32_t block) const { return reinterpret_cast<TaskState*>(states + block * state_bytes); }
  // The lowest address of a task's own stack, as the kernel is told.
  [[gnu::always_inline]] std::uint64_t stack_of(std::uint32_t block) const {
    return stacks + block * own_stack_bytes + xol::kPageBytes;
  }
  // The end of what signal frames and consumers may use of it; there the task's DetourSave begins.
  [[gnu::always_inline]] std::uint64_t stack_end(std::uint32_t block) const {
    return stack_of(block) + own_stack_bytes - xol::kPageBytes - runtime::kDetourSaveBytes + runtime::kDetourSaveSkew;
  }
  [[gnu::always_inline]] bool is_own_stack(std::uint64_t address) const {
    return address - stacks < blocks * own_stack_bytes;
  }
};

// The lists of calls of goroutines (consumers/call_lists.h), where the process has Go code and what runs is known.
struct Goroutines {
  std::atomic<bool> are_found{false};
  std::int64_t word = 0;         // from %fs:0, where Go's runtime has the address of what it knows of the running one
  std::uint64_t owners = 0;      // `lists` words: whose list it is; 0: nobody's
  std::uint64_t numbers = 0;     // beside them, of the lists, from 1; 0: it has none yet
  std::uint64_t memory = 0;      // lists x kGoroutineListBytes; they are given out in order
  std::uint64_t kept_calls = 0;  // lists x kGoroutineKeptBytes; 0: no more is kept of calls
  std::uint32_t lists = 0;       // a power of two
  std::atomic<std::uint32_t> used{0};  // of them
};

// Between the main thread's stack and what is mapped below: a read there would make the stack grow.
struct StackGap {
  std::uint64_t low = 0;
  std::atomic<std::uint64_t> high{0};  // the lowest address that is known to be the stack's
};

// Counting in one instruction (segment.h).
struct Segment {
  bool is_used = false;                           // detours may count so (by atomic accesses)
  std::atomic<std::uint32_t> uncounted_tasks{0};  // for which there were no counters: what they hit so is lost
  std::uint64_t unread = 0;                       // counter_bytes below 2 GiB that nobody reads; 0: never made
};

// What the processor and the kernel can do.
struct Processor {
  std::uint32_t pkru_offset = 0;  // of PKRU in the XSAVE image; 0: the system has no protection keys
  bool has_fsgsbase = false;      // %gs can be set without a system call
  bool fast_return = false;       // user-mode return is possible at all
};

// What the trap path calls of the rooms above it. null: nobody asks.
struct Upcalls {
  void (*run_consumers)(Context*, TaskState*, std::uint32_t point,
                        std::uint64_t consumed) = nullptr;  // consumers/run_consumers.cpp
  std::uint64_t on_modules_changed = 0;   // the function called in place of the dynamic linker's r_brk; 0: none
  void (*on_exit)(int status) = nullptr;  // preload/entry.cpp: called in place of an exit_group outside libc
  bool (*report_death)() = nullptr;       // preload/exit_report.cpp: a signal ends the process; returns whether the
                                          // text is as it was
  void (*before_exec)(const char* path) = nullptr;  // preload/entry.cpp: a program is about to be executed. path: may
                                                    // be null itself
  void (*leave_segment)() = nullptr;                // called before a task sets its %gs, or forbids itself to
  void (*before_sharing_tls)() = nullptr;  // called when a task is about to be made on its maker's TLS, or one of its
                                           // own making
  void (*promote)(std::uint32_t point) = nullptr;  // api/lifecycle.cpp: a probepoint is hot
};

// The trap path's own code.
struct Text {
  std::uint64_t low = 0, high = 0;
  [[gnu::always_inline]] bool holds(std::uint64_t address) const { return address - low < high - low; }
};

// What an address of code is: a probepoint, in a slot, in a detour, in the trap path.
struct CodeMap {
  runtime::TableView table;
  std::uint32_t own_points = 0;  // the first ones in the table: the runtime's
  Slots slots;
  runtime::DetourView detours;
  Text text;

  // The probepoint whose instruction a slot holds that is no single task's, by the slot's begin; or runtime::kNotFound.
  [[gnu::always_inline]] std::uint32_t point_of_slot(std::uint64_t begin) const {
    return table.find(static_cast<std::uint64_t>(xol::shared_origin(begin)));
  }
  // Whether a RIP may have to be translated: it lies in the runtime's code, or in what it has made.
  [[gnu::always_inline]] bool is_in_runtime(std::uint64_t rip) const {
    return text.holds(rip) || detours.chunk_of(rip) != nullptr || slots.holds(rip);
  }
};

struct Process : CodeMap {
  Tasks tasks;
  Goroutines goroutines;
  Segment segment;
  Upcalls upcalls;
  Processor processor;
  std::atomic<bool> is_sandboxed{false};  // it has a system call filter of its own making: nothing new is asked of the
                                          // kernel
  bool has_gate = false;                  // libc's own rt_sigprocmask and rt_sigaction pass gate.h
  bool misses_gate = false;               // but one of them, or of another module that is watched, does not
  StackGap stack_gap;
};

}  // namespace ubp::trap
