// The text poke: the one primitive that writes code.
//
// The ladder, tried per call: /proc/self/mem (opened for the call and closed after it, so that no forked child ever
// holds its parent's), then a copied page moved over the original by mremap. Text never loses X and no page is ever
// writable and executable. When both are denied the write is refused and undone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "runtime/patch/own_memory.h"
#include "xol/sys.h"

namespace ubp::patch {

struct Byte {
  std::uint64_t address = 0;  // run-time address in mapped text
  std::uint8_t value = 0;
};

// Writes all bytes, batched by page: one system call per run of neighbouring pages.
// bytes: sorted by address, no duplicates. memory: one that the caller has open already, if it has. Returns nothing
// when all are written; else one line that says what was denied, and the text is as it was. Context: load time, or with
// no other patching under way. Async-signal-safe: no (allocates). Thread-safe: no; threads may run the text meanwhile:
// each sees an old or a new byte. Source: proc(5), mremap(2); single-byte int3 patching needs no handshake (SDM volume
// 3, cross-modifying code).
std::optional<std::string> write_text(std::span<const Byte> bytes, const OwnMemory& memory = OwnMemory());

// The same for whole pages: one system call per run of neighbours. pages: in any order; neighbours that follow one
// another in it make a run.
struct Page {
  std::uint64_t address;
  const std::uint8_t* bytes;  // kPageBytes
};
using sys::kPageBytes;
std::optional<std::string> write_pages(std::span<const Page> pages);

}  // namespace ubp::patch
