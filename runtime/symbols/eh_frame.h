// The functions that .eh_frame knows: unwinders need it, so stripped programs keep it.
//
// Context: load time. The bytes are untrusted.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/symbols/elf_file.h"

namespace ubp::symbols {

struct CodeRange {
  std::uint64_t address = 0;  // ELF virtual address
  std::uint64_t size = 0;     // bytes, more than 0
};

// One range per FDE, sorted by address; of several that begin together the longest. What follows a damaged
// entry is not read. Left out: FDEs whose pointers are written in a way that no x86-64 compiler uses, and
// those of signal trampolines, which begin in the padding before the function.
std::vector<CodeRange> frame_ranges(const SectionBytes& eh_frame);

}  // namespace ubp::symbols
