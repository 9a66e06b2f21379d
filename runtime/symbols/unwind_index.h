// Function boundaries from the mapped image alone: the sorted index (.eh_frame_hdr) that unwinders use. No file is
// read.
//
// Source: Linux Standard Base core specification, "Exception Frames"; DWARF 5, 6.4.1.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/symbols/readable.h"
#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

struct Extent {
  std::uint64_t begin, end;  // ELF virtual addresses
};

class UnwindIndex {
 public:
  // An index that is missing, or encoded as no linker does today, finds nothing.
  explicit UnwindIndex(const Module& module);

  // The function, or part of one, whose call frame information covers the ELF address. Thread-safe: no.
  std::optional<Extent> containing(std::uint64_t address) const;

 private:
  struct Entry {  // both relative to the index's own start
    std::int32_t begin;
    std::int32_t description;
  };

  const Module& module_;
  mutable Readable readable_;
  const Entry* entries_ = nullptr;
  std::uint32_t count_ = 0;
};

}  // namespace ubp::symbols
