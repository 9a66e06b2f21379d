// One thread's XOL cache for one area: which probepoint each of its n slots holds. Set-associative, keyed by the
// probepoint's index, first-in first-out within a set.
//
// Synchronization protocol: none is needed. Only the owning thread reads or writes a cache, and only in the trap
// path. The trap path can be interrupted anywhere and abandoned (design: an application handler that interrupts it
// sees the original context, and the hit's displacement starts again afterwards), so every step leaves the cache
// true: a tag is cleared before its slot's bytes change and set after they are complete.
//
// Inline and free of libc: compiled into the trap path. The structure is plain memory, so that tests drive it
// single-threaded against a model.
#pragma once

#include <cstdint>

namespace ubp::xol {

// How n slots are divided. Computed once at load.
struct CacheGeometry {
  std::uint32_t slots = 0;
  std::uint32_t ways = 0;
  std::uint32_t sets = 0;

  // slots: 1..4096. Four ways when n allows, so that a compare touches 16 bytes of tags.
  static constexpr CacheGeometry for_slots(std::uint32_t n) {
    const std::uint32_t ways = n % 4 == 0 ? 4 : n % 2 == 0 ? 2 : 1;
    return {n, ways, n / ways};
  }
};

inline constexpr std::uint32_t kNoSlot = 0xffffffff;

struct SlotCache {
  using Tag = std::uint32_t;  // probepoint index + 1; 0: empty
  Tag* tags;                  // geometry.slots of them, slot = set * ways + way
  std::uint8_t* hands;        // geometry.sets of them: the way to replace next
  CacheGeometry geometry;

  // The slot that holds the probepoint, or kNoSlot.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint32_t point) const {
    const std::uint32_t first = point % geometry.sets * geometry.ways;
    for (std::uint32_t way = 0; way < geometry.ways; ++way) {
      if (tags[first + way] == point + 1) return first + way;
    }
    return kNoSlot;
  }

  struct Claim {
    std::uint32_t slot;
    bool evicted;  // the slot held another probepoint
  };

  // Empties the slot that the probepoint shall take. The caller writes its bytes and then calls publish().
  [[gnu::always_inline]] inline Claim claim(std::uint32_t point) {
    const std::uint32_t set = point % geometry.sets;
    const std::uint32_t way = hands[set];
    hands[set] = static_cast<std::uint8_t>(way + 1 == geometry.ways ? 0 : way + 1);
    const std::uint32_t slot = set * geometry.ways + way;
    const bool evicted = tags[slot] != 0;
    tags[slot] = 0;
    asm volatile("" ::: "memory");  // a signal handler on this thread must see the tag go before the bytes change
    return {slot, evicted};
  }

  [[gnu::always_inline]] inline void publish(std::uint32_t slot, std::uint32_t point) {
    asm volatile("" ::: "memory");  // ... and the bytes complete before the tag comes
    tags[slot] = point + 1;
  }
};

}  // namespace ubp::xol
