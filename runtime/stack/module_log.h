// Which modules the addresses of a session are in: written by the process that runs the program, read by whoever prints
// its stacks, also when the process is gone.
//
// In memory that processes share, and valid as zeros. Records are added only. Of two at one place the later one counts:
// a stack that was taken before the first was unloaded is shown with the second's names.
//
// Context: normal. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/symbols/symbols.h"

namespace ubp::stack {

struct ModuleRecord {
  std::uint32_t is_written;
  std::uint32_t image;  // a process, from the program that it executes on, and the children that it forks
  std::uint64_t low, high, bias;
  char build_id[64];  // in hexadecimal, NUL-padded, as the path
  char path[416];     // empty: it is too long
};
static_assert(sizeof(ModuleRecord) == 512);

struct ModuleLog {
  static constexpr std::uint32_t kMost = 2048;
  std::uint32_t images, records;  // how many there are
  std::uint64_t reserved[7];
  ModuleRecord all[kMost];
};

// A number for this process's image.
std::uint32_t take_image(ModuleLog& log);
// Adds those that are not there. Where there is no room any more, addresses in them stay numbers.
void note_modules(ModuleLog& log, std::uint32_t image, const std::vector<const symbols::Module*>& modules);
// The one that an address was in; null: none.
const ModuleRecord* module_of(const ModuleLog& log, std::uint32_t image, std::uint64_t address);

}  // namespace ubp::stack
