// What a detour saves around the consumers of its hit, and how its task is marked meanwhile.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xol/sys.h"

namespace ubp::runtime {

// What a detour saves around its consumers, at the top of the task's own stack, where no signal frame comes.
struct DetourSave {
  std::uint64_t registers[16];  // numbered as the hardware does
  std::uint64_t status;         // ah: the status flags but OF; al: OF
  std::uint32_t error;          // errno
  std::uint32_t cancel;         // the thread's cancellation state
  std::uint64_t rflags;         // not at a function's entry: for the direction flag
  std::uint32_t mxcsr;
  std::uint32_t in_use;  // XINUSE, of what runtime/jump/floating.S saves; or kInImage; 0: xmm alone
  std::uint64_t mask;    // the thread's signal mask, when signals were put off (trap/consume.h)
  // What consumers are passed: consumers/consumer_list.h. Only the last word changes: the consumer that runs.
  std::uint64_t context[4];
  std::uint64_t counters;  // where the task's detours count; it never changes
  // Of consumers that may: the call is over, and what it returns.
  std::uint64_t is_overridden, returned;
  alignas(64) std::uint64_t masks[8];
  std::uint8_t vectors[2048];  // xmm, ymm or zmm, one behind the other
  std::uint8_t image[4672];    // FXSAVE's, and XSAVE's; its header is never written but by XSAVE, and begins as zeros
};
// DetourSave::in_use: XSAVE has saved all.
inline constexpr std::uint32_t kInImage = std::uint32_t{1} << 31;
// Half of an %xmm register at the hit, where one of the consumers has it saved (ActionNeeds::xmm).
[[gnu::always_inline]] inline std::uint64_t saved_vector(const DetourSave& save, unsigned number, unsigned half) {
  constexpr std::uint32_t kSse = 1u << 1, kYmm = 1u << 2, kZmm = 1u << 6;  // of XINUSE
  constexpr std::size_t kVectors = 160, kHeader = 512;                     // in an image: SDM volume 1, 13.4
  std::size_t bytes = 16;
  if ((save.in_use & kYmm) != 0) bytes = 32;
  if ((save.in_use & kZmm) != 0) bytes = 64;
  const std::uint8_t* at = save.vectors + number * bytes;
  if (save.in_use == kInImage) {
    if ((save.image[kHeader] & kSse) == 0) return 0;  // in its initial state, which may have been left out
    at = save.image + kVectors + number * std::size_t{16};
  }
  std::uint64_t value;
  __builtin_memcpy(&value, at + half * sizeof value, sizeof value);
  return value;
}
// The third: the task's state.
inline constexpr std::size_t kContextTask = 2, kContextConsumer = 3;
inline constexpr std::uint64_t kDetourSaveBytes = 8192;  // room for it, whole pages
// It begins so far into the first one: a processor takes addresses that are alike in their low 12 bits for the same at
// first, and much else begins with its page.
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
static_assert(kDetourSaveSkew + sizeof(DetourSave) <= kDetourSaveBytes &&
              (kDetourSaveSkew + offsetof(DetourSave, image)) % 64 == 0);

// What a task's mark holds while a detour runs consumers; above it, a number that changes from hit to hit.
inline constexpr std::uint8_t kDetourMark = 5;
inline constexpr int kMarkBits = 8;

}  // namespace ubp::runtime
