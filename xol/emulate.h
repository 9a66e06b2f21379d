// The effect of an emulated instruction, computed but not applied.
//
// The result names the new RIP, RSP and RCX and at most one 8-byte store. Nothing is changed here, so that a signal
// or a fault at any instruction finds the thread either wholly before or wholly after the displaced instruction.
// Reading application memory (a return address, a call's pointer) may fault: the fault belongs to the application.
//
// Inline and free of libc: compiled into the trap path. Pure but for the application memory it reads.
#pragma once

#include <cstdint>

#include "xol/displaced.h"

namespace ubp::xol {

// General registers by hardware number (rax = 0 ... r15 = 15), and flags.
struct Registers {
  const std::uint64_t* gpr[16];  // where each lives (a signal frame keeps them in another order)
  std::uint64_t rflags;
};

struct Outcome {
  std::uint64_t rip = 0;
  std::uint64_t rsp = 0;
  std::uint64_t rcx = 0;
  std::uint64_t store_address = 0;  // valid when stores
  std::uint64_t store_value = 0;
  bool stores = false;
};

// Whether a conditional jump with this condition is taken. condition: the low nibble of the opcode (SDM volume 1,
// appendix B). Flags: CF bit 0, PF 2, ZF 6, SF 7, OF 11.
[[gnu::always_inline]] inline bool condition_holds(std::uint8_t condition, std::uint64_t flags) {
  const bool cf = flags & 0x1, pf = flags & 0x4, zf = flags & 0x40, sf = flags & 0x80, of = flags & 0x800;
  bool result = false;
  switch (condition >> 1) {
    case 0: result = of; break;
    case 1: result = cf; break;
    case 2: result = zf; break;
    case 3: result = cf || zf; break;
    case 4: result = sf; break;
    case 5: result = pf; break;
    case 6: result = sf != of; break;
    default: result = zf || sf != of; break;
  }
  return result != ((condition & 1) != 0);
}

// A reference through rsp or rbp: an address that is not canonical raises #SS (SIGBUS), not #GP (SIGSEGV).
inline constexpr std::uint8_t kStackSegment = 3;

// Reads 8 bytes of application memory at segment:offset. segment: 0 flat, 1 fs, 2 gs, kStackSegment.
[[gnu::always_inline]] inline std::uint64_t read_memory(std::uint8_t segment, std::uint64_t offset) {
  std::uint64_t value;
  if (segment == 1) {
    asm volatile("movq %%fs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
  } else if (segment == 2) {
    asm volatile("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
  } else if (segment == kStackSegment) {
    asm volatile("xchgq %1, %%rbp\n\tmovq (%%rbp), %0\n\txchgq %1, %%rbp" : "=&a"(value), "+c"(offset) : : "memory");
  } else {
    asm volatile("movq (%1), %0" : "=r"(value) : "r"(offset) : "memory");
  }
  return value;
}

[[gnu::always_inline]] inline std::uint64_t effective_address(const decoder::EmulateOp& op, const Registers& regs,
                                                              std::uint64_t next) {
  std::uint64_t address = static_cast<std::uint64_t>(static_cast<std::int64_t>(op.displacement));
  if (op.base == decoder::kRipRegister) {
    address += next;
  } else if (op.base != decoder::kNoRegister) {
    address += *regs.gpr[op.base];
  }
  if (op.index != decoder::kNoRegister) address += *regs.gpr[op.index] << op.scale;
  return op.narrow_address ? address & 0xffffffff : address;
}

// A call or return to an address that is not canonical faults before it changes anything: so does this. A call's
// push comes first, so a stack that cannot be written faults first.
[[gnu::always_inline]] inline void require_canonical(std::uint64_t target, std::uint64_t pushes_to) {
  const auto bits = static_cast<std::int64_t>(target);
  if (bits << 16 >> 16 == bits) [[likely]]
    return;
  if (pushes_to != 0) {
    asm volatile("xchgq %0, %%rbp\n\torq $0, (%%rbp)\n\txchgq %0, %%rbp" : "+c"(pushes_to) : : "memory", "cc");
  }
  read_memory(0, std::uint64_t{1} << 63);
}

// Computes what a Route::kEmulate instruction does to a thread that stands before it.
[[gnu::always_inline]] inline Outcome emulate(const Displaced& point, const Registers& regs) {
  using decoder::Effect;
  const decoder::EmulateOp& op = point.op;
  const std::uint64_t next = point.next();
  const std::uint64_t target = next + static_cast<std::uint64_t>(static_cast<std::int64_t>(op.displacement));
  Outcome out;
  out.rip = next;
  out.rsp = *regs.gpr[4];
  out.rcx = *regs.gpr[1];
  const auto push = [&](std::uint64_t value) {
    out.rsp -= 8;
    out.store_address = out.rsp;
    out.store_value = value;
    out.stores = true;
  };
  switch (op.effect) {
    case Effect::kNone: break;
    case Effect::kPush: push(*regs.gpr[op.base]); break;
    case Effect::kJump: out.rip = target; break;
    case Effect::kJumpIf:
      if (condition_holds(op.condition, regs.rflags)) out.rip = target;
      break;
    case Effect::kLoop:
    case Effect::kLoopEqual:
    case Effect::kLoopNotEqual: {
      // A 32-bit count clears the upper half, as every write of a 32-bit register does.
      out.rcx = op.narrow_address ? (out.rcx - 1) & 0xffffffff : out.rcx - 1;
      const bool zf = regs.rflags & 0x40;
      const bool wanted = op.effect == Effect::kLoop || (op.effect == Effect::kLoopEqual) == zf;
      if (out.rcx != 0 && wanted) out.rip = target;
      break;
    }
    case Effect::kJumpRcxZero:
      if ((op.narrow_address ? out.rcx & 0xffffffff : out.rcx) == 0) out.rip = target;
      break;
    case Effect::kCall:
      out.rip = target;
      push(next);
      break;
    case Effect::kCallIndirect:
      if (op.is_memory) {
        const bool stack = op.segment == 0 && (op.base == 4 || op.base == 5);
        out.rip = read_memory(stack ? kStackSegment : op.segment, effective_address(op, regs, next));
      } else {
        out.rip = *regs.gpr[op.base];
      }
      require_canonical(out.rip, out.rsp - 8);
      push(next);
      break;
    case Effect::kReturn:
      out.rip = read_memory(kStackSegment, out.rsp);
      require_canonical(out.rip, 0);
      out.rsp += 8 + static_cast<std::uint64_t>(static_cast<std::uint32_t>(op.displacement));
      break;
  }
  return out;
}

}  // namespace ubp::xol
