// What holds of a thread inside a detour, by where it stands: the stages that the assembler notes while it writes the
// code (runtime/jump/detour_assembler.h), and that whoever finds a thread there reads.
//
// A detour consists of blocks: one before each instruction's copy that counts, one behind the copies. A block's stages
// are the same for every detour that has it, so they are kept once, not for each detour.
//
// Inline and free of libc: compiled into the trap path. Plain data, written once, before anybody can be inside.
#pragma once

#include <cstdint>

namespace ubp::runtime {

// A set of these holds at a stage.
enum Holds : std::uint32_t {
  kNothing = 0,
  kRcxSpilled = 1 << 0,  // the register's own value is in the thread's storage (trap::Spilled)
  kRaxSpilled = 1 << 1,
  kRdxSpilled = 1 << 2,
  kRaxSaved = 1 << 3,        // rax's is in the DetourSave
  kAllSaved = 1 << 4,        // all registers' are, the stack pointer's too, and the status flags
  kKeptSaved = 1 << 5,       // likewise those that calls keep; else they have their values themselves
  kSaveInRcx = 1 << 6,       // rcx leads to the DetourSave; else the stack pointer does, where there is one
  kDirectionSaved = 1 << 7,  // the direction flag's is in the DetourSave
  kCounted = 1 << 8,         // the hit is counted
  kUnconsumed = 1 << 9,      // its consumers have not run, or it is not recorded
  kLeaves = 1 << 10,         // at an int3 that leaves the hit to the breakpoint tier
  kDelivers = 1 << 11,       // at the int3 of a signal that was put off (trap/consume.h)
  kOverrides = 1 << 12,      // the DetourSave says whether the consumers, which have run, have ended the call
  kReturns = 1 << 13,        // at the return of a call that they have ended
  kStatusInRax = 1 << 14,    // the status flags' are in rax, as they would be in a DetourSave;
  kStatusSpilled = 1 << 15,  // or in the thread's storage
  kStoresRax = 1 << 16,      // what rax has is still to be stored where rdx leads to, and that is all
};

// From `begin` on, bytes from the block's own begin, until the next stage.
struct Stage {
  std::uint16_t begin;
  std::uint32_t holds;
};
inline constexpr std::uint32_t kMostStages = 56;

struct DetourBlock {
  std::uint16_t bytes = 0;  // of code
  std::uint16_t entry = 0;  // where a hit enters it: what stands before is the slow way
  std::uint16_t count = 0;
  Stage stages[kMostStages] = {};  // by their begins

  // What holds so many bytes behind the block's begin.
  [[gnu::always_inline]] inline std::uint32_t at(std::uint64_t offset) const {
    std::uint32_t holds = 0;
    for (std::uint32_t i = 0; i < count && stages[i].begin <= offset; ++i) holds = stages[i].holds;
    return holds;
  }
};

// The blocks of detours that are alike.
struct DetourShape {
  DetourBlock first;                        // before the first instruction's copy
  DetourBlock late;                         // behind all copies; no bytes: there is none
  const DetourBlock* later = nullptr;       // before another one's that is counted,
  const DetourBlock* by_segment = nullptr;  // and in one instruction
  bool is_for_consumers = false;            // it calls them, or records
  bool saves_direction = false;             // the direction flag
};

}  // namespace ubp::runtime
