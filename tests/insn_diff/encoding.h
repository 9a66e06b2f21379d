// Encodings: what makes two instructions the same encoding, where they are found, and how their bytes are
// varied.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "decoder/classify.h"
#include "tests/insn_diff/random.h"

namespace ubp::insn_diff {

using Bytes = std::vector<std::uint8_t>;

// Wide enough for what a mutation or a decoder may look at behind the instruction.
using Code = std::array<std::uint8_t, 16>;

struct Decoded {
  ZydisDecodedInstruction raw;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

std::optional<Decoded> decode(std::span<const std::uint8_t> code);

// Two instructions have one key when they differ in nothing but register numbers, immediates and
// displacements: encoding, map, opcode, mnemonic, prefixes, W, vector length, EVEX z/b/mask use, ModRM form,
// SIB form.
std::uint64_t encoding_key(const ZydisDecodedInstruction& raw);

enum class Origin : std::uint8_t { kLibrary, kHand, kGenerated };

struct Encoding {
  Origin origin;
  std::uint64_t key;
  std::vector<Code> samples;  // up to kSamples different instructions
  const char* mnemonic;
  decoder::Route route;
  decoder::Refusal refusal;
  const char* skip = nullptr;  // why it is not run although it could be

  // Filled by the driver.
  std::uint64_t runs = 0, completed = 0;      // completed: at least one run got past the instruction
  std::uint64_t illegal = 0, protection = 0;  // SIGILL; SIGSEGV by #GP
  bool is_dead() const { return runs > 64 && completed == 0 && illegal == runs; }
};

class Catalogue {
 public:
  void add_library(const std::string& path);  // linear sweep of .text; prints what is missing
  void add_hand_cases();
  void add_generated(std::size_t attempts, std::uint64_t seed);
  bool add(std::span<const std::uint8_t> code, Origin origin);
  std::vector<Encoding>& encodings() { return encodings_; }

 private:
  static constexpr std::size_t kSamples = 4;
  std::vector<Encoding> encodings_;
  std::unordered_map<std::uint64_t, std::size_t> by_key_;
};

// Varies registers, immediates and displacements, such that key, length and classification stay. Returns the
// base when no variation is found.
Code mutate(const Code& base, Random& random);

}  // namespace ubp::insn_diff
