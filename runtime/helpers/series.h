// tseries(): the newest intervals of a key.
//
// Each interval has a slot, its number modulo how many there are: pairs of words that change together, a stamp and a
// value. A stamp is the interval's number plus 1, but of the last value its time plus 1; 0: nothing is there. An
// average has two pairs, its sum and its count.
//
// Inline and free of libc: at hits, and in readers. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include "runtime/helpers/maps.h"

namespace ubp::program {

inline Series series_of(const MapView& map) { return static_cast<Series>(map.power); }
inline std::uint64_t series_length(const MapView& map) { return static_cast<std::uint64_t>(map.high); }
inline std::uint64_t interval_of(const MapView& map) { return static_cast<std::uint64_t>(map.low); }

inline constexpr std::uint64_t series_pairs(Series series) { return series == Series::kAverage ? 2 : 1; }
inline constexpr std::uint64_t kPairWords = 2;

// An interval by its number, from a stamp that is not 0.
inline std::uint64_t interval_of_stamp(const MapView& map, std::uint64_t stamp) {
  return series_of(map) == Series::kLast ? (stamp - 1) / interval_of(map) : stamp - 1;
}

// What a pair is after another one came to it.
inline Word2 with_pair(const MapView& map, Word2 old, Word2 more) {
  const bool is_same = old.generation == more.generation;
  const Series series = series_of(map);
  if (!is_same || series == Series::kLast) return more.generation >= old.generation ? more : old;
  const bool is_less = map.is_signed ? static_cast<std::int64_t>(more.value) < static_cast<std::int64_t>(old.value)
                                     : more.value < old.value;
  switch (series) {
    case Series::kMinimum: return is_less ? more : old;
    case Series::kMaximum: return is_less ? old : more;
    default: return {old.generation, old.value + more.value};
  }
}

inline void add_to_pair(const MapView& map, std::uint64_t* pair, Word2 more) {
  Word2 now{load(pair[0]), load(pair[1])};
  for (;;) {
    const Word2 next = with_pair(map, now, more);
    if (next.generation == now.generation && next.value == now.value) return;
    if (exchange_if(pair, now, next)) return;
  }
}

// cells: a key's, of one shard. time: ns.
inline void add_to_series(const MapView& map, std::uint64_t* cells, std::uint64_t value, std::uint64_t time) {
  const std::uint64_t interval = time / interval_of(map);
  const std::uint64_t stamp = (series_of(map) == Series::kLast ? time : interval) + 1;
  const std::uint64_t pairs = series_pairs(series_of(map));
  std::uint64_t* const slot = cells + interval % series_length(map) * pairs * kPairWords;
  add_to_pair(map, slot, {stamp, value});
  if (pairs == 2) add_to_pair(map, slot + kPairWords, {stamp, 1});
}

// All shards of a key together.
inline void merge_series(const MapView& map, std::uint64_t index, std::uint64_t* to) {
  for (std::uint64_t i = 0; i < map.cell_count; ++i) to[i] = 0;
  for (std::uint64_t shard = 0; shard <= map.shard_mask; ++shard) {
    const std::uint64_t* const its = cells_of(map, index, shard);
    for (std::uint64_t i = 0; i < map.cell_count; i += kPairWords) {
      const Word2 all = with_pair(map, {to[i], to[i + 1]}, {load(its[i]), load(its[i + 1])});
      to[i] = all.generation;
      to[i + 1] = all.value;
    }
  }
}

}  // namespace ubp::program
