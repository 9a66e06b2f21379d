// One probepoint as the XOL code and the trap path see it: 32 bytes, written at load, read-only afterwards.
#pragma once

#include <cstdint>

#include "decoder/instruction.h"

namespace ubp::xol {

// Original addresses and slot addresses must never be mixed up: they are distinct types wherever both occur.
enum class OriginalAddress : std::uint64_t {};
enum class SlotAddress : std::uint64_t {};

inline constexpr std::uint32_t kNoPermanentSlot = 0xffffffff;

struct Displaced {
  std::uint64_t address = 0;               // the probepoint
  union {
    std::uint8_t bytes[15];                // Route::kSlot, kSystem: the instruction as it was
    decoder::EmulateOp op;                 // Route::kEmulate
  };
  std::uint8_t length = 0;                 // 1..15
  decoder::Route route = decoder::Route::kRefused;
  std::uint8_t rip_disp_offset = 0;        // offset of the disp32 to relocate; 0: none
  std::uint8_t area = 0;                   // the XOL area near this code
  std::uint8_t first_byte = 0;             // what the int3 replaced
  std::uint32_t permanent = kNoPermanentSlot;  // Route::kSystem: index among the permanent slots

  Displaced() : bytes{} {}
  std::uint64_t next() const { return address + length; }
};
static_assert(sizeof(Displaced) == 32);

}  // namespace ubp::xol
