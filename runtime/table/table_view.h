// The probe table as the trap path reads it: table.h has the whole, and its synchronization protocol.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <cstdint>

#include "xol/displaced.h"

namespace ubp::runtime {

inline constexpr std::uint32_t kNotFound = 0xffffffff;

// A probepoint's number and some bits of its address, so that others at its place in the table are not looked at.
class Bucket {
 public:
  static constexpr unsigned kNumberBits = 25, kTagBits = 32 - kNumberBits;
  static constexpr std::uint32_t kMostPoints = (1U << kNumberBits) - 2;

  // Where a look for an address begins, and its tag. Multiplicative hashing: the middle bits are the mixed ones.
  struct Hash {
    std::uint64_t place;
    std::uint32_t tag;
  };
  [[gnu::always_inline]] static inline Hash hash(std::uint64_t address) {
    const std::uint64_t mixed = address * 0x9e3779b97f4a7c15u;
    return {mixed >> 20, static_cast<std::uint32_t>(mixed >> (64 - kTagBits))};
  }
  [[gnu::always_inline]] static inline std::uint32_t make(std::uint32_t tag, std::uint32_t index) {
    return tag << kNumberBits | (index + 1);
  }
  [[gnu::always_inline]] static inline bool may_be(std::uint32_t bucket, std::uint32_t tag) {
    return bucket >> kNumberBits == tag;
  }
  [[gnu::always_inline]] static inline std::uint32_t index(std::uint32_t bucket) {
    return (bucket & ((1U << kNumberBits) - 1)) - 1;
  }
};

struct Buckets {
  std::uint64_t mask;        // how many there are, minus 1
  std::uint32_t buckets[1];  // and more, behind this; 0: empty
};

struct TableView {
  const xol::Displaced* points = nullptr;
  const Buckets* const* present = nullptr;  // where the address of the present ones is
  std::uint32_t count = 0;                  // points, those without address included

  // The index of the probepoint at exactly this address, or kNotFound.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint64_t address) const {
    if (present == nullptr) return kNotFound;
    const Buckets* const all = __atomic_load_n(present, __ATOMIC_ACQUIRE);  // pairs with make_room()
    const Bucket::Hash hash = Bucket::hash(address);
    for (std::uint64_t at = hash.place & all->mask;; at = (at + 1) & all->mask) {
      const std::uint32_t bucket = __atomic_load_n(&all->buckets[at], __ATOMIC_ACQUIRE);  // pairs with add()
      if (bucket == 0) return kNotFound;
      if (Bucket::may_be(bucket, hash.tag) && points[Bucket::index(bucket)].address == address)
        return Bucket::index(bucket);
    }
  }
  // The address of a probepoint, which may go at any time (retire()); 0: it has.
  [[gnu::always_inline]] inline std::uint64_t address_of(std::uint32_t index) const {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(&points[index]), __ATOMIC_RELAXED) &
           xol::kAddressMask;  // one word
  }
};

}  // namespace ubp::runtime
