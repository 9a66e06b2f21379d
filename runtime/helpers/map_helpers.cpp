// What generated code does with maps. See helpers.h and maps.h.
#include "runtime/helpers/helpers.h"
#include "runtime/helpers/maps.h"
#include "runtime/helpers/read_map.h"

namespace ubp::program {
namespace {

constexpr std::uint64_t kVersion = std::uint64_t{1} << 32;  // in a MapNode::value, how often it was replaced
constexpr std::uint64_t kSign = std::uint64_t{1} << 63;

// To go through a whole map costs a loop some of its turns.
void charge(Run* run, const MapView& map) {
  constexpr std::uint64_t kNodesOfTurn = 8;
  const std::uint64_t turns = load(map.header->fresh_nodes) / kNodesOfTurn;
  run->budget = run->budget > turns ? run->budget - turns : 0;
}

// Deletes what was found. False: another has.
bool end_key(const MapView& map, const Found& found) {
  MapNode& node = node_of(map, found.index);
  Word2 now{found.generation, load(node.value)};
  // The wide value's number stays above, so that it is never taken for the next one.
  const auto emptied = [&](std::uint64_t value) { return map.values != nullptr ? value & ~kIndex : 0; };
  while (now.generation == found.generation) {
    if (!exchange_if(node, now, {found.generation + 1, emptied(now.value)})) continue;
    if (map.values != nullptr && (now.value & kIndex) != 0) give_value(map, now.value & kIndex);
    return true;
  }
  return false;
}

void zero_cells(const MapView& map, std::uint64_t index) {
  for (std::uint64_t shard = 0; shard <= map.shard_mask; ++shard) {
    std::uint64_t* const cells = cells_of(map, index, shard);
    for (std::uint64_t i = 0; i < map.cell_count; ++i) __atomic_store_n(&cells[i], 0, __ATOMIC_RELAXED);  // a number
  }
}

// A scalar that has no value yet, or an aggregation's key that was deleted, is there from now on.
std::uint64_t revive(MapNode& node, std::uint64_t generation) {
  exchange_if(node.generation, generation, generation + 1);
  return generation + 1;
}

// Deletes a key of a full map: the next that was not met since the hand came by. False: there is none.
bool make_room(Run* run, const MapView& map) {
  for (std::uint64_t turns = 2 * map.node_count; turns > 0; --turns) {
    const std::uint64_t index =
        __atomic_fetch_add(&map.header->hand, 1, __ATOMIC_RELAXED) % map.node_count + 1;  // whose turn it is
    MapNode& node = node_of(map, index);
    if (load(node.generation) % 2 == 0) continue;
    if (__atomic_exchange_n(&map.used[index - 1], 0, __ATOMIC_RELAXED) != 0) continue;  // a hint
    if (map_delete(run, &map, key_of(node)) != 0) return true;
  }
  return false;
}

// What an aggregation came to. False: its key is gone.
bool number_at(const MapView& map, const Found& found, std::uint64_t& number) {
  constexpr std::uint64_t kMost = 2;  // those that are a number have no more
  std::uint64_t cells[kMost] = {};
  if (map.cells != nullptr) {
    merge_cells(map, found.index, cells, map.cell_count < kMost ? map.cell_count : kMost);
  } else if (map.cell_count > kMost || !copy_wide(map, found, cells)) {
    return false;
  }
  number = number_of(map, cells);
  return true;
}

// Puts a value in a key's place, which it makes if need be. next(value): the new one from the old one.
template <typename Next>
std::uint64_t change(Run* run, const MapView& map, const std::uint64_t* key, const Next& next) {
  for (int tries = 16;; --tries) {
    bool is_new = false;
    const std::uint64_t first = next(0);
    const Found found = find_or_insert(map, key, first, is_new);
    if (found.index == 0) {
      if (map.used != nullptr && tries > 0 && make_room(run, map)) continue;
      run->dropped = 1;
      return first;
    }
    if (is_new) return first;
    MapNode& node = node_of(map, found.index);
    Word2 now{found.generation, load(node.value)};
    for (;;) {
      if (now.generation % 2 == 0 && map.key_words != 0) break;  // deleted: look again
      const std::uint64_t value = next(now.generation % 2 == 1 ? now.value : 0);
      if (exchange_if(node, now, {now.generation | 1, value})) return value;
    }
  }
}

// Puts a value of several words in a key's place: what update(words) makes of the old one, or of zeros.
template <typename Update>
void change_wide(Run* run, const MapView& map, const std::uint64_t* key, const Update& update) {
  const std::uint64_t index = take_value(map);
  if (index == 0) {
    run->dropped = 1;
    return;
  }
  std::uint64_t* const words = value_of(map, index);
  std::uint64_t old = 0;
  const std::uint64_t refused = run->dropped;
  run->dropped = 0;
  change(run, map, key, [&](std::uint64_t before) {
    old = before & kIndex;
    const std::uint64_t* const from = old != 0 ? value_of(map, old) : nullptr;
    for (std::uint64_t i = 0; i < map.value_words; ++i) {  // where it is another's by now, the exchange fails
      const std::uint64_t word = from != nullptr ? __atomic_load_n(&from[i], __ATOMIC_RELAXED) : 0;
      __atomic_store_n(&words[i], word, __ATOMIC_RELAXED);  // published by the exchange
    }
    update(words);
    return ((before & ~kIndex) + kVersion) | index;
  });
  if (run->dropped != 0) old = index;
  run->dropped |= refused;
  if (old != 0) give_value(map, old);
}

// The shard that this run's task has for itself; null: it has none.
std::uint64_t* own_shard(const Run* run, const MapView& map) {
  if (map.own_cells == nullptr || run->shard == 0) return nullptr;
  std::uint64_t*& own = map.own_cells[run->shard];
  std::uint64_t& owned = map.header->owned_shards;
  const std::uint64_t most = map.shard_mask - map.shared_mask;
  if (own != nullptr || load(owned) >= most) return own;
  const std::uint64_t number = __atomic_add_fetch(&owned, 1, __ATOMIC_RELAXED);  // a number
  if (number <= most) own = cells_of(map, 1, map.shared_mask + number);
  return own;
}

// An aggregation's cells.
struct Cells {
  std::uint64_t* cells = nullptr;  // null: there is no room for the key
  bool is_own = false;             // nobody else writes them

  void add(std::uint64_t cell, std::uint64_t amount) const {
    std::uint64_t& number = cells[cell];
    if (is_own) {
      __atomic_store_n(&number, number + amount, __ATOMIC_RELAXED);  // a number
    } else {
      __atomic_fetch_add(&number, amount, __ATOMIC_RELAXED);  // likewise
    }
  }
};

// A value becomes a part of an aggregation.
void add_to_cells(const MapView& map, const Cells& its, std::uint64_t value) {
  switch (map.aggregate) {
    case Aggregate::kNone:
    case Aggregate::kSeries: break;
    case Aggregate::kCount: its.add(0, 1); break;
    case Aggregate::kSum: its.add(0, value); break;
    case Aggregate::kMinimum:
    case Aggregate::kMaximum: {
      // The greater of two numbers that are in order as unsigned ones: number_of() takes it back.
      std::uint64_t mine = map.is_signed ? value ^ kSign : value;
      if (map.aggregate == Aggregate::kMinimum) mine = ~mine;
      std::uint64_t now = load(its.cells[0]);
      while (now < mine && !__atomic_compare_exchange_n(&its.cells[0], &now, mine, false, __ATOMIC_RELAXED,
                                                        __ATOMIC_RELAXED)) {  // a number
      }
      its.add(1, 1);
      break;
    }
    case Aggregate::kAverage:
    case Aggregate::kStats:
      its.add(0, 1);
      its.add(1, value);
      break;
    case Aggregate::kHistogram: its.add(bucket_of(map, value), 1); break;
    case Aggregate::kLinear: its.add(linear_bucket_of(map, static_cast<std::int64_t>(value)), 1); break;
  }
}

Cells cells_for(Run* run, const MapView& map, const std::uint64_t* key) {
  bool is_new = false;
  const Found found = find_or_insert(map, key, 0, is_new);
  if (found.index == 0) {
    run->dropped = 1;
    return {};
  }
  if (found.generation % 2 == 0) revive(node_of(map, found.index), found.generation);
  std::uint64_t* const own = own_shard(run, map);
  if (own != nullptr) return {own + (found.index - 1) * map.cell_count, true};
  return {cells_of(map, found.index, run->shard & map.shared_mask), false};
}

}  // namespace

std::uint64_t map_get(Run*, const MapView* map, const std::uint64_t* key) {
  const Found found = find(*map, key);
  if (found.index == 0 || found.generation % 2 == 0) return 0;
  MapNode& node = node_of(*map, found.index);
  const std::uint64_t value = load(node.value);
  return load(node.generation) == found.generation ? value : 0;
}

std::uint64_t map_read(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t site) {
  const std::uint64_t value = map_get(run, map, key);
  if (value == 0 && map_has(run, map, key) == 0) count_site(run, site);
  return value;
}

std::uint64_t map_get_wide(Run*, const MapView* map, const std::uint64_t* key, std::uint64_t* value) {
  const Found found = find(*map, key);
  const bool is_there = found.index != 0 && found.generation % 2 == 1 && copy_wide(*map, found, value);
  for (std::uint64_t i = 0; !is_there && i < map->value_words; ++i) value[i] = 0;
  return is_there ? 1 : 0;
}

void map_read_wide(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t* value, std::uint64_t site) {
  if (map_get_wide(run, map, key, value) == 0) count_site(run, site);
}

void map_set(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value) {
  change(run, *map, key, [value](std::uint64_t) { return value; });
}

std::uint64_t map_add(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t amount) {
  return change(run, *map, key, [amount](std::uint64_t value) { return value + amount; });
}

void map_set_wide(Run* run, const MapView* map, const std::uint64_t* key, const std::uint64_t* value) {
  change_wide(run, *map, key, [map, value](std::uint64_t* words) {
    for (std::uint64_t i = 0; i < map->value_words; ++i)
      __atomic_store_n(&words[i], value[i], __ATOMIC_RELAXED);  // published by the exchange
  });
}

void map_aggregate_at(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value, std::uint64_t time) {
  const Cells its = cells_for(run, *map, key);
  if (its.cells != nullptr) add_to_series(*map, its.cells, value, time);
}

void map_aggregate(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value) {
  if (map->cells == nullptr)
    return change_wide(run, *map, key, [map, value](std::uint64_t* words) {
      add_to_cells(*map, {words, true}, value);
    });
  const Cells its = cells_for(run, *map, key);
  if (its.cells != nullptr) add_to_cells(*map, its, value);
}

std::uint64_t map_number(Run*, const MapView* map, const std::uint64_t* key) {
  const Found found = find(*map, key);
  if (found.index == 0 || found.generation % 2 == 0) return 0;
  std::uint64_t number = 0;
  number_at(*map, found, number);
  return number;
}

std::uint64_t map_find(Run*, const MapView* map, const std::uint64_t* key, std::uint64_t* value) {
  const Found found = find(*map, key);
  if (found.index == 0 || found.generation % 2 == 0) return 0;
  const bool is_there =
      map->aggregate == Aggregate::kNone ? read_value(*map, found, value) : number_at(*map, found, *value);
  return is_there ? 1 : 0;
}

std::uint64_t map_has(Run*, const MapView* map, const std::uint64_t* key) {
  const Found found = find(*map, key);
  return found.index != 0 && found.generation % 2 == 1 ? 1 : 0;
}

std::uint64_t map_delete(Run*, const MapView* map, const std::uint64_t* key) {
  const Found found = find(*map, key);
  if (found.index == 0 || found.generation % 2 == 0) return 0;
  const bool is_mine = end_key(*map, found);
  if (!is_mine) return 0;
  if (map->cells != nullptr) {
    zero_cells(*map, found.index);
  } else if (map->key_words != 0) {
    __atomic_fetch_sub(&map->header->live, 1, __ATOMIC_RELAXED);  // a number
    find(*map, key);                                              // takes it out of its list
  }
  return 1;
}

std::uint64_t map_length(Run* run, const MapView* map) {
  charge(run, *map);
  std::uint64_t length = 0;
  for_each_key(*map, [&](const Found&) { ++length; });
  return length;
}

void map_begin(Run*, const MapView* map, std::uint64_t* cursor) {
  cursor[0] = 0;
  cursor[1] = load(map->header->fresh_nodes);
}

std::uint64_t map_next(Run* run, const MapView* map, std::uint64_t* cursor, std::uint64_t* row, std::uint64_t site) {
  while (cursor[0] < cursor[1]) {
    const std::uint64_t index = ++cursor[0];
    MapNode& node = node_of(*map, index);
    if (load(node.generation) % 2 == 1) {
      for (std::uint64_t i = 0; i < map->key_words; ++i)
        row[i] = __atomic_load_n(&key_of(node)[i], __ATOMIC_RELAXED);  // find() looks whether it is a key
      const Found found = find(*map, row);
      std::uint64_t* const value = row + map->key_words;
      if (found.index == index && found.generation % 2 == 1) {
        const bool is_there =
            map->aggregate == Aggregate::kNone ? read_value(*map, found, value) : number_at(*map, found, *value);
        if (is_there) return 1;
      }
    }
    if (run->budget == 0) {
      count_site(run, site);
      return 0;
    }
    --run->budget;  // to skip a node is a turn, too
  }
  return 0;
}

void map_clear(Run* run, const MapView* map) {
  charge(run, *map);
  for_each_key(*map, [&](const Found& found) { map_delete(run, map, key_of(node_of(*map, found.index))); });
}

void map_zero(Run* run, const MapView* map) {
  charge(run, *map);
  for_each_key(*map, [&](const Found& found) {
    const std::uint64_t* const key = key_of(node_of(*map, found.index));
    if (map->cells != nullptr) {
      zero_cells(*map, found.index);
    } else if (map->values != nullptr) {
      change_wide(run, *map, key, [map](std::uint64_t* words) {
        for (std::uint64_t i = 0; i < map->value_words; ++i)
          __atomic_store_n(&words[i], 0, __ATOMIC_RELAXED);  // published by the exchange
      });
    } else {
      map_set(run, map, key, 0);
    }
  });
}

void map_print(Run* run, const MapView* map, std::uint64_t event, std::uint64_t top, std::uint64_t divisor) {
  charge(run, *map);
  std::uint64_t* const begin = begin_event(run, event, 2);
  if (begin == nullptr) return;
  auto* const header = reinterpret_cast<EventHeader*>(begin) - 1;
  const std::uint64_t time = header->time;
  header->part = kMapBegin;
  begin[0] = top;
  begin[1] = divisor;
  end_event(run, begin);
  const auto part = [&](std::uint64_t words, std::uint32_t number) -> std::uint64_t* {
    std::uint64_t* const room = begin_event(run, event, words);
    if (room == nullptr) return nullptr;
    auto* const its = reinterpret_cast<EventHeader*>(room) - 1;
    its->part = number;
    its->time = time;
    return room;
  };
  for_each_key(*map, [&](const Found& found) {
    const bool is_aggregate = map->aggregate != Aggregate::kNone;
    std::uint64_t* const room = part(map->key_words + (is_aggregate ? map->cell_count : map->value_words), kMapKey);
    if (room == nullptr) return;
    const std::uint64_t* const key = key_of(node_of(*map, found.index));
    copy_words(room, map->key_words, key, map->key_words);
    std::uint64_t* const value = room + map->key_words;
    if (read_value(*map, found, value)) end_event(run, room);
  });
  std::uint64_t* const end = part(0, kMapEnd);
  if (end != nullptr) end_event(run, end);
}

}  // namespace ubp::program
