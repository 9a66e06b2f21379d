// What a probe does at a hit, and what that asks of whatever performs it: a trap or a detour.
//
// Plain data, free of libc: compiled into the trap path. The action itself: consumers/consumer_list.h.
#pragma once

#include <cstdint>

namespace ubp::runtime {

// What a probe does at a hit, beside being counted.
enum class ActionKind : std::uint8_t {
  kCount,   // nothing
  kCall,    // a function is called
  kRecord,  // a record goes into the task's ring (record/rings.h)
  // Not a kind of action, but of block: a function is called unless the detour itself sees that there is no need to.
  kShortcut,
};

struct Shortcut;  // table/shortcut.h

// What one action, or all at a probepoint, ask for.
struct ActionNeeds {
  bool reads = false;      // They read the thread's registers. Without this, a register reads as 0.
  bool modifies = false;   // They change the thread's registers.
  bool xmm = false;        // Their code changes %xmm0 to %xmm15 or MXCSR.
  bool all_fp = false;     // Their code may change any vector, mask or x87 state.
  bool overrides = false;  // They may end the call at once. At functions' entries alone.
  bool walks = false;      // They may ask for the stack.
  // Which block of code a detour performs them by. kCall: the one that calls the list of consumers. kRecord: the one
  // that records by itself, and kShortcut: the one that calls it only where its `shortcut` is not enough. These are
  // possible only where that is the only action; `counter` is the index of that action's counters.
  ActionKind block = ActionKind::kCall;
  std::uint32_t counter = 0;
  const Shortcut* shortcut = nullptr;  // an action's own; null: it has none. Lives as long as the process

  bool has_same_block(const ActionNeeds& other) const {
    return block == other.block && counter == other.counter && shortcut == other.shortcut;
  }
  // What they ask of whoever calls them, a bit each; and what one who is made for these can call.
  static constexpr std::uint32_t kAllBits = 0x1f;
  std::uint32_t bits() const {
    return (reads ? 1U : 0U) | (modifies ? 2U : 0U) | (xmm ? 4U : 0U) | (all_fp ? 8U : 0U) | (overrides ? 16U : 0U);
  }
  std::uint32_t served_bits() const { return bits() | (all_fp ? 4U : 0U); }
  // Whether a detour made for these does for the others.
  bool covers(const ActionNeeds& other) const {
    return (block == ActionKind::kCall || has_same_block(other)) && (other.bits() & ~served_bits()) == 0;
  }
  ActionNeeds operator|(const ActionNeeds& other) const {
    return {reads || other.reads,   modifies || other.modifies,   xmm || other.xmm,
            all_fp || other.all_fp, overrides || other.overrides, walks || other.walks};
  }
};

}  // namespace ubp::runtime
