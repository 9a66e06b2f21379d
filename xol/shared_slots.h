// Slots that all threads of a process share, behind the policies other than `thread`:
//
//   write-once  a probepoint's slot is written before anybody is sent there, and never again (policies probepoint and
//               adaptive). Lookup: lock-free, wait-free, no read-modify-write.
//   pool        a fixed number of slots; a probepoint without one steals another's (policy steal). Nobody may be in a
//               slot
//               that is stolen, so whoever enters one says so first (TaskState::held) and leaves by a second trap.
//
// Synchronization protocol, write-once. A slot number is handed out by fetch_add, its bytes are written, and it is
// entered by compare-and-swap in index[] (release; pairs with find()'s acquire). Of two threads
// that give one probepoint a slot the second finds the first's entry, and its own slot is lost. Whoever is abandoned
// half way loses a slot number.
//
// Synchronization protocol, pool. points[slot] names the slot's probepoint, 0 for none, kBusy while it is written.
// Enter: store held, full fence, read points[slot] again. Steal: compare-and-swap points[slot] to kBusy, full fence,
// read every task's held; when somebody is inside, put it back. One of the two sees the other (Dekker). Signals are
// blocked while a slot is busy, so that nobody is abandoned there.
//
// All of it lies in memory that a forked child finds zeroed: no probepoint has a slot there.
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <atomic>
#include <cstdint>

#include "xol/slot_cache.h"
#include "xol/sys.h"

namespace ubp::xol {

enum class Policy : std::uint8_t { kThread, kProbepoint, kSteal, kAdaptive };
// As UBP_XOL and the summary spell it.
constexpr const char* policy_name(Policy policy) {
  switch (policy) {
    case Policy::kProbepoint: return "probepoint";
    case Policy::kSteal: return "steal";
    case Policy::kAdaptive: return "adaptive";
    case Policy::kThread: break;
  }
  return "thread";
}

inline constexpr std::uint32_t kBusy = 0xffffffff;

// Of one area.
struct SharedSlots {
  std::atomic<std::uint64_t>* index = nullptr;  // write-once: open addressing, (point + 1) << 32 | slot
  std::uint64_t index_mask = 0;
  std::atomic<std::uint32_t>* points = nullptr;  // pool: by slot, point + 1
  std::atomic<std::uint32_t>* next = nullptr;    // write-once: slots handed out
  std::uint32_t slots = 0;

  [[gnu::always_inline]] static inline std::uint64_t hash(std::uint32_t point) {
    return (point * std::uint64_t{0x9e3779b97f4a7c15}) >> 32;
  }

  // The write-once slot of a probepoint, or kNoSlot.
  [[gnu::always_inline]] inline std::uint32_t find(std::uint32_t point) const {
    for (std::uint64_t at = hash(point) & index_mask;; at = (at + 1) & index_mask) {
      const std::uint64_t entry = index[at].load(std::memory_order_acquire);  // pairs with publish()
      if (entry == 0) return kNoSlot;
      if (entry >> 32 == std::uint64_t{point} + 1) return static_cast<std::uint32_t>(entry);
    }
  }

  // A slot nobody has had, or kNoSlot when the budget is spent.
  [[gnu::always_inline]] inline std::uint32_t hand_out() const {
    if (next->load(std::memory_order_relaxed) >= slots) return kNoSlot;        // a bound; fetch_add decides
    const std::uint32_t slot = next->fetch_add(1, std::memory_order_relaxed);  // a number; publish() releases
    return slot < slots ? slot : kNoSlot;
  }

  // Makes a written slot the probepoint's, unless another thread was faster; returns the one that holds.
  [[gnu::always_inline]] inline std::uint32_t publish(std::uint32_t point, std::uint32_t slot) const {
    const std::uint64_t mine = (std::uint64_t{point} + 1) << 32 | slot;
    for (std::uint64_t at = hash(point) & index_mask;; at = (at + 1) & index_mask) {
      std::uint64_t entry = 0;
      if (sys::exchange_if(index[at], entry, mine, __ATOMIC_ACQ_REL)) return slot;  // pairs with find()
      if (entry >> 32 == std::uint64_t{point} + 1) return static_cast<std::uint32_t>(entry);
    }
  }

  // The pool's slot that holds the probepoint, or kNoSlot. Set-associative like a thread's cache.
  [[gnu::always_inline]] inline std::uint32_t pool_find(const CacheGeometry& geometry, std::uint32_t point) const {
    const std::uint32_t first = point % geometry.sets * geometry.ways;
    for (std::uint32_t way = 0; way < geometry.ways; ++way) {
      if (points[first + way].load(std::memory_order_acquire) == point + 1) return first + way;  // pairs with pool_give
    }
    return kNoSlot;
  }

  // Takes a slot of the probepoint's set for writing, empty ones first, else from turn on. is_held(slot): whether some
  // task is in it. Returns kNoSlot when all are in use. was: what it held (0: nothing).
  template <typename IsHeld>
  [[gnu::always_inline]] inline std::uint32_t pool_take(const CacheGeometry& geometry, std::uint32_t point,
                                                        std::uint32_t turn, const IsHeld& is_held,
                                                        std::uint32_t& was) const {
    const std::uint32_t first = point % geometry.sets * geometry.ways;
    for (std::uint32_t look = 0; look < 2 * geometry.ways; ++look) {
      const std::uint32_t slot = first + (turn + look) % geometry.ways;
      std::uint32_t present = points[slot].load(std::memory_order_relaxed);  // the exchange decides
      if (present == kBusy || (look < geometry.ways && present != 0)) continue;
      if (!sys::exchange_if(points[slot], present, kBusy, __ATOMIC_SEQ_CST)) continue;
      if (present == 0 || !is_held(slot)) {
        was = present;
        return slot;
      }
      points[slot].store(present, std::memory_order_release);  // as it was
    }
    return kNoSlot;
  }

  [[gnu::always_inline]] inline void pool_give(std::uint32_t slot, std::uint32_t point) const {
    points[slot].store(point + 1, std::memory_order_release);  // pairs with pool_find
  }
};

}  // namespace ubp::xol
