// What is patched in this process: the probe table, who uses each probepoint, and the text itself. Everything the trap
// path needs is made here, before the first int3 (start()), and extended while the program runs.
//
// A probepoint stays in the table for ever: its displaced instruction, its slot and its counters wait for late traps.
// What comes and goes is its users: with the first the int3 is written, with the last the byte that was there.
//
// Context: normal, under the registry's lock, with the thread marked as inside the runtime. Async-signal-safe: no.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "runtime/arm/process_memory.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/jump/detours.h"
#include "runtime/patch/own_memory.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/plan.h"
#include "runtime/table/runs.h"
#include "runtime/table/table.h"

namespace ubp::runtime {

// Changes of users, made real together by Probepoints::commit() or undone together.
struct Edit {
  std::vector<std::uint32_t> uses, leaves;
};

struct ProbepointsConfig {
  std::uint32_t slots = 64;  // per thread and area
  xol::Policy policy = xol::Policy::kThread;
  Optimize optimize = Optimize::kAuto;
  std::uint32_t probepoints =
      0;  // most there can ever be, but for those of the first registration; 0: some more than these
  std::uint32_t consumers = 0;          // counters for them
  bool leaves_blocked_threads = false;  // ParkedThreads
  bool counts_by_segment = true;        // not where counters are shared: a forked child's %gs is its parent's
};

class Probepoints {
 public:
  bool is_started() const { return table_ != nullptr; }
  // Memory, areas, the table with the runtime's own probepoints. Returns why not (the process is then as it was), or
  // nothing. Called until it succeeds.
  std::optional<std::string> start(const ProbepointsConfig& config, plan::Modules& modules);
  // The runtime's own int3s in libc, the executable and every module that is probed (gate_sites.h), and SIGTRAP: in
  // before the first probe's, out after the last one's. Idempotent. Returns why not, or nothing.
  std::optional<std::string> arm_own();
  std::optional<std::string> disarm_own();
  bool is_own_armed() const { return own_armed_; }
  // Whether threads may have been made that nobody saw, and that count by the %gs of their makers.
  bool has_unseen_threads() const;
  // Run-time addresses of system calls of the modules gated since the last time that ought to pass the gate, and do
  // not.
  std::vector<std::uint64_t> take_unwatched() { return std::exchange(unwatched_, {}); }
  // From the next arm_own() on, calls g_process.upcalls.on_modules_changed when the dynamic linker's list of modules
  // has changed.
  void watch_modules() { watches_modules_ = true; }

  // Gives the plan's points areas and permanent slots, and refuses those that can have none; then takes them into the
  // table. consumer: theirs; null: it has none.
  Runs add(plan::Plan& plan, const plan::Modules& modules, const Consumer* consumer);
  std::size_t room() const { return most_points_ - (table_->view().count - own_end_ - late_own_); }
  std::uint64_t last_address(std::uint32_t index) const { return table_->last_address(index); }
  // Whether the probepoint was ever armed, or may have been counted by a detour: if not, its counters are zero.
  bool may_have_counted(std::uint32_t index) const { return (users_[index] & kWasArmed) != 0 || detours_.has_jumped(); }
  std::uint32_t first_consumer_counter() const { return first_consumer_counter_; }
  // libubp's code, where it is part of the executable.
  static std::vector<plan::CodeRange> own_text();
  static bool is_in_program();

  // Writes what the edit comes to, all of it or nothing, with one synchronisation of all threads. Returns why not.
  std::optional<std::string> commit(const Edit& edit) { return commit(edit, true); }
  // Gives a hot probepoint, and those of its function that are not cold, jumps.
  void promote(std::uint32_t index, const plan::Modules& modules);

  // A module's probepoints go without a trace, and come back with it.
  void retire_module(std::uint32_t module, const symbols::Module& where);
  std::optional<std::string> revive_module(std::uint32_t module);

  void set_consumers(std::uint32_t index, bool has_consumers) { table_->set_consumers(index, has_consumers); }
  const Detours& detours() const { return detours_; }
  // Takes all jumps out, for good.
  void leave_jump_tier();
  // No detour counts by %gs from now on (trap/segment.h), for good; those that do are made again.
  void leave_segment(const plan::Modules& modules);
  // How things stand now, for a report that is made when they no longer do.
  struct Standing {
    std::uint32_t armed_points = 0;
    std::array<std::uint64_t, kJumpStates>
        states{};                     // armed probepoints by what keeps them at their int3s, or does not
    std::vector<JumpState> by_point;  // empty: nobody asked
    // "jump", or what keeps the probepoint at its int3; "" where nothing does, or nobody asked.
    std::string_view tier_name(std::uint32_t index) const {
      return index < by_point.size() ? tier_reason(by_point[index]) : std::string_view();
    }
  };
  Standing standing() const;
  // The process ends: puts all of the text back that is still what was written, in as few steps as threads that run on
  // allow. Late traps find their probepoints as ever. Returns what was denied; the runtime's own int3s then stay, and
  // beside other threads.
  std::optional<std::string> restore();
  // A forked child.
  void set_up_child();
  std::uint32_t own_points() const { return own_end_; }  // the first ones in the table; see is_own()
  bool is_own(std::uint32_t index) const { return index < own_end_ || table_->view().points[index].is_gate; }
  std::uint32_t armed_points() const { return armed_points_; }  // by probes
  // Makes every thread see what was written.
  void synchronise();
  std::uint64_t synchronisations() const { return synchronisations_; }
  std::uint64_t table_bytes() const { return table_ != nullptr ? table_->bytes() : 0; }

 private:
  struct Wanted {
    std::uint32_t index, module, offset;
    const symbols::Function* function;
    bool is_approach;
  };
  // may_be_alone: where it is, one step does instead of six.
  std::optional<std::string> commit(const Edit& edit, bool may_be_alone);
  std::optional<std::string> write(std::vector<std::uint32_t>& indexes, std::span<const std::uint32_t> jumps = {},
                                   const patch::OwnMemory& memory = patch::OwnMemory());
  // Those, of probepoints that were written, whose code is no longer what was written (lost_text.cpp); they are then no
  // probepoints.
  std::vector<std::uint32_t> find_lost(std::vector<std::uint32_t> indexes, const patch::OwnMemory& memory) const;
  bool may_stand(std::uint32_t index, std::uint8_t byte) const;
  void lose(const std::vector<std::uint32_t>& indexes);
  void drop_lost(std::vector<std::uint32_t>& indexes, const patch::OwnMemory& memory = patch::OwnMemory());
  void clear_windows(const std::vector<xol::Displaced>& points);
  void prepare_detours(plan::Plan& plan, const Runs& runs, const plan::Modules& modules, std::uint32_t first_new,
                       const Consumer* consumer);
  std::optional<Wanted> wanted_at(std::uint32_t index, const plan::Modules& modules) const;
  void make_wanted(std::vector<Wanted>& wanted, const plan::Modules& modules, const Consumer* consumer);
  void sort_by_address(std::vector<std::uint32_t>& indexes) const;
  void note_approaches(plan::Plan& plan, const Runs& runs, std::uint32_t first_new);
  // Whether it is there for its jump alone (plan::Exit): an int3 would do nothing.
  bool is_approach(std::uint32_t index) const { return approaches_.contains(index); }
  void count_users(std::span<const std::uint32_t> indexes, int change);
  void register_membarrier();
  static constexpr std::size_t kOwnPoints = 256;  // libc has 60 gate sites
  bool make_own(const plan::Modules& modules);
  void find_own(std::uint32_t module, const plan::Modules& modules, std::vector<xol::Displaced>& own);
  bool can_watch(const xol::Displaced& point);
  void miss_own(std::uint64_t address);
  void gate_modules_of(const std::vector<xol::Displaced>& points, const plan::Modules& modules);
  bool enter_segment();

  static constexpr std::uint16_t kArmed = 0x8000, kWasArmed = 0x4000, kMostUsers = 0x3fff;

  Table* table_ = nullptr;          // owned for ever: the trap path may read it until the process is gone
  std::uint16_t* users_ = nullptr;  // by index; kArmed: its int3 is in
  std::uint32_t own_end_ = 0, first_consumer_counter_ = 0;
  std::vector<std::uint32_t> own_;  // the runtime's own probepoints, but the calibration point
  std::size_t own_used_ = 0;        // of them, the first ones: counted as used
  std::uint32_t late_own_ = 0;      // of them: not among the first in the table
  std::set<std::uint32_t> gated_;   // modules
  std::vector<std::uint64_t> unwatched_;
  std::optional<std::uint32_t> hook_;  // the probepoint at the dynamic linker's r_brk
  bool own_armed_ = false, was_disarmed_ = false, watches_modules_ = false, leaves_blocked_threads_ = false;
  bool has_membarrier_ = false;
  Detours detours_;
  std::unordered_set<std::uint32_t> approaches_;
  std::vector<std::uint32_t> cleared_;  // jumps that came out for new probepoints, and may go in again
  std::uint32_t most_points_ = 0, armed_points_ = 0;
  std::uint64_t synchronisations_ = 0;
  struct Retired {
    std::uint32_t index;
    std::uint64_t address;
  };
  std::map<std::uint32_t, std::vector<Retired>> retired_;  // by module
};

}  // namespace ubp::runtime
