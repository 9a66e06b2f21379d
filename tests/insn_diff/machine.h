// The place where instructions run: fixed memory in two worlds, the shared Context, and one run of one
// instruction.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/insn_diff/layout.h"
#include "xol/emulate.h"
#include "xol/slot_image.h"

namespace ubp::insn_diff {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kXsaveBytes = 4096;

// Arena of a world: guard | stack | data data | read-only | beyond end of file (SIGBUS) | guard.
inline constexpr std::size_t kStackBytes = kPage, kDataBytes = 2 * kPage, kRwBytes = kStackBytes + kDataBytes;
using Memory = std::array<std::uint8_t, kRwBytes>;

// Everything lies within 2 GiB of everything else, so that any RIP-relative operand can mean the arena.
// The low world serves operands that have no register, or 32-bit addresses; the high one catches a lost upper
// half.
struct World {
  std::uint64_t base;
  std::uint8_t* text_rw;  // the same bytes as text(), writable
  std::uint8_t* targets_rw;
  std::uint8_t* slots_rw[2];

  std::uint64_t text() const { return base; }                   // kTextBytes
  std::uint64_t near_slots() const { return base + 0x200000; }  // kSlotRegionBytes
  std::uint64_t targets() const { return base + 0x10000000; }
  std::uint64_t stack() const { return base + 0x30000000; }
  std::uint64_t data() const { return stack() + kStackBytes; }
  std::uint64_t read_only() const { return data() + kDataBytes; }
  std::uint64_t bus() const { return read_only() + kPage; }
  std::uint64_t far_slots() const { return base + 0x70000000; }
  std::uint64_t slots(int which) const { return which == 0 ? near_slots() : far_slots(); }
};

inline constexpr std::size_t kTextBytes = 4 * kPage, kTargetBytes = kPage, kSlotRegionBytes = kPage;
inline constexpr std::size_t kStubBytes = 14;

struct alignas(64) Context {
  std::uint8_t xsave_in[kXsaveBytes];
  std::uint8_t xsave_out[kXsaveBytes];
  std::uint64_t gpr_in[16];
  std::uint64_t rip_in, cs_in, flags_in, rsp_in, ss_in, fs_in, gs_in;
  std::uint64_t gpr_out[16];
  std::uint64_t flags_out, fs_out, gs_out;
  std::uint64_t selectors_out[4];
  std::uint64_t where;
  std::uint64_t signal, info, ucontext;
  std::uint64_t home_rsp, home_fs, home_gs, inside;
};
static_assert(offsetof(Context, rip_in) == DIFF_RIP_IN && offsetof(Context, gs_in) == DIFF_GS_IN);
static_assert(offsetof(Context, gpr_out) == DIFF_GPR_OUT && offsetof(Context, where) == DIFF_WHERE);
static_assert(offsetof(Context, inside) == DIFF_INSIDE);

// What a thread holds before the instruction.
struct State {
  alignas(64) std::uint8_t xsave[kXsaveBytes];
  std::uint64_t gpr[16];
  std::uint64_t flags, fs, gs;
  Memory memory;
};

enum class Where : std::uint8_t { kNext, kTarget, kSignal };

// What it holds afterwards, translated to original addresses.
struct Outcome {
  Where where;
  std::uint64_t gpr[16];
  std::uint64_t flags, fs, gs;
  std::uint64_t selectors[4];
  int signal, code;
  std::uint64_t address, rip, trap, error, cr2;  // of a signal
  bool from_iret;                                // it faulted on entry, not in the instruction
  std::uint8_t xsave[kXsaveBytes];
  Memory memory;
};

// Where the XSAVE components lie on this processor (CPUID leaf 0xd).
struct XsaveLayout {
  std::uint64_t features = 0;  // XCR0
  std::uint32_t size = 0;
  std::uint32_t offset[64] = {};
  std::uint32_t bytes[64] = {};
};

class Machine {
 public:
  Machine();  // maps both worlds, installs the handlers; exits on failure
  World& world(bool low) { return worlds_[low ? 0 : 1]; }
  const XsaveLayout& xsave_layout() const { return layout_; }
  std::uint64_t pad(bool target) const;

  // Enters `rip` with `state` and fills `out`, its memory aside.
  void run(const State& state, std::uint64_t rip, Outcome& out);

  // Computes an emulated instruction's effect as the trap path does: false, and `out` filled, when it faults.
  bool emulate(const State& state, const xol::Displaced& point, xol::Outcome& effect, Outcome& out);
  // Makes its store. Same result.
  bool store(const State& state, const xol::Outcome& effect, Outcome& out);

  void put_memory(const World& world, const Memory& memory);
  void get_memory(const World& world, Memory& memory) const;

 private:
  void load(const State& state, std::uint64_t rip);
  void take(bool signalled, Outcome& out) const;

  World worlds_[2];
  XsaveLayout layout_;
};

// Writes `jmp *0(%rip); .quad pad`, which lands without a register.
inline void write_stub(std::uint8_t* out, std::uint64_t pad) {
  const std::uint8_t jump[6] = {0xff, 0x25, 0, 0, 0, 0};
  std::memcpy(out, jump, 6);
  std::memcpy(out + 6, &pad, 8);
}

}  // namespace ubp::insn_diff
