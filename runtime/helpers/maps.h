// Maps: hash tables of fixed capacity that any number of threads change without a lock.
//
// Keys are lists from buckets (Michael, "High performance dynamic lock-free hash tables and list-based sets", 2002),
// with two differences. A key is inserted at its list's end, so that two threads cannot both insert it. And it is
// deleted by its generation, which stands beside the value and is compared with it: a change to a value never reaches
// another key that has the node by then. Nodes come from a pool and go back to it; a reader that meets one that has
// moved on finds another tag in the link it came by. A thread that is killed between two steps costs one node.
//
// Aggregations are sharded, so that threads do not share a cache line. A task that comes early has a shard for itself,
// which nobody else ever writes; the others, begin and end share the first ones, and add to them by atomic
// instructions. A map that is cleared somewhere in the program is only shared: who sets its cells to zero would race
// with who adds. What is deleted of aggregations keeps its node: nothing stands beside their cells. Those
// of a map that makes room for new keys have no shards: their cells are a value, which is replaced as a whole.
//
// Inline and free of libc. Context: hits. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

__extension__ using Pair [[gnu::may_alias]] = unsigned __int128;

struct Word2 {
  std::uint64_t generation, value;
};

inline std::uint64_t load(const std::uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
inline bool exchange_if(std::uint64_t& word, std::uint64_t expected, std::uint64_t desired) {
  return __atomic_compare_exchange_n(&word, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

// Two words, at a multiple of 16, changed together. expected: receives what stands there.
inline bool exchange_if(std::uint64_t* words, Word2& expected, Word2 desired) {
  bool done;
  asm volatile("lock cmpxchg16b %1"
               : "=@ccz"(done), "+m"(*reinterpret_cast<Pair*>(words)), "+a"(expected.generation), "+d"(expected.value)
               : "b"(desired.generation), "c"(desired.value)
               : "memory");
  return done;
}
// A node's generation and value.
inline bool exchange_if(MapNode& node, Word2& expected, Word2 desired) {
  return exchange_if(&node.generation, expected, desired);
}

inline MapNode& node_of(const MapView& map, std::uint64_t index) {
  return *reinterpret_cast<MapNode*>(map.nodes + (index - 1) * map.node_bytes);
}
inline std::uint64_t* key_of(MapNode& node) { return reinterpret_cast<std::uint64_t*>(&node + 1); }
inline std::uint64_t* value_of(const MapView& map, std::uint64_t index) {
  return map.values + (index - 1) * (map.value_words + 1) + 1;  // the word before links free ones
}
inline std::uint64_t* cells_of(const MapView& map, std::uint64_t index, std::uint64_t shard) {
  return map.cells + (shard & map.shard_mask) * map.shard_words + (index - 1) * map.cell_count;
}

inline std::uint64_t hash_of(const std::uint64_t* key, std::uint64_t words) {
  constexpr std::uint64_t kFactor = 0xd6e8feb86659fd93;
  std::uint64_t hash = 0x9e3779b97f4a7c15, i = 0;
  // Texts: four words that do not wait for each other.
  for (; i + 4 <= words; i += 4) {
    const std::uint64_t first = (hash ^ key[i]) * kFactor, second = (hash + key[i + 1]) * kFactor,
                        third = (~hash ^ key[i + 2]) * kFactor, fourth = (hash - key[i + 3]) * kFactor;
    hash =
        (first ^ first >> 32) + 3 * (second ^ second >> 29) + 5 * (third ^ third >> 31) + 7 * (fourth ^ fourth >> 27);
  }
  for (; i < words; ++i) {
    hash = (hash ^ key[i]) * kFactor;
    hash ^= hash >> 32;
  }
  return hash;
}

// ---- The pools: lists of what is free, with a tag in the head

inline void give(std::uint64_t& head, std::uint64_t& next, std::uint64_t index) {
  std::uint64_t first = load(head);
  do {
    __atomic_store_n(&next, first & kIndex, __ATOMIC_RELAXED);  // published by the exchange
  } while (!__atomic_compare_exchange_n(&head, &first, ((first & ~kIndex) + kTag) | index, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE));
}

// 0: none is left. next_of(index): where its link is.
template <typename NextOf>
inline std::uint64_t take(std::uint64_t& head, std::uint64_t& fresh, std::uint64_t most, const NextOf& next_of) {
  std::uint64_t first = load(head);
  while ((first & kIndex) != 0) {
    const std::uint64_t next = load(next_of(first & kIndex));  // of no use where somebody else has it by now
    if (__atomic_compare_exchange_n(&head, &first, ((first & ~kIndex) + kTag) | next, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
      return first & kIndex;
  }
  std::uint64_t used = load(fresh);
  while (used < most) {
    if (__atomic_compare_exchange_n(&fresh, &used, used + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
      return used + 1;
  }
  return 0;
}

inline std::uint64_t take_node(const MapView& map) {
  return take(map.header->free_nodes, map.header->fresh_nodes, map.node_count,
              [&](std::uint64_t index) -> std::uint64_t& { return node_of(map, index).free_next; });
}
inline void give_node(const MapView& map, std::uint64_t index) {
  give(map.header->free_nodes, node_of(map, index).free_next, index);
}
inline std::uint64_t take_value(const MapView& map) {
  return take(map.header->free_values, map.header->fresh_values, map.node_count,
              [&](std::uint64_t index) -> std::uint64_t& { return value_of(map, index)[-1]; });
}
inline void give_value(const MapView& map, std::uint64_t index) {
  give(map.header->free_values, value_of(map, index)[-1], index);
}

// ---- Finding a key

struct Found {
  std::uint64_t index;  // the node's; 0: the key is not there, and this is the end of its list:
  std::uint64_t* link;
  std::uint64_t word;        // what stands in the link
  std::uint64_t generation;  // the node's, as it was
};

// Takes the node at the end of a link out of its list, which is over for it.
inline bool unlink(const MapView& map, std::uint64_t* link, std::uint64_t& word, std::uint64_t next) {
  const std::uint64_t without = (next & kIndex) | ((word & ~(kIndex | kDeleted)) + kTag);
  if (!exchange_if(*link, word, without)) return false;
  give_node(map, word & kIndex);
  word = without;
  return true;
}

inline Found find(const MapView& map, const std::uint64_t* key) {
  if (map.key_words == 0) return {1, nullptr, 0, load(node_of(map, 1).generation)};
  std::uint64_t* const bucket = &map.buckets[hash_of(key, map.key_words) & map.bucket_mask];
again:
  std::uint64_t* link = bucket;
  std::uint64_t word = load(*link);
  while ((word & kIndex) != 0) {
    MapNode& node = node_of(map, word & kIndex);
    const std::uint64_t next = load(node.next), generation = load(node.generation);
    bool is_same = true;
    for (std::uint64_t i = 0; is_same && i < map.key_words; ++i)
      is_same = __atomic_load_n(&key_of(node)[i], __ATOMIC_RELAXED) == key[i];  // ordered by the look at the link
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(*link) != word) goto again;  // what was read may be another key's
    if ((next & kDeleted) != 0) {
      if (!unlink(map, link, word, next)) goto again;
      continue;
    }
    const bool is_dead = map.cells == nullptr && generation % 2 == 0;
    if (is_dead) {  // whoever deletes it has not come this far
      exchange_if(node.next, next, (next | kDeleted) + kTag);
      goto again;
    }
    if (is_same) {
      if (map.used != nullptr) __atomic_store_n(&map.used[(word & kIndex) - 1], 1, __ATOMIC_RELAXED);  // a hint
      return {word & kIndex, link, word, generation};
    }
    link = &node.next;
    word = next;
  }
  return {0, link, word, 0};
}

// A key that is not there yet: with this value, unless another thread is faster. 0: there is no room.
// is_new: whether it was inserted.
inline Found find_or_insert(const MapView& map, const std::uint64_t* key, std::uint64_t value, bool& is_new) {
  is_new = false;
  std::uint64_t mine = 0;
  for (;;) {
    Found found = find(map, key);
    if (found.index != 0) {
      if (mine != 0) {  // another was faster
        give_node(map, mine);
        __atomic_fetch_sub(&map.header->live, 1, __ATOMIC_RELAXED);  // a number
      }
      return found;
    }
    if (mine == 0) {
      if (__atomic_fetch_add(&map.header->live, 1, __ATOMIC_RELAXED) < map.capacity) mine = take_node(map);  // as above
      if (mine == 0) {
        __atomic_fetch_sub(&map.header->live, 1, __ATOMIC_RELAXED);                              // as above
        if (map.used == nullptr) __atomic_fetch_add(&map.header->refused, 1, __ATOMIC_RELAXED);  // as above
        return {};
      }
    }
    MapNode& node = node_of(map, mine);
    for (std::uint64_t i = 0; i < map.key_words; ++i)
      __atomic_store_n(&key_of(node)[i], key[i], __ATOMIC_RELAXED);  // published by the link, as is what follows
    __atomic_store_n(&node.next, (node.next & ~(kIndex | kDeleted)) + kTag, __ATOMIC_RELAXED);  // as above
    __atomic_store_n(&node.value, value, __ATOMIC_RELAXED);                                     // as above
    __atomic_store_n(&node.generation, node.generation | 1, __ATOMIC_RELEASE);  // pairs with find(): for stragglers
    if (exchange_if(*found.link, found.word, mine | ((found.word & ~(kIndex | kDeleted)) + kTag))) {
      is_new = true;
      return {mine, nullptr, 0, node.generation};
    }
    __atomic_store_n(&node.generation, node.generation + 1, __ATOMIC_RELAXED);  // nobody has seen it
  }
}

}  // namespace ubp::program
