// The probe table: address -> probepoint, for the trap path. A probepoint that was ever armed stays: a late trap still finds
// its displaced instruction.
//
// Open addressing, linear probing, at most three quarters full: a lookup reads two or three cache lines however many
// probepoints there are, takes no lock and never waits.
//
// Synchronization protocol. One writer at a time (the caller's lock); readers at any time, in the trap path. The arrays
// never move: room for later probepoints is reserved when the table is made. A probepoint is written whole before its
// bucket is (release; x86 readers need no more than the dependency), and before its int3 is armed through the kernel.
// A probepoint that goes keeps its bucket and loses its address, in one store of the word that holds it.
//
// Inline part: the trap path. table.cpp: normal context.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xol/displaced.h"

namespace ubp::probes {

inline constexpr std::uint32_t kNotFound = 0xffffffff;

struct TableView {
  const xol::Displaced* points = nullptr;
  const std::uint32_t* buckets = nullptr;  // index + 1; 0: empty
  std::uint64_t mask = 0;                  // buckets - 1
  std::uint32_t count = 0;                 // points, those without address included

  [[gnu::always_inline]] static inline std::uint64_t hash(std::uint64_t address) {
    return (address * 0x9e3779b97f4a7c15u) >> 20;  // multiplicative hashing; the middle bits are the mixed ones
  }

  // The index of the probepoint at exactly this address, or kNotFound.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint64_t address) const {
    if (buckets == nullptr) return kNotFound;
    for (std::uint64_t at = hash(address) & mask;; at = (at + 1) & mask) {
      const std::uint32_t bucket = __atomic_load_n(&buckets[at], __ATOMIC_ACQUIRE);  // pairs with add()
      if (bucket == 0) return kNotFound;
      if (points[bucket - 1].address == address) return bucket - 1;
    }
  }
  // The address of a probepoint, which may go at any time (retire()); 0: it has.
  [[gnu::always_inline]] inline std::uint64_t address_of(std::uint32_t index) const {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(&points[index]), __ATOMIC_RELAXED) & xol::kAddressMask;  // one word
  }
};

// Owns what a TableView shows. The memory outlives the process's last trap: it is never freed once published.
class Table {
 public:
  // Room for `capacity` probepoints; pages are used when they are. Throws std::bad_alloc.
  explicit Table(std::size_t capacity);
  TableView view() const;
  std::size_t room() const { return capacity_ - count_; }
  std::size_t bytes() const;  // used, to the page

  // The index of the probepoint at this one's address, which is the one that was there, or this one, just added. Needs
  // room for one.
  std::uint32_t add(const xol::Displaced& point);
  // Changes what may change of a probepoint that is published.
  void set_consumers(std::uint32_t index, bool has_consumers);
  void mark_hook(std::uint32_t index);
  // The module of this probepoint is gone: it is found no more. Its int3 went with it.
  void retire(std::uint32_t index);
  // It is back, at the same place.
  void revive(std::uint32_t index, std::uint64_t address);

 private:
  std::size_t capacity_;
  std::uint64_t buckets_mask_;
  xol::Displaced* points_;
  std::uint32_t* buckets_;
  std::uint32_t count_ = 0;
};

}  // namespace ubp::probes
