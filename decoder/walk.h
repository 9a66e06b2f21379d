// Which bytes of a function are instructions: found by following control from its entry, never by a blind sweep.
//
// Compilers put only code between a function's first and last byte; hand-written assembly puts tables there. A walk
// therefore accepts
//   - every instruction reached from the entry through fall-through and direct branches, and
//   - the instructions of a gap that nothing reaches directly (the cases of a switch, landing pads), if decoding the
//     gap from its first byte ends exactly where it ends, meets nothing that user code does not contain, and no
//     decoded instruction refers to an address in the gap as to data.
// Everything else is doubtful, and is reported so.
//
// Context: load time or tests. Pure but for the vectors it returns. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decoder/classify.h"

namespace ubp::decoder {

struct ByteRange {  // [begin, end), offsets from the function's entry
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

struct Decoded {
  std::uint32_t offset = 0;
  Instruction instruction;
};

struct Walk {
  std::vector<Decoded> reached;           // sorted by offset
  std::vector<ByteRange> gaps;            // sorted; not reached
  std::vector<std::uint64_t> references;  // addresses that reached instructions name RIP-relatively, unsorted
};

// Follows control from the first byte of `code`.
// code: the function's bytes, all of them; address: where they run (only references depend on it).
Walk walk_function(std::span<const std::uint8_t> code, std::uint64_t address);

// What a gap decodes to; empty when it does not decode as code. references: as in Walk, appended.
std::vector<Decoded> decode_gap(std::span<const std::uint8_t> code, ByteRange gap, std::uint64_t address,
                                std::vector<std::uint64_t>& references);

}  // namespace ubp::decoder
