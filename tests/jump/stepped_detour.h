// Executes a detour one instruction at a time, and compares at each of them what a handler would be shown with what is
// the case: what the registers were before the hit, whether a counter has moved, whether the consumers have run.
//
// Everything a detour reads is made up here: the task, its counters and ring, the consumers, and the probed code.
// Nothing of it is taken from the stages that are tested: the processor says what has happened so far.
#pragma once

#include <sys/mman.h>

#include <array>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/consumers/consumer_list.h"
#include "runtime/jump/detour_writer.h"
#include "runtime/record/rings.h"
#include "runtime/table/table.h"
#include "runtime/trap/translate.h"

namespace ubp::runtime {

// What the detour meets.
struct Scenario {
  const char* name;
  bool counts_alone = true;  // the task counts in detours by itself
  bool has_ring = true, is_full = false;
  int consumers = 2;            // in the list
  bool changes_errno = false;   // they do
  bool is_disabled = false;     // the thread cannot be cancelled
  bool defers = false;          // a signal arrives in the middle of them
  bool has_own_mxcsr = false;   // the program does not round as others do
  bool goes_backwards = false;  // its direction flag is set
  bool overrides = false;       // they end the call, where they may
  bool passes = true;           // a shortcut's filter says yes
  bool is_zero = false;         // of the status flags, ZF alone is set; else all others are
  bool is_closed = false;       // the program's gate is
  bool has_cells = true;        // the task has cells of its own
};

// What kind of detour: of four instructions, the first one a probepoint.
struct Kind {
  std::string name;
  bool by_segment = false;
  bool calls = false, is_inside = false;  // consumers
  bool has_moves = false;                 // it calls functions that save vectors, instead of XSAVE
  ActionNeeds needs;
};

class SteppedDetour {
 public:
  explicit SteppedDetour(const Kind& kind);
  ~SteppedDetour();
  SteppedDetour(const SteppedDetour&) = delete;
  SteppedDetour& operator=(const SteppedDetour&) = delete;

  // Runs it once, and checks as it goes. Adds to visited() and to wrong().
  void run(const Scenario& scenario);

  // What shortcuts read and write: by a task's block, its cells; the program's gate.
  static constexpr std::uint32_t kBlock = 2, kCells = 70;
  inline static std::uint64_t g_cells[kCells], *g_own_cells[kBlock + 1];
  inline static std::uint32_t g_gate = 0;

  // Where its instructions begin, from the head's end on, and which of them have been stopped at.
  std::set<std::uint64_t> boundaries() const;
  const std::set<std::uint64_t>& visited() const { return visited_; }
  // How often something was not as it is, and what it was the first time.
  long wrong() const { return wrong_; }
  const std::string& first_wrong() const { return first_wrong_; }
  void forget() { wrong_ = 0, first_wrong_.clear(); }

  // Its blocks, to be spoilt: each with a name.
  struct Blocks {
    DetourShape shape;
    DetourBlock later, by_segment;
    std::array<DetourBlock*, 3> all() { return {&shape.first, &shape.late, &later}; }  // by_segment has one instruction
  };
  Blocks blocks() const;
  void use(Blocks& blocks);
  // Whether a stage of the detour's own blocks, numbered as all() has them, has one instruction alone.
  bool is_of_one_instruction(std::size_t block, std::uint32_t stage) const;

 private:
  static constexpr std::uint32_t kParts = 4, kPartBytes = 4;  // lea 1(%rbx),%rbx
  static constexpr std::size_t kTextBytes = 65536, kStackBytes = 65536;

  static void on_trap(int, siginfo_t* info, void* context);
  static void consume(const ubp_context* context, void* data);
  void trap(siginfo_t* info, trap::Context* uc);
  void begin(trap::Context* uc);
  void check(const trap::Context* uc);
  void leave_to_breakpoint_tier();
  void spill_over(const trap::Context* uc);
  void expect(bool is_right, const char* what, std::uint64_t rip);
  const std::uint64_t* save_mask() const;
  static std::uint64_t sum_of_cells();
  bool is_counted(std::uint32_t part) const;
  bool is_consumed() const;
  bool is_over() const;
  std::uint64_t counter_of_part(std::uint32_t part) const;

  Kind kind_;
  std::uint64_t mapping_ = 0, origin_ = 0;
  std::uint64_t* segment_ = nullptr;  // what is counted by %gs
  std::vector<std::uint64_t> begins_;
  std::unique_ptr<Table> table_;
  std::unique_ptr<DetourWriter> writer_;
  DetourInfo info_;
  std::array<const DetourInfo*, kParts> infos_{&info_, &info_, &info_, &info_};
  std::unique_ptr<trap::TaskState> task_;
  std::array<std::uint64_t, 64> counters_{};
  std::vector<record::Record> ring_;
  std::array<Consumer, 2> list_{};
  const Consumer* first_consumer_ = nullptr;
  std::uint8_t* stack_ = nullptr;
  std::vector<std::uint64_t> sink_;  // where the program's registers lead: whoever takes one for another meets no fault
  struct sigaction trap_was_ {
  }, fault_was_{};
  std::vector<std::uint8_t> signal_stack_;
  stack_t signal_stack_was_{};

  Scenario scenario_{};
  bool is_running_ = false;
  trap::Context launched_{};                   // the test's own registers
  std::array<std::uint64_t, 16> registers_{};  // the program's, as they were, and as consumers have changed them
  std::uint64_t flags_ = 0;
  std::array<std::uint64_t, kParts> counted_{};                                     // before
  std::uint64_t head_ = 0, dropped_ = 0, skipped_ = 0, performed_ = 0, cells_ = 0;  // likewise
  std::uint32_t executed_ = 0;                                                      // instructions of the program's
  std::uint64_t last_ = 0;
  long steps_ = 0;
  std::array<bool, 3> was_lost_{};  // rax, rcx, rdx
  int calls_ = 0, delivered_ = 0;
  std::set<std::uint64_t> visited_;
  long wrong_ = 0;
  std::string first_wrong_;
};

}  // namespace ubp::runtime
