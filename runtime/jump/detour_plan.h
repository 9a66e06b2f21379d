// What a detour is to be made of: detour.h says what it is, detour_writer.h writes it.
//
// Context: normal. Thread-safe: no state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/table/detour.h"

namespace ubp::runtime {

// What the four bytes of the jump's displacement must be.
struct Pattern {
  std::uint32_t mask = 0, value = 0;
};

// What a detour is made of.
struct DetourPlan {
  struct Part {
    std::uint8_t offset = 0;  // from the origin
    decoder::Instruction instruction;
    bool is_counted = false;
    bool by_segment = false;            // in one instruction: nobody reads the flags there
    std::uint32_t counter = 0;          // bytes from TaskState::fast to its counter
    const DetourInfo* chain = nullptr;  // what leads on instead of a copy
  };
  std::vector<Part> parts;   // at most kMostParts; those of the window, and what follows
  std::uint32_t length = 0;  // of the original instructions
};

// The pattern of a jump with so many prefixes over the parts: an int3 at every boundary before `kept`, and from there
// on the bytes of `code`. False: there is none.
bool boundary_pattern(const DetourPlan& plan, std::uint32_t prefixes, std::uint32_t kept,
                      std::span<const std::uint8_t> code, Pattern& pattern);

// Whether all that the copies refer to is in reach of a detour there.
bool reaches(const DetourPlan& plan, std::uint64_t origin, std::uint64_t entry, std::span<const std::uint8_t> code);

// Where in the thread's storage a detour's code finds things: offsets from %fs:0.
struct DetourStorage {
  std::int32_t state = 0;                  // pointer to the task's state
  std::int32_t rcx = 0, rax = 0, rdx = 0;  // spilled
  std::int32_t segment = 0;                // of what the task counts, from %gs:0
  std::int32_t status = 0;                 // where the status flags are spilled
};

// How vector and floating-point state is saved around consumers (runtime/jump/floating.h).
struct Floating {
  std::uint64_t components = 0;         // of XSAVE; 0: there is none
  bool compacts = false;                // XSAVEC can be had
  std::uint64_t save = 0, restore = 0;  // instead of XSAVE: runtime/jump/floating.S; 0: it cannot be had
};

// How a detour performs the actions at its probepoint.
struct DetourConsumers {
  ActionNeeds needs;
  std::uint64_t list = 0;                    // where the pointer to the first consumer is
  std::uint32_t dropped = 0;                 // bytes from where the task counts to what the only action drops,
  std::uint32_t skipped = 0, performed = 0;  // and to what its shortcut says no to, and performs
  bool is_inside = false;                    // not at a function's entry, where the psABI says what state there is
  // The same for all detours of a process:
  std::int32_t error = 0;   // of errno, from %fs:0
  std::int32_t cancel = 0;  // of the thread's cancellation state, likewise; 0: not known
  Floating floating;        // if they need it
};

// Bytes: before a detour's entry, and from there on.
struct DetourSize {
  std::uint32_t head, code;
};

}  // namespace ubp::runtime
