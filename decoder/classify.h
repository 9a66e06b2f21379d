// Decoding and classification. Load time only: the one translation unit behind this header calls Zydis.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "decoder/instruction.h"

namespace ubp::decoder {

// Decodes the instruction at the start of `code` and says how it can be displaced.
// code: bytes from the instruction on; more than 15 are ignored. Fewer may make it kTruncated.
// Returns an Instruction; route is kRefused with the reason when it cannot be displaced. For a refused but
// decodable instruction length, ends_block and target are still valid (boundaries are found through it),
// unless vendors disagree on its length: then length is 0 and no boundary behind it is found.
// Context: load time or tests. Async-signal-safe: yes (no state, no allocation). Thread-safe: yes.
// Source: Intel SDM volume 2; AMD APM volume 3.
Instruction classify(std::span<const std::uint8_t> code);

// The length alone of the instruction at the start of `code`, in a third of the time; 0: undecodable or truncated. It
// is classify()'s wherever that is not 0. Otherwise as classify().
std::uint8_t length_of(std::span<const std::uint8_t> code);

// The stable short code of a refusal ("privileged", "far-transfer", ...) and its sentence for people.
std::string_view refusal_code(Refusal refusal);
std::string_view refusal_message(Refusal refusal);

// Where an offset stands among the instructions of a function.
struct Boundary {
  bool is_boundary = false;  // an instruction starts exactly there
  std::uint32_t before = 0;  // start of the instruction that covers the offset; a boundary: the offset
  std::uint32_t after = 0;   // start of the next one; `before` again when that instruction has no length
};

// Decodes `code` from its first byte (a function's entry) and places `offset` among its instructions.
// code: the function's bytes; offset: 0 <= offset < code.size(). from: where decoding may begin instead, not behind the
// offset: a boundary that the same bytes have shown before.
// Returns nothing when the offset is outside `code`, or when decoding meets an undecodable byte (or an
// instruction without a length) before it reaches the offset: then no claim about the offset can be trusted
// (data in text), and a probe there is refused. The instruction at a boundary itself may be undecodable.
std::optional<Boundary> find_boundary(std::span<const std::uint8_t> code, std::uint32_t offset, std::uint32_t from = 0);

}  // namespace ubp::decoder
