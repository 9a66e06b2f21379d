// The bytes of one detour, where an optimised probepoint's jump leads, and the way back from an address in it to the original
// code.
//
//   DetourInfo    what it stands for: for whoever finds a thread inside
//   slow:         restore rcx; int3                          the hit is the breakpoint tier's: see TaskState::fast
//   entry ----->  spill rcx to the thread's own storage
//                 rcx = the task's state; rcx = where it counts; zero: go to slow
//                 spill rax; add one to the probepoint's counter, by lea: no flags; restore rax, rcx
//                 copies of the window's instructions
//                 jmp back behind the window
//
// The stack is not touched, so a red zone is safe and a small stack is enough. The spilled registers are restored by
// detour_position() when a signal arrives in between: a handler's own hits may then spill over them.
//
// A jump to a target inside the window, or a thread that was on its way there when the jump was written, meets an int3: every
// boundary inside the window is a 0xcc among the bytes of the jump's displacement (Pattern). The trap path sends it to the
// instruction's copy.
//
// Inline part: compiled into the trap path. detour.cpp: normal context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "decoder/window.h"
#include "xol/slot_image.h"

namespace ubp::xol {

struct DetourInfo {
  std::uint32_t point = 0;          // the probepoint's index
  std::uint8_t jump_bytes = 0;      // prefixes and all
  std::uint8_t count = 0;           // instructions in the window
  std::uint8_t length = 0;          // of them, together
  std::uint8_t bytes = 0;           // of code, from the entry on
  std::uint8_t starts[8] = {};      // where in the window each instruction begins
  std::uint8_t copies[8] = {};      // where in the detour its copy begins; behind the last one's: the jump back
  std::uint8_t original[8] = {};    // what the jump replaces
};
static_assert(sizeof(DetourInfo) == 32);

// Where in the thread's storage things are: offsets from %fs:0.
struct DetourStorage {
  std::int32_t state = 0;           // pointer to the task's state
  std::int32_t rcx = 0, rax = 0;    // spilled
  std::uint8_t fast = 0;            // offset of TaskState::fast, below 128
};

inline constexpr std::uint32_t kDetourSlowBytes = 10;
inline constexpr std::uint32_t kDetourHead = sizeof(DetourInfo) + kDetourSlowBytes;  // before the entry
inline constexpr std::uint32_t kDetourSpilledRcx = 9, kDetourSpilledRax = 33, kDetourCounted = 51, kDetourRestoredRax = 60,
                               kDetourCopies = 69;

inline const DetourInfo& detour_info(std::uint64_t entry) {
  return *reinterpret_cast<const DetourInfo*>(entry - kDetourHead);
}

// Where a thread stands whose RIP is in the detour of the probepoint at `origin`.
struct DetourPosition {
  std::uint64_t rip;                // what RIP would be without UBP
  bool is_counted;                  // at the probepoint itself, whose hit is counted: only to be carried out
  bool spilled_rcx, spilled_rax;    // the register's value is in the thread's storage
};

[[gnu::always_inline]] inline DetourPosition detour_position(std::uint64_t entry, std::uint64_t origin, std::uint64_t rip) {
  const auto offset = static_cast<std::int64_t>(rip - entry);
  if (offset < kDetourCopies) {
    const bool is_slow = rip == entry - kDetourSlowBytes;
    return {origin, offset >= kDetourCounted, is_slow || (offset >= kDetourSpilledRcx && offset <= kDetourRestoredRax),
            offset >= kDetourSpilledRax && offset <= kDetourCounted};
  }
  const DetourInfo& info = detour_info(entry);
  std::uint32_t part = 0;
  while (part + 1 < info.count && offset >= info.copies[part + 1]) ++part;
  const std::uint64_t next = origin + (part + 1 < info.count ? info.starts[part + 1] : info.length);
  if (offset == info.copies[part]) return {origin + info.starts[part], part == 0, false, false};
  // In the middle of what stands for one instruction there are jumps alone, and in the end the one back.
  const auto* at = reinterpret_cast<const std::uint8_t*>(rip);
  if (at[0] != 0xe9) return {next, false, false, false};
  return {rip + 5 + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(load32(at + 1))}), false, false, false};
}

// The copy of the instruction that begins `offset` bytes into the window; 0: none does.
[[gnu::always_inline]] inline std::uint64_t copy_at(std::uint64_t entry, std::uint64_t offset) {
  const DetourInfo& info = detour_info(entry);
  for (std::uint32_t part = 0; part < info.count; ++part) {
    if (info.starts[part] == offset) return entry + info.copies[part];
  }
  return 0;
}

// What the four bytes of the jump's displacement must be.
struct Pattern {
  std::uint32_t mask = 0, value = 0;
};

// The pattern of a jump with so many prefixes over the window: an int3 at every boundary. False: there is none.
bool boundary_pattern(const decoder::Window& window, std::uint32_t prefixes, Pattern& pattern);

// The size of the code of the window's detour, from the entry on.
std::uint32_t detour_bytes(const decoder::Window& window);

// Writes the detour of a window, DetourInfo first. out: kDetourHead + detour_bytes(window) bytes; entry: the run-time address
// of its entry; origin: of the window, in reach; point: the probepoint's index; counter: bytes from TaskState::fast to its
// counter; code: the original bytes of the window, or as many as the jump covers, whichever is more.
void write_detour(std::span<std::uint8_t> out, std::uint64_t entry, const decoder::Window& window, std::uint32_t prefixes,
                  std::uint64_t origin, std::span<const std::uint8_t> code, std::uint32_t point, std::uint32_t counter,
                  const DetourStorage& storage);

// The jump itself. out: decoder::kJumpBytes + prefixes bytes.
void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry);
inline bool is_detour_jump(const std::uint8_t* text) { return text[0] == 0xe9 || text[0] == 0x3e; }

}  // namespace ubp::xol
