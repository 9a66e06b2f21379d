// The probe table as the trap path reads it: table.h has the whole, and its synchronization protocol.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <cstdint>

#include "xol/displaced.h"

namespace ubp::runtime {

inline constexpr std::uint32_t kNotFound = 0xffffffff;

struct Buckets {
  std::uint64_t mask;             // how many there are, minus 1
  std::uint32_t buckets[1];       // and more, behind this: index + 1; 0: empty
};

struct TableView {
  const xol::Displaced* points = nullptr;
  const Buckets* const* present = nullptr; // where the address of the present ones is
  std::uint32_t count = 0;                 // points, those without address included

  [[gnu::always_inline]] static inline std::uint64_t hash(std::uint64_t address) {
    return (address * 0x9e3779b97f4a7c15u) >> 20;  // multiplicative hashing; the middle bits are the mixed ones
  }

  // The index of the probepoint at exactly this address, or kNotFound.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint64_t address) const {
    if (present == nullptr) return kNotFound;
    const Buckets* const all = __atomic_load_n(present, __ATOMIC_ACQUIRE);  // pairs with make_room()
    for (std::uint64_t at = hash(address) & all->mask;; at = (at + 1) & all->mask) {
      const std::uint32_t bucket = __atomic_load_n(&all->buckets[at], __ATOMIC_ACQUIRE);  // pairs with add()
      if (bucket == 0) return kNotFound;
      if (points[bucket - 1].address == address) return bucket - 1;
    }
  }
  // The address of a probepoint, which may go at any time (retire()); 0: it has.
  [[gnu::always_inline]] inline std::uint64_t address_of(std::uint32_t index) const {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(&points[index]), __ATOMIC_RELAXED) & xol::kAddressMask;  // one word
  }
};

}  // namespace ubp::runtime
