// Native and displaced runs of a case, and their comparison.
#pragma once

#include <string>

#include "runtime/jump/detour_writer.h"
#include "tests/insn_diff/case.h"

namespace ubp::insn_diff {

// Deliberate mistakes, to show that the comparison sees them (--control).
enum class Control : std::uint8_t {
  kNone,
  kDisplacement,   // a relocated disp32 is off by one
  kCount,          // an emulated loop forgets rcx
  kReturnAddress,  // an emulated call pushes the slot's idea of the next address
  kFaultAddress,   // RIP and si_addr in a slot are not translated
  kSyscall,        // rcx is not set after syscall
  kFlags,          // an emulated conditional jump misreads the sign flag
  kEnd,
};
const char* control_name(Control control);

// The one place that knows how a probepoint is made from an instruction.
xol::Displaced make_displaced(std::uint64_t address, const std::uint8_t* bytes,
                              const decoder::Instruction& instruction);

class Runner {
 public:
  // detours: displaced instructions run from the copies that the jump tier makes of them.
  Runner(Machine& machine, Control control, bool detours) : machine_(machine), control_(control), detours_(detours) {}
  bool prepare(const Case& c);  // writes text, stubs and slot, or detour; false: it can be in no detour
  void finish(const Case& c);
  void native(const Case& c, const State& state, Outcome& out);
  void displaced(const Case& c, const State& state, Outcome& out);

  // Empty when they agree. FIP in a slot, and RF after an emulated fault, are told apart: see counters below.
  std::string compare(const Case& c, const Outcome& native, const Outcome& other);

  std::uint64_t fip_in_slot = 0;       // x87 instruction pointers that name the slot
  std::uint64_t late_steps = 0;        // single steps that end an instruction earlier or later: Case::steps_late
  std::uint64_t written_by_fault = 0;  // calls that fault where the return address is written natively
  std::uint64_t rf_missing = 0;        // faults of emulated instructions: RF is clear in the frame, natively set

 private:
  void emulated(const Case& c, const State& state, Outcome& out);
  void translate(const Case& c, Outcome& out) const;
  bool write_detour(const Case& c);

  Machine& machine_;
  Control control_;
  bool detours_;
  xol::Displaced point_;
  runtime::DetourWriter writer_{{}};
  runtime::DetourSize size_{};  // of the detour
  runtime::DetourInfo info_;
  std::uint64_t copy_ = 0;  // where the displaced instruction runs
};

std::string describe(const Outcome& outcome);

}  // namespace ubp::insn_diff
