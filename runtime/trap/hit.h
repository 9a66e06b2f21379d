// What a trap is, and the hit that is under way: how the thread goes on.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include "runtime/trap/ranges.h"
#include "runtime/trap/task.h"

namespace ubp::trap {

// What an int3 that the thread has met is.
enum class TrapKind : std::uint8_t {
  kForeign,     // none of the runtime's: the application's
  kHit,         // a probepoint's, or a detour's that leaves the hit to the trap path
  kLeftSlot,    // the end of a pool's slot: the thread goes on behind the displaced instruction
  kAtBoundary,  // a thread has jumped into the window of a jump: its instruction has a copy in the detour
  kCloned,      // the thread is back from a call that the gate has changed, or begins there (clone.h)
  kBorn,        // a new thread's first instruction, where it gets its own %gs (segment.h)
};

// Whether consumers have run. kMissed: they must not (the hit is made by a consumer), only be told. kAgain: they have,
// as far as anybody knows, but it may be another hit: those of calls are to run once more, for which that does no harm.
enum Consumed : std::uint8_t { kNotConsumed, kConsumed, kMissed, kAgain };

// The hit under way: how the thread goes on. Lies at uc + UBP_CONT_OFFSET.
struct Continuation {
  std::uint64_t origin;         // the probepoint; kLeftSlot: where the thread goes on
  std::uint64_t rip, rsp, rcx;  // where the thread goes on, and with what
  std::uint64_t store_address, store_value;
  std::uint64_t returns_in_user_mode;  // 1: by XRSTOR and IRETQ; 0: by rt_sigreturn
  std::uint64_t scratch;               // where the store goes when there is none to make
  TaskState* task;
  std::uint64_t is_overridden, returned;  // consumers have ended the call, which returns this
  std::uint64_t copy;    // in a detour, of the instruction at origin: where it is executed; 0: elsewhere
  std::uint32_t index;   // kHit: of the probepoint
  TrapKind kind;         // kHit, kLeftSlot, kAtBoundary
  Consumed consumed;     // have the hit's consumers run?
  bool is_mask_current;  // the frame's mask is the thread's present one
  bool is_emulated;      // after the store the displaced instruction has been executed
};
static_assert(offsetof(Continuation, rip) == UBP_CONT_RIP && offsetof(Continuation, rsp) == UBP_CONT_RSP);
static_assert(offsetof(Continuation, rcx) == UBP_CONT_RCX &&
              offsetof(Continuation, returns_in_user_mode) == UBP_CONT_IN_USER_MODE);
static_assert(offsetof(Continuation, store_address) == UBP_CONT_STORE_ADDRESS);
static_assert(offsetof(Continuation, store_value) == UBP_CONT_STORE_VALUE);
static_assert(sizeof(Continuation) == -UBP_CONT_OFFSET - 8);

[[gnu::always_inline]] inline Continuation& continuation(Context* uc) {
  return *reinterpret_cast<Continuation*>(reinterpret_cast<std::uint8_t*>(uc) + UBP_CONT_OFFSET);
}

// When `address` is the int3 at the end of a pool's slot: the original next address; else 0.
[[gnu::always_inline]] inline std::uint64_t left_pool(const CodeMap& code, std::uint64_t address) {
  if (code.slots.policy != xol::Policy::kSteal) return 0;
  for (std::uint32_t area = 0; area < code.slots.area_count; ++area) {
    const std::uint64_t in_shared = address - code.slots.areas[area].rx - code.slots.layout.shared_offset;
    if (in_shared >= code.slots.layout.shared_bytes) continue;
    // The task holds the slot: its bytes are still those that it was sent to.
    const std::uint64_t offset = in_shared % xol::kSlotBytes;
    const std::uint32_t index = code.point_of_slot(address - offset);
    if (index == runtime::kNotFound) return 0;
    const xol::Displaced& point = code.table.points[index];
    return offset == point.length ? point.next() : 0;
  }
  return 0;
}

// The system call that a thread has just been made by, when RIP is where it has not yet its own %gs (segment.h); null
// elsewhere. The maker passes there too, but not with rax 0.
[[gnu::always_inline]] inline const xol::Displaced* born_at(const CodeMap& code, std::uint64_t rip, std::uint64_t rax) {
  for (std::uint32_t area = 0; area < code.slots.area_count; ++area) {
    const PermanentSlots& permanent = code.slots.permanent[area];
    const std::uint64_t offset = (rip - permanent.base) % xol::kSlotBytes;
    const bool is_there =
        rip - permanent.base < permanent.used && offset > xol::kBirthOffset && offset <= xol::kBirthTrap + 1;
    if (!is_there || rax != 0) continue;
    const std::uint32_t index = code.point_of_slot(rip - offset);
    return index != runtime::kNotFound ? &code.table.points[index] : nullptr;
  }
  return nullptr;
}

// The gate whose clone3 ends in the int3 at this address; null: none does.
[[gnu::always_inline]] inline const xol::Displaced* cloned_at(const CodeMap& code, std::uint64_t address) {
  for (std::uint32_t area = 0; area < code.slots.area_count; ++area) {
    const std::uint64_t in_slots = address - code.slots.permanent[area].base, offset = in_slots % xol::kSlotBytes;
    if (in_slots >= code.slots.permanent[area].bytes) continue;
    const std::uint32_t index = code.point_of_slot(address - offset);
    if (index == runtime::kNotFound) return nullptr;
    const xol::Displaced& point = code.table.points[index];
    return point.is_gate && offset == xol::kCloneOffset + point.length ? &point : nullptr;
  }
  return nullptr;
}

// An int3 of the jump tier's.
struct Detoured {
  std::uint64_t origin = 0;                  // the original address it stands for
  std::uint64_t copy = 0;                    // its instruction's copy in the detour
  std::uint32_t point = runtime::kNotFound;  // at a detour's own int3: the probepoint that is hit
};

// Finds what the int3 that ends at `rip` stands for, when it is no probepoint's own: the slow way of a detour, or a
// boundary in a window.
[[gnu::always_inline]] inline bool find_detoured(const CodeMap& code, std::uint64_t rip, Detoured& found) {
  const runtime::DetourView& detours = code.detours;
  if (detours.infos == nullptr) return false;
  if (const runtime::DetourInfo* const info = detours.around(rip - 1)) {
    const runtime::DetourPosition position = runtime::detour_position(*info, rip - 1);
    if (!position.is(runtime::kLeaves)) return false;
    found.origin = position.rip;
    found.point = code.table.find(found.origin);
    found.copy = info->entry + info->copies[position.part];
    return found.point != runtime::kNotFound;
  }
  for (std::uint64_t back = 1; back < runtime::kMostJumpBytes; ++back) {
    const std::uint32_t index = code.table.find(rip - 1 - back);
    if (index == runtime::kNotFound) continue;
    // Another detour's jump may have had another window: a thread is late.
    const runtime::DetourInfo* const first = detours.of(index);
    for (const runtime::DetourInfo* info = first; info != nullptr; info = info->next_from(first)) {
      std::uint32_t part = 0;
      if (rip - 1 - info->origin != back || back >= info->jump_bytes || !info->find_part(back, part)) continue;
      found.copy = info->entry + info->copies[part];
      found.origin = rip - 1;
      return true;
    }
  }
  return false;
}

// A trap, told from its frame.
struct Trap {
  TrapKind kind = TrapKind::kForeign;
  std::uint32_t index = runtime::kNotFound;  // kHit: of the probepoint
  std::uint64_t origin = 0;                  // the original address it stands for; kLeftSlot: where the thread goes on
  std::uint64_t copy = 0;                    // kHit in a detour, kAtBoundary: of its instruction there
};

// What the int3 before RIP is when it is no probepoint's own.
[[gnu::always_inline]] inline Trap other_trap_of(const CodeMap& code, const Context* uc) {
  const std::uint64_t address = uc->rip - 1;
  if (const std::uint64_t next = left_pool(code, address)) return {TrapKind::kLeftSlot, runtime::kNotFound, next};
  if (cloned_at(code, address) != nullptr) return {TrapKind::kCloned};
  if (born_at(code, uc->rip, uc->rax) != nullptr) return {TrapKind::kBorn};
  Detoured detoured;
  if (!find_detoured(code, uc->rip, detoured)) return {};
  const TrapKind kind = detoured.point != runtime::kNotFound ? TrapKind::kHit : TrapKind::kAtBoundary;
  return {kind, detoured.point, detoured.origin, detoured.copy};
}

}  // namespace ubp::trap
