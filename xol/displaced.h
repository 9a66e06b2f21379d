// One probepoint as the XOL code and the trap path see it: 24 bytes. The first word changes in one store
// (table/table.h), the others never.
//
//   | address 47, has_consumers 1 | length 4, rip_disp_offset 4 | route 2, area 4, is_gate 1, is_hook 1 |   one word
//   | instruction bytes 15 | first_byte |                           Route::kSlot: the copy
//   | 0f 05 or cd 80 ... | permanent slot at 8 | ... first_byte |   Route::kSystem
//   | EmulateOp 12 | ... | first_byte |                             Route::kEmulate
#pragma once

#include <cstdint>

#include "decoder/instruction.h"

namespace ubp::xol {

// Original addresses and slot addresses must never be mixed up: they are distinct types wherever both occur.
enum class OriginalAddress : std::uint64_t {};
enum class SlotAddress : std::uint64_t {};

inline constexpr std::uint32_t kNoPermanentSlot = 0xffffffff;
inline constexpr std::uint64_t kAddressMask = (std::uint64_t{1} << 47) - 1;

struct Displaced {
  std::uint64_t address : 47;        // the probepoint; user-space addresses have 47 bits
  bool has_consumers : 1;            // a hit runs callbacks (trap/consume.h)
  std::uint8_t length : 4;           // 1..15
  std::uint8_t rip_disp_offset : 4;  // offset of the disp32 to relocate; 0: none
  decoder::Route route : 2;
  std::uint8_t area : 4;  // the XOL area near this code
  bool is_gate : 1;       // a system call that may take SIGTRAP away: trap/gate.h looks at it first
  bool is_hook : 1;       // the dynamic linker's word that the modules have changed
  union {
    std::uint8_t bytes[15];  // Route::kSlot, kSystem: the instruction as it was
    decoder::EmulateOp op;   // Route::kEmulate
    struct [[gnu::packed]] {
      std::uint8_t instruction[8];
      std::uint32_t permanent;  // Route::kSystem: index among the permanent slots of its area
    } system;
  };
  std::uint8_t first_byte = 0;  // what the int3 replaced

  Displaced()
      : address(0),
        has_consumers(false),
        length(0),
        rip_disp_offset(0),
        route(decoder::Route::kRefused),
        area(0),
        is_gate(false),
        is_hook(false),
        bytes{} {}

  // The probepoint at `at`, whose instruction is `instruction` and reads `code` (at least its length).
  Displaced(std::uint64_t at, const decoder::Instruction& instruction, const std::uint8_t* code)
      : address(at & kAddressMask),
        has_consumers(false),
        length(instruction.length & 0xf),
        rip_disp_offset(instruction.rip_disp_offset & 0xf),
        route(instruction.route),
        area(0),
        is_gate(false),
        is_hook(false),
        bytes{},
        first_byte(code[0]) {
    if (instruction.route == decoder::Route::kEmulate) {
      op = instruction.op;
    } else {
      for (unsigned i = 0; i < length; ++i) bytes[i] = code[i];
    }
    if (instruction.route == decoder::Route::kSystem) system.permanent = kNoPermanentSlot;
  }

  std::uint64_t next() const { return address + length; }
};
static_assert(sizeof(Displaced) == 24);

}  // namespace ubp::xol
