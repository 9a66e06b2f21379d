// Putting text back that the program may have changed, protected or unmapped since it was written.
//
// A page is written only where all that is known of it is still so, and read through the kernel, never directly: what
// lies there now may not be readable, or be something else that the program has mapped.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace ubp::patch {

struct Swap {
  std::uint64_t address;
  std::uint8_t from, to;
};

// Turns every `from` into its `to`. A page where some address holds neither is left as it is: it is not what was
// written. So is one that cannot be read. swaps: sorted by address, no duplicates. Returns nothing, or one line that
// says what was denied; some of the pages may then be written. Context: normal. Async-signal-safe: no (allocates).
// Thread-safe: no; threads may run the text meanwhile. Source: proc(5), process_vm_readv(2); poke.h.
std::optional<std::string> swap_text(std::span<const Swap> swaps);

}  // namespace ubp::patch
