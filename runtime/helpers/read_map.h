// Reading maps: aggregations as numbers (which bucket a value falls into, shards put together), and all keys.
//
// Inline and free of libc: at hits, and in readers.
#pragma once

#include "runtime/helpers/series.h"

namespace ubp::program {

// hist(): below 0, then 0 to 2^power - 1 one by one, then each power of two in 2^power buckets.
inline constexpr std::uint64_t histogram_cells(unsigned power) {
  return 1 + (std::uint64_t{1} << power) * (65 - power);
}

inline std::uint64_t bucket_of(const MapView& map, std::uint64_t value) {
  if (map.is_signed && static_cast<std::int64_t>(value) < 0) return 0;
  const unsigned power = map.power;
  if (value >> power == 0) return 1 + value;
  const auto exponent = static_cast<unsigned>(63 - __builtin_clzll(value));
  const std::uint64_t within = (value >> (exponent - power)) - (std::uint64_t{1} << power);
  return 1 + ((std::uint64_t{exponent - power} + 1) << power) + within;
}

// The lowest value of a bucket from the first on. Of one behind the last: 0.
inline std::uint64_t bucket_low(unsigned power, std::uint64_t bucket) {
  const std::uint64_t index = bucket - 1;
  if (index >> power == 0) return index;
  const std::uint64_t shift = (index >> power) - 1, within = index & ((std::uint64_t{1} << power) - 1);
  return shift + power > 63 ? 0 : ((std::uint64_t{1} << power) + within) << shift;
}

// lhist(): below low, the steps, from high on.
inline constexpr std::uint64_t linear_cells(std::int64_t low, std::int64_t high, std::int64_t step) {
  return static_cast<std::uint64_t>((high - low + step - 1) / step) + 2;
}

inline std::uint64_t linear_bucket_of(const MapView& map, std::int64_t value) {
  if (value < map.low) return 0;
  if (value >= map.high) return map.cell_count - 1;
  return static_cast<std::uint64_t>((value - map.low) / map.step) + 1;
}

// The first so many cells of a key that has shards, all of them together.
inline void merge_cells(const MapView& map, std::uint64_t index, std::uint64_t* cells, std::uint64_t count) {
  if (map.aggregate == Aggregate::kSeries && count == map.cell_count) return merge_series(map, index, cells);
  const bool has_greatest = map.aggregate == Aggregate::kMinimum || map.aggregate == Aggregate::kMaximum;
  for (std::uint64_t i = 0; i < count; ++i) cells[i] = 0;
  for (std::uint64_t shard = 0; shard <= map.shard_mask; ++shard) {
    const std::uint64_t* const its = cells_of(map, index, shard);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t cell = load(its[i]);
      const bool is_greatest = has_greatest && i == 0;
      cells[i] = !is_greatest ? cells[i] + cell : cell > cells[i] ? cell : cells[i];
    }
  }
}

// An aggregation as one number, from its merged cells: count, sum, min, max, or the average.
inline std::uint64_t number_of(const MapView& map, const std::uint64_t* cells) {
  switch (map.aggregate) {
    case Aggregate::kMinimum:
    case Aggregate::kMaximum: {
      if (cells[1] == 0) return 0;
      const std::uint64_t value = map.aggregate == Aggregate::kMinimum ? ~cells[0] : cells[0];
      return map.is_signed ? value ^ (std::uint64_t{1} << 63) : value;
    }
    case Aggregate::kAverage:
    case Aggregate::kStats:
      if (cells[0] == 0) return 0;
      if (!map.is_signed) return cells[1] / cells[0];
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(cells[1]) / static_cast<std::int64_t>(cells[0]));
    default: return cells[0];
  }
}

// ---- Reading a whole map

// The words of a wide value, as one moment had them; false: the key is gone.
inline bool copy_wide(const MapView& map, const Found& found, std::uint64_t* to) {
  MapNode& node = node_of(map, found.index);
  for (;;) {
    const std::uint64_t value = load(node.value);
    if ((value & kIndex) == 0) return false;
    const std::uint64_t* const from = value_of(map, value & kIndex);
    for (std::uint64_t i = 0; i < map.value_words; ++i)
      to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);  // ordered by the looks at the node
    std::atomic_thread_fence(std::memory_order_acquire);
    const bool is_its = load(node.generation) == found.generation;
    if (!is_its) return false;
    if (load(node.value) == value) return true;
  }
}

// A key's value, or an aggregation's cells. False: it was deleted just now.
inline bool read_value(const MapView& map, const Found& found, std::uint64_t* to) {
  if (map.cells != nullptr) {
    merge_cells(map, found.index, to, map.cell_count);
    return true;
  }
  if (map.values != nullptr) return copy_wide(map, found, to);
  to[0] = load(node_of(map, found.index).value);
  return load(node_of(map, found.index).generation) == found.generation;
}

// Calls visit(found) for every key that is there.
template <typename Visit>
inline void for_each_key(const MapView& map, const Visit& visit) {
  if (map.key_words == 0) {
    const Found found = find(map, nullptr);
    if (found.generation % 2 == 1) visit(found);
    return;
  }
  const std::uint64_t used = load(map.header->fresh_nodes);
  for (std::uint64_t index = 1; index <= used; ++index) {
    if (load(node_of(map, index).generation) % 2 == 0) continue;
    const Found found = find(map, key_of(node_of(map, index)));
    if (found.index == index && found.generation % 2 == 1) visit(found);
  }
}

}  // namespace ubp::program
