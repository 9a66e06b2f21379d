// Where detours lie: chunks of address space within a jump's reach of the code, filled densely from their low ends, because
// scattered detours cost misses of the instruction TLB.
//
// A chunk is read-execute from the start and never writable: its pages come into being when the text poke writes them. What
// was placed is never freed: a thread may sleep in it for hours.
//
// Inline part: compiled into the trap path. detour_space.cpp: normal context. Thread-safe: no.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "xol/detour.h"

namespace ubp::xol {

inline constexpr std::uint64_t kChunkBytes = std::uint64_t{2} << 20;
inline constexpr std::uint32_t kMostChunks = 512;

// What the trap path sees of them.
struct DetourChunk {
  std::uint64_t base = 0;
  const std::uint64_t* begins = nullptr;  // a bit for every byte: a DetourInfo begins there
};

struct DetourView {
  DetourChunk chunks[kMostChunks];
  std::uint32_t count = 0;
  std::uint64_t* entries = nullptr;       // by probepoint: its detour's entry, for ever; 0: none was made

  [[gnu::always_inline]] inline const DetourChunk* chunk_of(std::uint64_t address) const {
    const std::uint32_t chunks_made = __atomic_load_n(&count, __ATOMIC_ACQUIRE);  // pairs with DetourSpace
    for (std::uint32_t i = 0; i < chunks_made; ++i) {
      if (address - chunks[i].base < kChunkBytes) return &chunks[i];
    }
    return nullptr;
  }
  // The entry of the detour that holds the address; 0: none does.
  [[gnu::always_inline]] inline std::uint64_t entry_around(std::uint64_t address) const {
    const DetourChunk* const chunk = chunk_of(address);
    if (chunk == nullptr) return 0;
    const std::uint64_t offset = address - chunk->base;
    constexpr std::uint64_t kFurthest = kDetourHead + 256;
    for (std::uint64_t back = 0; back < kFurthest && back <= offset; ++back) {
      const std::uint64_t at = offset - back;
      if ((__atomic_load_n(&chunk->begins[at / 64], __ATOMIC_RELAXED) >> (at % 64) & 1) == 0) continue;
      const std::uint64_t entry = chunk->base + at + kDetourHead;
      return address < entry + detour_info(entry).bytes ? entry : 0;
    }
    return 0;
  }
  [[gnu::always_inline]] inline std::uint64_t entry_of(std::uint32_t point) const {
    return entries == nullptr ? 0 : __atomic_load_n(&entries[point], __ATOMIC_ACQUIRE);  // pairs with its publication
  }
};

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
