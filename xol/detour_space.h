// Where detours lie: chunks of address space within a jump's reach of the code, filled densely from their low ends, because
// scattered detours cost misses of the instruction TLB.
//
// A chunk is read-execute from the start and never writable: its pages come into being when the text poke writes them. What
// was placed is never freed: a thread may sleep in it for hours.
//
// Context: normal. Thread-safe: no.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "xol/detour_plan.h"
#include "xol/detour_view.h"

namespace ubp::xol {

class DetourSpace {
 public:
  // reserve(base): maps a chunk there, or says that it cannot.
  explicit DetourSpace(std::function<bool(std::uint64_t base)> reserve) : reserve_(std::move(reserve)) {}

  // A place for a detour of `bytes` bytes behind its head, such that its entry minus `from` (the address behind the jump)
  // matches the pattern, whose highest byte is fixed. Marks it as used. Returns the entry; nothing: no such place is free.
  std::optional<std::uint64_t> place(std::uint64_t from, Pattern pattern, std::uint32_t bytes);

  // Publishes what is placed there, once its bytes are written: threads that are found inside are recognised.
  void publish(DetourView& view, std::uint64_t entry);

  std::uint64_t used_bytes() const { return used_bytes_; }

 private:
  static constexpr std::uint64_t kPage = 4096;
  struct Chunk {
    std::uint64_t* used = nullptr;               // a bit for every byte
    std::uint64_t* begins = nullptr;             // DetourChunk::begins
    std::uint32_t longest[kChunkBytes / kPage];  // no free run that begins in the page is longer
    bool is_shown = false;                       // in the view
  };

  Chunk* chunk_at(std::uint64_t base);
  std::uint64_t last_used(Chunk& chunk, std::uint64_t begin, std::uint64_t end) const;

  std::function<bool(std::uint64_t)> reserve_;
  std::map<std::uint64_t, std::unique_ptr<Chunk>> chunks_;  // by base; null: cannot be had
  std::uint32_t chunks_made_ = 0;
  std::uint64_t used_bytes_ = 0;
};

}  // namespace ubp::xol
