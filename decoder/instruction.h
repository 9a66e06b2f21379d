// What an instruction is and how it can be displaced: the value types every other room reads.
//
// Pure data. The trap path reads these structures, so they hold no pointers and need no code to use.
// The functions that fill them are in classify.h (load time only: they call Zydis).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ubp::decoder {

inline constexpr std::size_t kMaxInstructionBytes = 15;
inline constexpr std::uint32_t kJumpBytes = 5;     // jmp rel32, in place of displaced instructions
inline constexpr std::uint32_t kMostPrefixes = 2;  // redundant ones in front of it

// How a displaced instruction is carried out.
enum class Route : std::uint8_t {
  kRefused,  // cannot be displaced; see Refusal
  kSlot,     // relocated copy in an XOL slot, then a jump back
  kSystem,   // `syscall` or `int 0x80`: a permanent slot, since a thread may sleep or be born there
  kEmulate,  // its whole effect is computed in the trap path; no slot
};

// Why an instruction cannot be displaced. Stable: printed in reports, see refusal_code().
enum class Refusal : std::uint8_t {
  kNone,
  kUndecodable,        // no instruction, or longer than 15 bytes
  kTruncated,          // runs past the bytes given
  kBreakpoint,         // int3, int 3, int1: a breakpoint of the application's own
  kUndefined,          // ud0, ud1, ud2: raises #UD on purpose
  kPrivileged,         // hlt, in, out, ins, outs, cli, sti, mov cr/dr, ...: faults in user mode
  kFarTransfer,        // iret, far call, far jmp, far ret
  kStackSegment,       // mov ss, lss (pop ss: undecodable here): masks the trap of the next instruction
  kOperandSizeBranch,  // near branch with a 0x66 prefix: vendors disagree on its length and target
  kSysenter,           // sysenter/sysexit: returns to an address the kernel fixes
  kInterrupt,          // int n other than 3 and 0x80
  kNarrowRip,          // RIP-relative operand with a 0x67 prefix: its address is cut to 32 bits
  kEnclave,            // enclu: leaves the address of the next instruction in rcx, which would be a slot's
};

// What kind of effect Route::kEmulate computes.
enum class Effect : std::uint8_t {
  kNone,          // nop of any length, endbr64: go to the next instruction
  kPush,          // push r64: store `base` below the stack pointer
  kJump,          // jmp rel
  kJumpIf,        // jcc rel, `condition` is the low nibble of the opcode
  kLoop,          // loop rel
  kLoopEqual,     // loope rel
  kLoopNotEqual,  // loopne rel
  kJumpRcxZero,   // jrcxz / jecxz rel
  kCall,          // call rel
  kCallIndirect,  // call r64, or call through memory
  kReturn,        // ret, ret imm16 (`displacement` holds imm16)
};

// General-register numbers are the hardware's (rax = 0 ... r15 = 15).
inline constexpr std::uint8_t kNoRegister = 0xff;
inline constexpr std::uint8_t kRipRegister = 0xfe;

// Operands of an emulated instruction, complete enough that the trap path decodes nothing.
struct [[gnu::packed]] EmulateOp {  // packed: shares 15 bytes with an instruction copy (xol/displaced.h)
  std::int32_t displacement = 0;    // branch: target - next instruction; memory: disp32; ret: bytes to pop
  Effect effect = Effect::kNone;
  std::uint8_t condition = 0;        // kJumpIf: 0..15 (0 = o, 4 = e, 15 = g)
  std::uint8_t base = kNoRegister;   // kPush, kCallIndirect by register: the register; memory: base or kRipRegister
  std::uint8_t index = kNoRegister;  // memory only
  std::uint8_t scale = 0;            // memory only: log2 of the factor, 0..3
  std::uint8_t segment = 0;          // memory only: 0 none, 1 fs, 2 gs
  bool is_memory = false;            // kCallIndirect: operand is memory
  bool narrow_address = false;       // 0x67 prefix: the address (or the count register) has 32 bits
};
static_assert(sizeof(EmulateOp) <= 12);

// Everything the rest of UBP needs to know of one instruction.
struct Instruction {
  std::uint8_t length = 0;  // 1..15; 0 when undecodable, or when vendors disagree where it ends
                            // (0x66 call/jmp/jcc rel32 without REX.W; ud0)
  Route route = Route::kRefused;
  Refusal refusal = Refusal::kNone;
  std::uint8_t rip_disp_offset = 0;  // byte offset of a RIP-relative disp32 or xbegin rel32; 0: none
  bool ends_block = false;           // control never falls through (jmp, ret, ud2, hlt, int3)
  bool has_target = false;           // direct branch, direct call or xbegin: `target` is valid
  bool is_call = false;              // near call, direct or indirect
  bool reads_flags = false;          // some of OF, SF, ZF, AF and PF, or may: all but the carry, as inc leaves it
  bool writes_flags = false;         // all of these five, whatever its operands
  bool is_general = false;  // it touches no x87, MMX, vector, mask or tile register, and no control word of theirs
  std::int64_t target = 0;  // direct branch target, relative to the instruction's own address
  EmulateOp op{};           // Route::kEmulate only
};

}  // namespace ubp::decoder
