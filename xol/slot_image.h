// The bytes of one XOL slot, and the way back from an address in a slot to the original code.
//
//   slot            +-------------------------------+
//                   | relocated copy (1..15 bytes)  |   RIP here: not executed yet (or a rep string half way)
//                   | jmp rel32 -> next instruction |   RIP here: executed
//                   +-------------------------------+
//   permanent slot  | syscall                       |   RIP here: not executed (also a restarted call)
//                   | mov $next, %rcx               |   RIP here: executed; rcx still to be set
//                   | jmp rel32 -> next instruction |   RIP here: executed
//          at 44:   | syscall                       |   the same for a call that makes a thread: the child traps
//                   | mov %rax,%rcx; jrcxz 1f       |   before it does anything (trap/segment.h)
//                   | jmp, to the mov above; 1: int3|
//                   +-------------------------------+
//   a gate's, too,  | syscall                       |   RIP here: not executed, but the gate has changed its arguments
//   at kCloneOffset | int3                          |   RIP here: executed; arguments to be put back (trap/clone.h)
//                   +-------------------------------+
//
// Inline and free of libc: compiled into the trap path. Context: any. Async-signal-safe: yes. Thread-safe: the
// caller owns the slot it writes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xol/displaced.h"

namespace ubp::xol {

inline constexpr std::size_t kSlotBytes = 64;  // one cache line: neighbours never share one
inline constexpr std::int64_t kReach = 0x7fffffff;

// A jump, a copied disp32 and the slack between a slot's start and its jump must all stay within rel32.
inline constexpr std::int64_t kReachMargin = 4096;

[[gnu::always_inline]] inline void store32(std::uint8_t* at, std::uint32_t value) {
  __builtin_memcpy(at, &value, sizeof value);
}
[[gnu::always_inline]] inline void store64(std::uint8_t* at, std::uint64_t value) {
  __builtin_memcpy(at, &value, sizeof value);
}
[[gnu::always_inline]] inline std::uint32_t load32(const std::uint8_t* at) {
  std::uint32_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}
[[gnu::always_inline]] inline std::uint64_t load64(const std::uint8_t* at) {
  std::uint64_t value;
  __builtin_memcpy(&value, at, sizeof value);
  return value;
}

// Writes `jmp rel32` to `target`. out: where the bytes go; at: the address they will run at.
[[gnu::always_inline]] inline void write_jump(std::uint8_t* out, std::uint64_t at, std::uint64_t target) {
  out[0] = 0xe9;
  store32(out + 1, static_cast<std::uint32_t>(target - (at + 5)));
}

// Copies the displaced instruction, relocating its RIP-relative field. Touches 16 bytes of `out`.
[[gnu::always_inline]] inline void write_copy(std::uint8_t* out, std::uint64_t at, const Displaced& point) {
  store64(out, load64(point.bytes));
  store64(out + 8, load64(point.bytes + 8));  // the last byte is first_byte: overwritten by what follows the copy
  if (point.rip_disp_offset != 0) {
    std::uint8_t* field = out + point.rip_disp_offset;
    store32(field, static_cast<std::uint32_t>(load32(field) + (point.address - at)));
  }
}

// Writes the evictable slot of a Route::kSlot probepoint.
// out: writable view of kSlotBytes bytes; at: the slot's executable address, within reach (see in_reach()).
[[gnu::always_inline]] inline void write_slot(std::uint8_t* out, SlotAddress at, const Displaced& point) {
  const auto address = static_cast<std::uint64_t>(at);
  write_copy(out, address, point);
  write_jump(out + point.length, address + point.length, point.next());
}

[[gnu::always_inline]] inline bool is_syscall(const Displaced& point) {
  return point.bytes[point.length - 2] == 0x0f;
}  // else int 0x80; behind any prefixes

// A slot that is no thread's own names its probepoint in its last word, since no cache knows it.
inline constexpr std::size_t kOriginOffset = kSlotBytes - 8;

[[gnu::always_inline]] inline OriginalAddress shared_origin(std::uint64_t slot_start) {
  return OriginalAddress{load64(reinterpret_cast<const std::uint8_t*>(slot_start) + kOriginOffset)};
}

// Writes the slot that a Route::kSlot probepoint has for ever.
[[gnu::always_inline]] inline void write_once_slot(std::uint8_t* out, SlotAddress at, const Displaced& point) {
  write_slot(out, at, point);
  store64(out + kOriginOffset, point.address);
}

// Writes the slot of a pool: it ends in an int3, by which the thread says that it has left.
[[gnu::always_inline]] inline void write_pool_slot(std::uint8_t* out, SlotAddress at, const Displaced& point) {
  write_copy(out, static_cast<std::uint64_t>(at), point);
  out[point.length] = 0xcc;
  store64(out + kOriginOffset, point.address);
}

// Where a permanent slot holds a gate's `syscall` once more, for a call that parent and child have to come back from.
inline constexpr std::size_t kCloneOffset = 32;
// The permanent slot's second form, for system calls that make a thread, and the int3 that the thread meets.
inline constexpr std::size_t kBirthOffset = 44, kBirthTrap = 53;

// Writes the permanent slot of a Route::kSystem probepoint (load time). `syscall` leaves the address of its next
// instruction in rcx (SDM volume 2, SYSCALL): the slot puts the original one there.
inline void write_permanent_slot(std::uint8_t* out, SlotAddress at, const Displaced& point) {
  const auto address = static_cast<std::uint64_t>(at);
  write_copy(out, address, point);
  std::size_t used = point.length;
  if (is_syscall(point)) {
    out[used] = 0x48;  // mov $imm64, %rcx
    out[used + 1] = 0xb9;
    store64(out + used + 2, point.next());
    used += 10;
  }
  write_jump(out + used, address + used, point.next());
  if (point.is_gate) {
    write_copy(out + kCloneOffset, address + kCloneOffset, point);
    out[kCloneOffset + point.length] = 0xcc;
  }
  if (is_syscall(point)) {
    constexpr std::uint8_t kBirth[] = {0x0f, 0x05, 0x48, 0x89, 0xc1, 0xe3, 0x02, 0xeb, 0, 0xcc};
    static_assert(kBirthOffset + sizeof kBirth == kBirthTrap + 1 && kBirthTrap < kOriginOffset);
    for (std::size_t i = 0; i < sizeof kBirth; ++i) out[kBirthOffset + i] = kBirth[i];
    out[kBirthTrap - 1] = static_cast<std::uint8_t>(point.length - kBirthTrap);  // jmp rel8
  }
  store64(out + kOriginOffset, point.address);
}

// Where a thread stands whose RIP is `offset` bytes into the slot of `point`.
struct SlotPosition {
  OriginalAddress address;  // what RIP would be without UBP
  bool executed;            // false: the instruction is still to run (the hit is already counted)
  bool sets_rcx;            // rcx must read address (a syscall whose fix-up has not run yet)
  bool is_cloning = false;  // rdi and the mask are the gate's (trap/clone.h)
};

[[gnu::always_inline]] inline SlotPosition position_in_slot(const Displaced& point, std::uint64_t offset) {
  const bool is_system = point.route == decoder::Route::kSystem && is_syscall(point);
  const bool is_birth = is_system && offset >= kBirthOffset,
             is_cloning = point.is_gate && offset >= kCloneOffset && !is_birth;
  const std::uint64_t behind = offset - (is_birth ? kBirthOffset : is_cloning ? kCloneOffset : 0);
  if (behind < (is_birth ? 1 : point.length)) return {OriginalAddress{point.address}, false, false, is_cloning};
  return {OriginalAddress{point.next()}, true, is_birth || (is_system && behind == point.length), is_cloning};
}

// True when a slot anywhere in [area, area + area_bytes) can stand in for an instruction at `address` whose
// RIP-relative operand, if any, points to `target` (pass `address` itself when there is none).
inline bool in_reach(std::uint64_t area, std::uint64_t area_bytes, std::uint64_t address, std::uint64_t target) {
  const auto fits = [](std::uint64_t a, std::uint64_t b) {
    const auto distance = static_cast<std::int64_t>(a - b);
    return distance < kReach - kReachMargin && distance > -(kReach - kReachMargin);
  };
  return fits(area, address) && fits(area + area_bytes, address) && fits(area, target) &&
         fits(area + area_bytes, target);
}

}  // namespace ubp::xol
