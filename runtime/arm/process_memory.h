// The memory the trap path works in: task states, counters, XOL areas, permanent slots. Fills trap::g_process.
//
// Context: load time; read_counters() also at exit. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runtime/report/summary.h"
#include "runtime/trap/trap_state.h"
#include "xol/displaced.h"
#include "xol/shared_slots.h"

namespace ubp::runtime {

struct TaskMemoryPlan {
  std::uint32_t slots = 0;   // per task and area
  std::uint32_t points = 0;  // counters per task: one a probepoint, later ones included, and one a consumer
  xol::Policy policy = xol::Policy::kThread;
};

// Reserves states and counters for as many tasks as address space allows (16384, halved down to 16), in memory that a
// forked child finds zeroed. Pages are used only when a task touches them. Returns what the kernel said, or nothing.
std::optional<std::string> map_task_memory(const TaskMemoryPlan& plan);

// The counters as they are, and whatever is added to them, go into a file, whose pages others may read, from `offset`
// on: as many bytes as counter_room(). The file may be closed afterwards. Returns whether they do; where the memory was
// denied they stay. Context: load time, while this is the only thread that counts.
std::uint64_t counter_room();
bool share_counters(int file, std::uint64_t offset);

// The index of an XOL area for code in [low, high); makes one when none is in reach. Nothing: no room, or denied.
std::optional<std::uint32_t> find_or_make_area(std::uint64_t low, std::uint64_t high);

// Writes the permanent slots of all Route::kSystem points (private memory, executable only once written) and sets
// Displaced::permanent. May be called again for further points. Returns true when some could not be
// made.
bool make_permanent_slots(std::vector<xol::Displaced>& points);
// Whether the probepoint has its permanent slot, or needs none.
bool has_permanent_slot(const xol::Displaced& point);

// Makes the calling thread's state, with its stack as far as RLIMIT_STACK lets it grow (at most 8 MiB). Load time.
void adopt_loading_thread();
// Where the main thread's stack may grow: no hit is to make it (trap/reads.h).
void find_stack_gap();

// Decides whether hits may leave by user-mode return, from what the processor and the kernel offer.
void set_return_mode();

// The runtime's own probepoint (trap::ubp_calibration_point), to be added behind the planned ones.
xol::Displaced calibration_point();

// What one counted hit costs in this process now, in nanoseconds: the median of 9 groups of 4 hits of the calibration
// point. About 0.1 ms. 0 when a trap would not reach the runtime (SIGTRAP blocked or taken by a raw system call).
double measure_hit_ns();

// Traps of libubp's own code at the application's probepoints, over all tasks.
std::uint64_t read_own_traps();

// The slot statistics. own_points: so many probepoints of the table, the first ones, are the runtime's own; a thread
// that has hit no other is not one of the threads seen.
void read_slot_stats(std::uint32_t own_points, report::XolStats& stats);

// Counters of one name by probepoint, summed over all tasks: of all probepoints, or of `count` of them from `first` on.
// Costs what was counted, not tasks times probepoints.
std::vector<std::uint64_t> read_counters(trap::Counter name);
std::vector<std::uint64_t> read_counters(trap::Counter name, std::uint32_t first, std::uint32_t count);

}  // namespace ubp::runtime
