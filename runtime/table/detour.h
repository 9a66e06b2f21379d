// The bytes of one detour, where an optimised probepoint's jump leads, and the way back from an address in it to the
// original code.
//
//   | DetourInfo* |  what it stands for: for whoever finds a thread inside
//   slow:            restore rcx; int3                       the hit is the breakpoint tier's: see TaskState::fast
//   entry -------->  incq %gs:counter                        where nobody reads the flags, and %gs
//                                                            is free (trap/segment.h); or
//                    spill rcx to the thread's own storage
//                    rcx = the task's state; rcx = where it counts; zero: go to slow
//                    spill rax; add one to the probepoint's counter, by lea: no flags; restore rax, rcx
//                    (with consumers: all that they could change to DetourSave, on UBP's stack; call; all back)
//                    copy of the instruction
//                    ... of the next one, with its own count before it if it is a probepoint too
//                    jmp back behind the last one, unless that leaves by itself
//
// A return or jump that has consumers of its own is not copied: there a detour leads to that one's (chain), which may
// stand for nothing else, and have no jump. So it costs no trap where it is too short for one, or lies in the window.
//
// It stands for the instructions in the window (decoder/window.h) and for those behind it up to a jump or return, if
// that is near: a taken jump less, and jumps are what a detour costs.
//
// One instruction that counts can not be interrupted half way: nothing is spilled, and there is no slow way. (inc
// leaves the carry.)
//
// The stack is not touched, so a red zone is safe and a small stack is enough. The spilled registers are restored when
// a signal arrives in between (detour_position(), trap/translate.h): a handler's own hits may then spill over them.
//
// A jump to a target inside the window, or a thread that was on its way there when the jump was written, meets an int3:
// every boundary inside the window is a 0xcc among the bytes of the jump's displacement (Pattern). The trap path sends
// it to the instruction's copy, or, where a probepoint is, on as any hit. The window may also end before the jump does:
// the bytes from there on are then those that were there, and the instructions behind the window are whole (instruction
// punning).
//
// Inline and free of libc: compiled into the trap path. How a detour is made: jump/detour_plan.h, jump/detour_writer.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "decoder/instruction.h"
#include "runtime/table/action.h"
#include "runtime/table/detour_stages.h"
#include "xol/slot_image.h"

namespace ubp::runtime {

inline constexpr std::uint32_t kMostParts = 16;          // instructions a detour stands for
inline constexpr std::uint32_t kMostDetourBytes = 4096;  // head and all
inline constexpr std::uint32_t kMostJumpBytes = decoder::kJumpBytes + decoder::kMostPrefixes;

// Written once, before anybody can be inside, but for is_active and previous.
struct DetourInfo {
  std::uint64_t entry = 0;
  std::uint64_t origin = 0;  // of the jump, when the detour was made
  const DetourInfo* previous =
      nullptr;  // another detour of the same probepoint: all of them, in a circle; null: there is none
  const DetourShape* shape = nullptr;  // what its blocks hold; it stays
  const DetourInfo* chain = nullptr;   // another probepoint's detour that it leads to; null: to none
  std::uint32_t point = 0;             // the probepoint's index
  std::uint16_t bytes = 0;             // of code, from the entry on
  std::uint16_t late = 0;              // where shape->late stands, likewise; 0: nowhere
  std::uint16_t counted = 0;           // a bit for each part: it is a probepoint, and counted here
  std::uint16_t by_segment = 0;        // likewise: by one instruction
  std::uint8_t chain_part = 0;         // in the place of which instruction
  std::uint8_t jump_bytes = 0;         // prefixes and all; 0: only other detours lead here
  std::uint8_t count = 0;              // parts
  std::uint8_t length = 0;             // of the original instructions, together
  std::uint8_t is_active = 0;  // the jump is in: it counts all that is to be counted (relaxed: both ways are right)
  std::uint8_t starts[kMostParts] = {};        // where each begins, from the origin on
  std::uint16_t copies[kMostParts] = {};       // where its copy does, from the entry on
  std::uint8_t original[kMostJumpBytes] = {};  // what the jump replaces

  // The next detour of the same probepoint, from `first` on round; null: that was all.
  [[gnu::always_inline]] inline const DetourInfo* next_from(const DetourInfo* first) const {
    const DetourInfo* const next = __atomic_load_n(&previous, __ATOMIC_ACQUIRE);  // pairs with Detours::flush()
    return next != first ? next : nullptr;
  }
  [[gnu::always_inline]] inline bool is_counted(std::uint32_t part) const { return (counted >> part & 1) != 0; }
  [[gnu::always_inline]] inline bool is_chained(std::uint32_t part) const {
    return chain != nullptr && part == chain_part;
  }
  // What stands right before a part's copy; null: nothing.
  [[gnu::always_inline]] inline const DetourBlock* block_before(std::uint32_t part) const {
    if (part == 0) return &shape->first;
    if (!is_counted(part)) return nullptr;
    return (by_segment >> part & 1) != 0 ? shape->by_segment : shape->later;
  }
  // Where its pointer to this stands.
  [[gnu::always_inline]] inline std::uint64_t head() const { return entry - shape->first.entry - sizeof(void*); }
  // Whether an instruction begins so many bytes behind the origin, and which.
  [[gnu::always_inline]] inline bool find_part(std::uint64_t offset, std::uint32_t& found) const {
    for (found = 0; found < count; ++found) {
      if (starts[found] == offset) return true;
    }
    return false;
  }
};

// Where a thread stands whose RIP is in a detour.
struct DetourPosition {
  std::uint64_t rip = 0;    // what RIP would be without UBP
  std::uint32_t holds = 0;  // of the thread: a set of Holds
  std::uint8_t part = 0;    // which instruction that is, or the one before it
  bool is_before = false;   // nothing has been executed since the jump

  [[gnu::always_inline]] inline bool is(Holds what) const { return (holds & what) != 0; }
};

[[gnu::always_inline]] inline DetourPosition detour_position(const DetourInfo& info, std::uint64_t rip) {
  const auto offset = static_cast<std::int64_t>(rip - info.entry);
  if (info.late != 0 && offset >= info.late) {
    return {info.origin, info.shape->late.at(static_cast<std::uint64_t>(offset - info.late)), 0, true};
  }
  std::uint8_t part = static_cast<std::uint8_t>(info.count - 1);
  const DetourBlock* block = info.block_before(part);
  const auto begin = [&]() __attribute__((always_inline)) {
    return info.copies[part] - std::int64_t{block != nullptr ? block->bytes : 0};
  };
  while (part != 0 && offset < begin()) block = info.block_before(--part);
  const std::uint64_t at = info.origin + info.starts[part];
  if (offset < info.copies[part]) return {at, block->at(static_cast<std::uint64_t>(offset - begin())), part, part == 0};
  if (offset == info.copies[part]) return {at, info.is_counted(part) ? std::uint32_t{kCounted} : 0, part, part == 0};
  // In the middle of what stands for one instruction there are jumps alone, and in the end the one back.
  const auto* code = reinterpret_cast<const std::uint8_t*>(rip);
  if (code[0] == 0xe9) {
    return {rip + 5 + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(xol::load32(code + 1))}), 0,
            part, false};
  }
  return {info.origin + (part + 1 < info.count ? info.starts[part + 1] : info.length), 0, part, false};
}

}  // namespace ubp::runtime
