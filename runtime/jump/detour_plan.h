// What a detour is made of, and making it: detour.h says what it is.
//
// Context: normal (detour.cpp). Thread-safe: no state.
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
    bool by_segment = false;    // in one instruction: nobody reads the flags there
    std::uint32_t counter = 0;  // bytes from TaskState::fast to its counter
  };
  std::vector<Part> parts;    // at most kMostParts; those of the window, and what follows
  std::uint32_t length = 0;   // of the original instructions
};

// The pattern of a jump with so many prefixes over the parts: an int3 at every boundary before `kept`, and from there on the
// bytes of `code`. False: there is none.
bool boundary_pattern(const DetourPlan& plan, std::uint32_t prefixes, std::uint32_t kept, std::span<const std::uint8_t> code,
                      Pattern& pattern);

// Whether all that the copies refer to is in reach of a detour there.
bool reaches(const DetourPlan& plan, std::uint64_t origin, std::uint64_t entry, std::span<const std::uint8_t> code);

// How a detour calls its consumers, or records, and where things are in a task's state and in a consumer (bytes).
struct DetourConsumers {
  ConsumerNeeds needs;
  std::uint64_t list = 0;              // where the pointer to the first consumer is
  std::uint32_t function = 0, data = 0, next = 0, counter = 0;    // in a consumer
  std::uint32_t stack = 0, deferred = 0, mark = 0, optimised = 0; // in TaskState
  std::uint32_t tid = 0, ring = 0, head = 0, limit = 0;           // likewise
  bool is_inside = false;              // not at a function's entry, where the psABI says what state there is
  std::uint32_t point = 0;             // the probepoint's index
  std::uint32_t dropped = 0;           // from where the task counts to what a recorder drops
  std::int32_t error = 0;              // of errno, from %fs:0
  std::int32_t cancel = 0;             // of the thread's cancellation state, likewise; 0: not known
  std::uint64_t components = 0;        // of XSAVE; 0: there is none
  bool compacts = false;               // XSAVEC can be had
  std::uint64_t save = 0, restore = 0; // instead of XSAVE: runtime/jump/floating.S; 0: it cannot be had
};
// The size of the detour's code, from the entry on; and of what stands before it.
std::uint32_t detour_bytes(const DetourPlan& plan, const DetourConsumers* consumers);
std::uint32_t detour_head_bytes(const DetourPlan& plan, const DetourConsumers* consumers);

// Writes the detour: what it stands for in `info`, whose entry, origin, point and jump_bytes are set, and its code.
// out: detour_head_bytes() and detour_bytes() bytes, to run so that what follows the head is at info.entry; code: the original bytes,
// plan.length or jump_bytes, whichever is more; info stays where it is for ever; consumers: null where there are none.
void write_detour(std::span<std::uint8_t> out, DetourInfo& info, const DetourPlan& plan, std::span<const std::uint8_t> code,
                  const DetourStorage& storage, const DetourConsumers* consumers);

// The jump itself. out: decoder::kJumpBytes + prefixes bytes.
void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry);

}  // namespace ubp::runtime
