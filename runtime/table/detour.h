// The bytes of one detour, where an optimised probepoint's jump leads, and the way back from an address in it to the original
// code.
//
//   | DetourInfo* |  what it stands for: for whoever finds a thread inside
//   slow:            restore rcx; int3                       the hit is the breakpoint tier's: see TaskState::fast
//   entry -------->  incq %gs:counter                        where nobody reads the flags, and %gs is free (trap/segment.h); or
//                    spill rcx to the thread's own storage
//                    rcx = the task's state; rcx = where it counts; zero: go to slow
//                    spill rax; add one to the probepoint's counter, by lea: no flags; restore rax, rcx
//                    (with consumers: all that they could change to DetourSave, on UBP's stack; call; all back)
//                    copy of the instruction
//                    ... of the next one, with its own count before it if it is a probepoint too
//                    jmp back behind the last one, unless that leaves by itself
//
// It stands for the instructions in the window (decoder/window.h) and for those behind it up to a jump or return, if that is
// near: a taken jump less, and jumps are what a detour costs.
//
// One instruction that counts can not be interrupted half way: nothing is spilled, and there is no slow way. (inc leaves the carry.)
//
// The stack is not touched, so a red zone is safe and a small stack is enough. The spilled registers are restored by
// detour_position() when a signal arrives in between: a handler's own hits may then spill over them.
//
// A jump to a target inside the window, or a thread that was on its way there when the jump was written, meets an int3: every
// boundary inside the window is a 0xcc among the bytes of the jump's displacement (Pattern). The trap path sends it to the
// instruction's copy, or, where a probepoint is, on as any hit. The window may also end before the jump does: the bytes from
// there on are then those that were there, and the instructions behind the window are whole (instruction punning).
//
// Inline and free of libc: compiled into the trap path. How a detour is made: detour_plan.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "decoder/instruction.h"
#include "xol/slot_image.h"
#include "xol/sys.h"

namespace ubp::runtime {

inline constexpr std::uint32_t kMostParts = 16;  // instructions a detour stands for
// Before the entry: the pointer to its info, and the slow way.
inline constexpr std::uint32_t kDetourSlowBytes = 10;
inline constexpr std::uint32_t kMostDetourBytes = 4096;  // head and all
inline constexpr std::uint32_t kDetourHead = sizeof(void*) + kDetourSlowBytes;  // before the entry, the slow way if there is one
// The code that counts, and how far it has come.
inline constexpr std::uint32_t kSpilledRcx = 9, kSpilledRax = 33, kCounted = 51, kRestoredRax = 60, kCountBytes = 69;
inline constexpr std::uint32_t kSegmentCountBytes = 9;  // incq %gs:disp32
// Before a later part's: a jump over its own slow way.
inline constexpr std::uint32_t kHopBytes = 2, kLaterCountBytes = kHopBytes + kDetourSlowBytes + kCountBytes;
inline constexpr std::uint32_t kMostJumpBytes = decoder::kJumpBytes + decoder::kMostPrefixes;

// What a detour saves around its consumers, at the top of the task's own stack, where no signal frame comes.
struct DetourSave {
  std::uint64_t registers[16];  // numbered as the hardware does
  std::uint64_t status;         // ah: the status flags but OF; al: OF
  std::uint32_t error;          // errno
  std::uint32_t cancel;         // the thread's cancellation state
  std::uint64_t rflags;         // not at a function's entry: for the direction flag
  std::uint32_t mxcsr;
  std::uint32_t in_use;         // XINUSE, of what runtime/jump/floating.S saves
  std::uint64_t mask;           // the thread's signal mask, when signals were put off (trap/consume.h)
  // What consumers are passed: consumers/consumer_list.h. Only the last word changes: the consumer that runs.
  std::uint64_t context[4];
  std::uint64_t counters;       // where the task's detours count; it never changes
  alignas(64) std::uint64_t masks[8];
  std::uint8_t vectors[2048];            // xmm, ymm or zmm, one behind the other
  std::uint8_t image[4672];              // FXSAVE's, and XSAVE's; its header is never written but by XSAVE, and begins as zeros
};
// The third: the task's state.
inline constexpr std::size_t kContextTask = 2, kContextConsumer = 3;
inline constexpr std::uint64_t kDetourSaveBytes = 8192;  // room for it, whole pages
// It begins so far into the first one: a processor takes addresses that are alike in their low 12 bits for the same at first, and
// much else begins with its page.
inline constexpr std::uint64_t kDetourSaveSkew = 1088;
// Where it is, for a stack pointer that is at its begin or a word or two below.
[[gnu::always_inline]] inline std::uint64_t detour_save_at(std::uint64_t rsp) {
  constexpr std::uint64_t kPage = sys::kPageBytes;
  return ((rsp - kDetourSaveSkew + kPage - 1) & ~(kPage - 1)) + kDetourSaveSkew;
}

inline constexpr std::uint64_t kDirectionFlag = 0x400;
// RFLAGS with the status flags as a DetourSave has them.
[[gnu::always_inline]] inline std::uint64_t with_status(std::uint64_t flags, std::uint64_t status) {
  constexpr std::uint64_t kInAh = 0xd5, kOverflow = 0x800;  // SF ZF AF PF CF: SDM volume 2, LAHF
  return (flags & ~(kInAh | kOverflow)) | (status >> 8 & kInAh) | ((status & 1) != 0 ? kOverflow : 0);
}
static_assert(kDetourSaveSkew + sizeof(DetourSave) <= kDetourSaveBytes && (kDetourSaveSkew + offsetof(DetourSave, image)) % 64 == 0);

// What a detour writes into a task's ring: runtime/record/rings.h.
inline constexpr std::uint32_t kRingRecords = 65536, kRecordBytes = 24, kRecordPoint = 8, kRecordCounter = 12, kRecordTask = 16;

// What a probepoint's consumers ask for.
struct ConsumerNeeds {
  bool reads = false;     // registers
  bool modifies = false;  // them
  bool xmm = false;       // they change these,
  bool all_fp = false;    // or any vector or floating-point state
  std::uint32_t recorder = 0;  // there is only one, and it records: its counter
  bool covers(const ConsumerNeeds& other) const {
    return (recorder == 0 || recorder == other.recorder) && reads >= other.reads && modifies >= other.modifies && all_fp >= other.all_fp &&
           (all_fp || xmm >= other.xmm);
  }
  ConsumerNeeds operator|(const ConsumerNeeds& other) const {
    return {reads || other.reads, modifies || other.modifies, xmm || other.xmm, all_fp || other.all_fp, 0};
  }
};

// Written once, before anybody can be inside, but for is_active and previous.
struct DetourInfo {
  std::uint64_t entry = 0;
  std::uint64_t origin = 0;             // of the jump, when the detour was made
  const DetourInfo* previous = nullptr; // another detour of the same probepoint: all of them, in a ring; null: there is none
  std::uint32_t point = 0;              // the probepoint's index
  std::uint16_t bytes = 0;              // of code, from the entry on
  std::uint16_t counted = 0;            // a bit for each part: it is a probepoint, and counted here
  std::uint16_t by_segment = 0;         // likewise: by one instruction
  std::uint8_t jump_bytes = 0;          // prefixes and all
  std::uint8_t count = 0;               // parts
  std::uint8_t length = 0;              // of the original instructions, together
  std::uint8_t is_active = 0;           // the jump is in: it counts all that is to be counted (relaxed: both ways are right)
  std::uint8_t starts[kMostParts] = {};   // where each begins, from the origin on
  std::uint16_t copies[kMostParts] = {};  // where its copy does, from the entry on
  std::uint8_t original[kMostJumpBytes] = {};  // what the jump replaces
  // Its consumers' part, before the first copy: how far it has come; all but rax_saved have all saved. The signal mask is restored
  // behind the copies. Where it records, `saved` means rdx, and the way of a record without room begins at `full` and has counted
  // it at full_counted. From direction_saved on the direction flag is clear; 0: at a function's entry it is so by itself.
  enum class Kind : std::uint8_t { kCounts, kConsumers, kRecords } kind = Kind::kCounts;
  std::uint16_t rax_saved = 0, saved = 0, direction_saved = 0, hit_counted = 0, consumed = 0, restored = 0, late = 0, full = 0, full_counted = 0;
  std::uint16_t deliver = 0;            // behind the int3 of a signal that was put off (trap/consume.h)
  std::uint8_t modifies = 0;            // they may change registers that calls keep

  // The next detour of the same probepoint, from `first` on round; null: that was all.
  [[gnu::always_inline]] inline const DetourInfo* next_from(const DetourInfo* first) const {
    const DetourInfo* const next = __atomic_load_n(&previous, __ATOMIC_ACQUIRE);  // pairs with Detours::flush()
    return next != first ? next : nullptr;
  }
  [[gnu::always_inline]] inline bool is_counted(std::uint32_t part) const { return (counted >> part & 1) != 0; }
  // Whether a slow way belongs to the code that counts a part, and where that code begins: the slow way ends there.
  [[gnu::always_inline]] inline bool has_slow_way(std::uint32_t part) const { return is_counted(part) && (by_segment >> part & 1) == 0; }
  [[gnu::always_inline]] inline std::uint32_t count_begin(std::uint32_t part) const {
    return part == 0 ? 0 : copies[part] - kCountBytes;
  }
  // Where its pointer to this stands.
  [[gnu::always_inline]] inline std::uint64_t head() const { return entry - ((by_segment & 1) == 0 ? kDetourHead : sizeof(void*)); }
  // How much stands before a later part's copy.
  [[gnu::always_inline]] inline std::uint32_t lead_bytes(std::uint32_t part) const {
    return !is_counted(part) ? 0 : has_slow_way(part) ? kLaterCountBytes : kSegmentCountBytes;
  }
  // Whether an instruction begins so many bytes behind the origin, and which.
  [[gnu::always_inline]] inline bool find_part(std::uint64_t offset, std::uint32_t& found) const {
    for (found = 0; found < count; ++found) {
      if (starts[found] == offset) return true;
    }
    return false;
  }
};

// Where in the thread's storage things are: offsets from %fs:0.
struct DetourStorage {
  std::int32_t state = 0;           // pointer to the task's state
  std::int32_t rcx = 0, rax = 0, rdx = 0;  // spilled
  std::uint8_t fast = 0;            // offset of TaskState::fast, below 128
  std::int32_t segment = 0;         // of what the task counts, from %gs:0
};

// Where a thread stands whose RIP is in a detour.
struct DetourPosition {
  std::uint64_t rip;                // what RIP would be without UBP
  bool is_counted = false;          // at a probepoint whose hit is counted: only to be carried out
  bool spilled_rcx = false, spilled_rax = false, spilled_rdx = false;  // the register's value is in the thread's storage
  bool is_before = false;           // of the first instruction: nothing has been executed since the jump
  // Of a detour with consumers: every register, or rax alone, is in the DetourSave, to which rcx points, or else rsp.
  bool is_saved = false, is_rax_saved = false, is_save_in_rcx = false;
  bool is_consumed = true;          // its consumers have run, if it has any
  bool is_direction_saved = false;  // the direction flag is in the DetourSave
};

// In the consumers' part.
[[gnu::always_inline]] inline DetourPosition consumers_position(const DetourInfo& info, std::uint64_t origin, std::int64_t offset) {
  constexpr int kSwitchBytes = 6;  // to UBP's stack, once all is saved
  const bool is_saved = offset >= info.saved, is_late = offset >= info.late;
  const bool is_save_in_rcx = offset < info.saved + kSwitchBytes || (!is_late && offset >= info.restored);
  return {.rip = origin, .is_counted = offset >= info.hit_counted, .spilled_rcx = !is_saved && offset >= kSpilledRcx, .is_before = true,
          .is_saved = is_saved, .is_rax_saved = !is_saved && offset >= info.rax_saved, .is_save_in_rcx = is_save_in_rcx,
          .is_consumed = offset >= info.consumed, .is_direction_saved = info.direction_saved != 0 && offset >= info.direction_saved};
}
[[gnu::always_inline]] inline DetourPosition record_position(const DetourInfo& info, std::uint64_t origin, std::int64_t offset) {
  const bool is_recorded = offset >= info.full ? offset >= info.full_counted : offset >= info.consumed;
  return {.rip = origin, .is_counted = offset >= info.hit_counted, .spilled_rcx = offset >= kSpilledRcx, .spilled_rax = offset >= info.rax_saved,
          .spilled_rdx = offset >= info.saved, .is_before = true, .is_consumed = is_recorded};
}

[[gnu::always_inline]] inline DetourPosition detour_position(const DetourInfo& info, std::uint64_t origin, std::uint64_t rip) {
  const auto offset = static_cast<std::int64_t>(rip - info.entry);
  std::uint32_t part = 0;
  for (std::uint32_t next = 1; next < info.count; ++next) {
    if (offset >= info.copies[next] - std::int64_t{info.lead_bytes(next)}) part = next;
  }
  const std::uint64_t at = origin + info.starts[part];
  const bool counts = info.kind == DetourInfo::Kind::kCounts, is_first = offset >= 0 && offset < info.copies[0];
  if (info.kind == DetourInfo::Kind::kConsumers && (offset >= info.late || is_first)) return consumers_position(info, origin, offset);
  if (info.kind == DetourInfo::Kind::kRecords && is_first) return record_position(info, origin, offset);
  const std::int64_t behind = offset - (!counts && part == 0 && offset < 0 ? std::int64_t{kCountBytes} : info.copies[part]);
  if (behind < 0 && !info.has_slow_way(part) && (part != 0 || counts)) return {.rip = at, .is_before = part == 0};
  if (behind < 0) {  // counting
    const std::int64_t done = behind + kCountBytes;
    const bool is_slow = done == -std::int64_t{kDetourSlowBytes};
    return {.rip = at, .is_counted = done >= kCounted, .spilled_rcx = is_slow || (done >= kSpilledRcx && done <= kRestoredRax),
            .spilled_rax = done >= kSpilledRax && done <= kCounted, .is_before = part == 0};
  }
  if (behind == 0) return {.rip = at, .is_counted = info.is_counted(part), .is_before = part == 0};
  // In the middle of what stands for one instruction there are jumps alone, and in the end the one back.
  const auto* code = reinterpret_cast<const std::uint8_t*>(rip);
  if (code[0] == 0xe9) {
    return {rip + 5 + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(xol::load32(code + 1))})};
  }
  return {origin + (part + 1 < info.count ? info.starts[part + 1] : info.length)};
}

// What a task's mark holds while a detour runs consumers; above it, a number that changes from hit to hit.
inline constexpr std::uint8_t kDetourMark = 5;
inline constexpr int kMarkBits = 8;

}  // namespace ubp::runtime
