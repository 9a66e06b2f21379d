// The probe table: address -> probepoint, for the trap path. A probepoint that was ever armed stays: a late trap still finds
// its displaced instruction.
//
// Open addressing, linear probing, at most three quarters full: a lookup reads two or three cache lines however many
// probepoints there are, takes no lock and never waits.
//
// Synchronization protocol. One writer at a time (the caller's lock); readers at any time, in the trap path. The probepoints never
// move: room for later ones is reserved when the table is made. The buckets are as many as there is need for, since each page of
// them is touched soon: more make a new array, which is published when it holds all that the old one does; the old one stays,
// for readers that are in it. A probepoint is written whole before its bucket is (release; x86 readers need no more than the
// dependency), and before its int3 is armed through the kernel. A probepoint that goes keeps its bucket and loses its address,
// in one store of the word that holds it.
//
// Inline part: the trap path. table.cpp: normal context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "xol/displaced.h"

namespace ubp::probes {

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

// Owns what a TableView shows. The memory outlives the process's last trap: it is never freed once published.
class Table {
 public:
  // Room for `capacity` probepoints; pages are used when they are. Throws std::bad_alloc.
  explicit Table(std::size_t capacity);
  TableView view() const;
  std::size_t room() const { return capacity_ - count_; }
  std::size_t bytes() const;  // used, to the page

  // Prepares for so many more, lest the buckets be made again and again.
  void make_room(std::size_t more);
  // The index of the probepoint at this one's address, which is the one that was there, or this one, just added. Needs
  // room for one.
  std::uint32_t add(const xol::Displaced& point);
  // Changes what may change of a probepoint that is published.
  void set_consumers(std::uint32_t index, bool has_consumers);
  void mark_hook(std::uint32_t index);
  // Where it was, if its module is gone.
  std::uint64_t last_address(std::uint32_t index) const;
  // The module of this probepoint is gone: it is found no more. Its int3 went with it.
  void retire(std::uint32_t index);
  // It is back, at the same place.
  void revive(std::uint32_t index, std::uint64_t address);

 private:
  std::size_t capacity_;
  xol::Displaced* points_;
  const Buckets** present_;       // in a page of its own: for ever, as the rest
  Buckets* buckets_ = nullptr;    // the same ones
  std::size_t bucket_bytes_ = 0;  // of all that were ever made
  std::uint32_t count_ = 0;
  std::unordered_map<std::uint32_t, std::uint64_t> retired_;  // their addresses
};

}  // namespace ubp::probes
