// One case: an instruction at a place, and the states it is run on.
#pragma once

#include <cstdint>

#include "tests/insn_diff/encoding.h"
#include "tests/insn_diff/machine.h"

namespace ubp::insn_diff {

struct Case {
  Code code;  // with its displacements rewritten for the place
  Decoded decoded;
  decoder::Instruction kind;
  World* world = nullptr;
  std::uint64_t address = 0;  // where it stands natively
  std::uint64_t slot = 0;
  std::uint8_t* slot_rw = nullptr;
  std::uint64_t target = 0;  // a landing pad's stub: what direct and indirect branches go to
  bool target_in_text = false;
  std::uint64_t fixed_address = 0;  // the operand's address when the bytes hold it; 0: none
  std::uint32_t ignored_gpr = 0;    // results that differ from run to run
  bool ignore_flags = false;
  bool steps_late = false;  // with TF, displaced and native differ by a step: see place.cpp
  bool is_slow = false;     // leaves the virtual machine: few states

  std::uint64_t next() const { return address + decoded.raw.length; }
  std::uint8_t length() const { return decoded.raw.length; }
};

// Chooses place and displacements and mutates the bytes. Deterministic in `random`. False: it cannot be
// placed.
bool make_case(Machine& machine, const Encoding& encoding, Random& random, Case& out);

// Writes the native copy and the stubs; clear_code() takes them out again.
void write_code(Machine& machine, const Case& c);
void clear_code(const Case& c);

// Registers, flags, vectors and memory for one run: operands mostly in the arena.
class StateMaker {
 public:
  explicit StateMaker(const Machine& machine);
  void make(const Case& c, Random& random, State& out);

 private:
  void fill_xsave(std::uint8_t* image, Random& random) const;
  void fill_general(Random& random, State& out) const;
  void solve_operands(const Case& c, Random& random, State& out);
  void solve(const Case& c, const ZydisDecodedOperand& operand, Random& random, State& out);
  std::uint64_t address_of(const Case& c, const ZydisDecodedOperand& operand, const State& state) const;
  void set_vector_index(const Case& c, const ZydisDecodedOperand& operand, std::uint64_t first, Random& random,
                        State& out);
  void apply_mnemonic(const Case& c, Random& random, State& out);
  void put(const Case& c, std::uint64_t address, const void* bytes, std::size_t size, State& out) const;
  std::uint8_t* vector_part(std::uint8_t* image, int number,
                            int part) const;  // part: 0 xmm, 1 ymm high, 2 zmm high

  const Machine& machine_;
  Memory base_;
  std::array<std::uint8_t, 1 << 16> pool_;
  std::uint32_t fixed_ = 0;         // general registers that must keep their value
  std::uint64_t last_address_ = 0;  // of the explicit memory operand
};

// An address for an operand of `bytes` bytes: mostly aligned in the data pages, sometimes at an edge or
// unmapped.
std::uint64_t choose_address(const World& world, std::size_t bytes, Random& random);

inline int number_of(ZydisRegister reg) {
  return ZydisRegisterGetId(ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

}  // namespace ubp::insn_diff
