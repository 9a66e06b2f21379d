// What .eh_frame knows: functions, and how their callers are found. Unwinders need it, so stripped programs keep it.
//
// Context: load time. The bytes are untrusted.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/symbols/dwarf_bytes.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::symbols {

struct CodeRange {
  std::uint64_t address = 0;  // ELF virtual address
  std::uint64_t size = 0;     // bytes, more than 0
};

// What functions have in common that were compiled alike: a CIE.
struct CommonEntry {
  std::uint8_t encoding = DW_EH_PE_omit;  // of addresses; DW_EH_PE_omit: written in a way that is not understood
  bool is_signal_frame = false;
  bool has_augmentation = false;  // its functions have data of their own before their instructions
  std::uint64_t code_factor = 1;
  std::int64_t data_factor = 1;
  std::uint64_t return_register = 0;
  DwarfBytes instructions;
};
// A function, or part of one: an FDE.
struct FrameEntry {
  CodeRange range;
  const CommonEntry& common;
  DwarfBytes instructions;
};

// Calls visit for every entry that is understood, in their order. What follows a damaged one is not read.
void visit_frames(const SectionBytes& eh_frame, const std::function<void(const FrameEntry&)>& visit);

// One range per FDE, sorted by address; of several that begin together the longest. What follows a damaged
// entry is not read. Left out: FDEs whose pointers are written in a way that no x86-64 compiler uses, and
// those of signal trampolines, which begin in the padding before the function.
std::vector<CodeRange> frame_ranges(const SectionBytes& eh_frame);

}  // namespace ubp::symbols
