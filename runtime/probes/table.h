// The probe table: address -> probepoint, for the trap path. Built at load, immutable while published.
//
// Open addressing, linear probing, at most three quarters full: a lookup reads two or three cache lines however many
// probepoints there are, takes no lock and never waits. The pointers are published once, before the first int3 is armed; arming
// goes through the kernel, which orders the two.
//
// Inline part: the trap path. table.cpp: load time.
#pragma once

#include <cstdint>
#include <vector>

#include "xol/displaced.h"

namespace ubp::probes {

inline constexpr std::uint32_t kNotFound = 0xffffffff;

struct TableView {
  const xol::Displaced* points = nullptr;
  const std::uint32_t* buckets = nullptr;  // index + 1; 0: empty
  std::uint64_t mask = 0;                  // buckets - 1
  std::uint32_t count = 0;

  [[gnu::always_inline]] static inline std::uint64_t hash(std::uint64_t address) {
    return (address * 0x9e3779b97f4a7c15u) >> 20;  // multiplicative hashing; the middle bits are the mixed ones
  }

  // The index of the probepoint at exactly this address, or kNotFound.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint64_t address) const {
    if (buckets == nullptr) return kNotFound;
    for (std::uint64_t at = hash(address) & mask;; at = (at + 1) & mask) {
      const std::uint32_t bucket = buckets[at];
      if (bucket == 0) return kNotFound;
      if (points[bucket - 1].address == address) return bucket - 1;
    }
  }
};

// Owns what a TableView shows. The memory outlives the process's last trap: it is never freed once published.
class Table {
 public:
  // points: no two at one address.
  explicit Table(std::vector<xol::Displaced> points);
  TableView view() const;

 private:
  std::vector<xol::Displaced> points_;
  std::vector<std::uint32_t> buckets_;
};

}  // namespace ubp::probes
