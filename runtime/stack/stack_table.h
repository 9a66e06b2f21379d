// Stacks that stand for values: each different one is kept once, and is a number from then on. So keys of maps and
// events are one word, and to find a stack again that was met before costs less than to copy and compare it there.
//
// In memory that processes share, and valid as zeros. No lock: a stack's frames are written before the slot that leads
// to them, by compare-and-swap; nothing is ever taken out. When it is full, further stacks are counted, and have no
// frames.
//
// Inline and free of libc. Context: hits, and readers. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ubp::stack {

inline constexpr std::uint64_t kSlots = std::uint64_t{1} << 17, kStackWords = std::uint64_t{1} << 21;

struct StackTable {
  std::uint64_t* used = nullptr;   // words of `words`
  std::uint64_t* lost = nullptr;   // stacks that found no room
  std::uint64_t* slots = nullptr;  // 0: none; a stack's number, and above it a part of its hash
  std::uint64_t* words = nullptr;  // how many frames and, above, the image that they are of; then the frames
};

// Numbers of stacks. A number is the index of its first word.
inline constexpr std::uint64_t kNoFrames = 0, kNoRoom = ~std::uint64_t{0};
inline constexpr int kImageShift = 32;

inline std::uint64_t hash_of(const std::uint64_t* frames, std::uint64_t count) {
  constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15;
  std::uint64_t hash = count;
  for (std::uint64_t i = 0; i < count; ++i) hash = (hash ^ frames[i]) * kMix ^ hash >> 29;
  return hash ^ hash >> 32;
}

inline bool is_stack(const std::uint64_t* stack, std::uint64_t head, const std::uint64_t* frames, std::uint64_t count) {
  if (stack[0] != head) return false;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (stack[i + 1] != frames[i]) return false;
  }
  return true;
}

// Where a stack with so many frames can be written; 0: nowhere.
inline std::uint64_t take_room(const StackTable& table, std::uint64_t count) {
  std::uint64_t used = __atomic_load_n(table.used, __ATOMIC_RELAXED);  // only a number
  do {
    if (used + count + 2 > kStackWords) return 0;
  } while (!__atomic_compare_exchange_n(table.used, &used, used + count + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return used + 1;  // so that none is 0
}

inline std::uint64_t number_of_stack(const StackTable& table, std::uint32_t image, const std::uint64_t* frames,
                                     std::uint64_t count) {
  constexpr std::uint64_t kMostLooks = 64, kTag = ~std::uint64_t{0} << 32;
  if (count == 0) return kNoFrames;
  const std::uint64_t head = count | std::uint64_t{image} << kImageShift;
  const std::uint64_t hash = hash_of(frames, count);
  std::uint64_t own = 0;
  for (std::uint64_t look = 0; look < kMostLooks; ++look) {
    std::uint64_t* const slot = &table.slots[(hash + look) % kSlots];
    std::uint64_t known = __atomic_load_n(slot, __ATOMIC_ACQUIRE);  // pairs with the exchange below
    if (known == 0) {
      if (own == 0) own = take_room(table, count);
      if (own == 0) break;
      table.words[own] = head;
      for (std::uint64_t i = 0; i < count; ++i) table.words[own + 1 + i] = frames[i];
      const std::uint64_t wanted = (hash & kTag) | own;
      if (__atomic_compare_exchange_n(slot, &known, wanted, false, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE)) return own;
    }
    if ((known & kTag) == (hash & kTag) && is_stack(&table.words[known & ~kTag], head, frames, count))
      return known & ~kTag;  // what may have been taken for `own` stays unused
  }
  __atomic_fetch_add(table.lost, 1, __ATOMIC_RELAXED);  // a number
  return kNoRoom;
}

// A stack by its number.
struct Stack {
  std::uint32_t image = 0;
  std::uint64_t count = 0;
  const std::uint64_t* frames = nullptr;
};
inline Stack stack_of(const StackTable& table, std::uint64_t number) {
  if (number == kNoFrames || number >= kStackWords) return {};
  const std::uint64_t* const words = table.words + number;
  const std::uint64_t count = words[0] & 0xffffffff;
  if (count >= kStackWords - number) return {};
  return {static_cast<std::uint32_t>(words[0] >> kImageShift), count, words + 1};
}

}  // namespace ubp::stack
