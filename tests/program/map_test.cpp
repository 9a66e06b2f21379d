// Maps under many threads: nothing is lost, nothing is there twice, and the capacity holds.
#include <algorithm>
#include <atomic>
#include <thread>

#include "compiled.h"
#include "runtime/helpers/helpers.h"
#include "runtime/helpers/read_map.h"
#include "runtime/output/text.h"
#include "runtime/session/place.h"

namespace ubp::program {
namespace {

constexpr int kThreads = 4;

// Runs body(thread, run) in several threads at once.
template <typename Body>
void together(Machine& machine, const Body& body) {
  static const ubp_context nowhere{nullptr, nullptr, nullptr, nullptr};
  std::vector<std::thread> threads;
  std::atomic<int> ready{0};
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Run run{&machine, &nowhere, 0, kMostTurns, static_cast<std::uint64_t>(thread)};
      ++ready;
      while (ready != kThreads) std::this_thread::yield();
      body(thread, run);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

struct Placed {
  language::Program tree;
  Analysis analysis;
  Place place;
  explicit Placed(std::string_view text) : tree(tree_of(text)), analysis(analyse(tree)), place(analysis) {}
  const MapView& map() const { return place.maps().front(); }
};

}  // namespace

TEST_CASE("maps: increments of few keys by many threads are exact") {
  constexpr std::uint64_t kTurns = 200'000, kKeys = 7;
  Placed placed("begin { @[1] = (int64)1 }");
  std::uint64_t plain = 0;  // the control: without the map's exchange the same turns lose some
  together(placed.place.machine(), [&](int, Run& run) {
    for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
      const std::uint64_t key = turn % kKeys;
      map_add(&run, &placed.map(), &key, 1);
      const std::uint64_t before = __atomic_load_n(&plain, __ATOMIC_RELAXED);  // on its own, as the store
      if (turn % 1000 == 0) std::this_thread::yield();
      __atomic_store_n(&plain, before + 1, __ATOMIC_RELAXED);
    }
  });
  std::uint64_t sum = 0;
  const auto rows = read_rows(placed.map());
  for (const Row& row : rows) sum += row.value[0];
  CHECK(rows.size() == kKeys);
  CHECK(sum == kTurns * kThreads);
  CHECK(plain < kTurns * kThreads);
}

TEST_CASE("maps: aggregations by many threads are exact") {
  constexpr std::uint64_t kTurns = 100'000, kKeys = 100;
  Placed placed("begin { @[1] = stats(1); @h[1] = hist(1); @m[1] = max(1) }");
  const auto& maps = placed.place.maps();
  together(placed.place.machine(), [&](int thread, Run& run) {
    for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
      const std::uint64_t key = turn % kKeys;
      for (const MapView& map : maps) map_aggregate(&run, &map, &key, turn + static_cast<std::uint64_t>(thread));
    }
  });
  std::uint64_t count = 0, total = 0, buckets = 0;
  for (const Row& row : read_rows(maps[0])) count += row.value[0], total += row.value[1];
  for (const Row& row : read_rows(maps[1])) {
    for (const std::uint64_t cell : row.value) buckets += cell;
  }
  CHECK(count == kTurns * kThreads);
  CHECK(total == kThreads * (kTurns * (kTurns - 1) / 2) + kTurns * (0 + 1 + 2 + 3));
  CHECK(buckets == kTurns * kThreads);
  for (const Row& row : read_rows(maps[2]))
    CHECK(number_of(maps[2], row.value.data()) == kTurns - kKeys + row.key[0] + kThreads - 1);
}

TEST_CASE("maps: keys come and go while others count, and none is lost, mixed up or kept") {
  constexpr std::uint64_t kTurns = 100'000, kKeys = 64;
  Placed placed("begin { @[1] = (int64)1; @w[1] = \"some text that takes a few words\" }");
  const MapView &map = placed.map(), &wide = placed.place.maps()[1];
  std::atomic<std::uint64_t> taken{0};
  std::atomic<int> torn{0};
  together(placed.place.machine(), [&](int thread, Run& run) {
    std::uint64_t seed = static_cast<std::uint64_t>(thread) + 1;
    for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
      seed = seed * 6364136223846793005 + 1442695040888963407;
      // Each thread's own keys: what it adds, it takes out again, whatever the others do to the same lists.
      const std::uint64_t key = (seed >> 33) % kKeys * kThreads + static_cast<std::uint64_t>(thread);
      if (map_add(&run, &map, &key, 1) == 2) {
        taken += 2;
        map_delete(&run, &map, &key);
      }
      // A shared key's value is one that some thread wrote, whole.
      const std::uint64_t shared = (seed >> 40) % 3;
      std::uint64_t words[5];
      std::fill(std::begin(words), std::end(words), seed);
      map_set_wide(&run, &wide, &shared, words);
      map_get_wide(&run, &wide, &shared, words);
      torn += std::count(std::begin(words), std::end(words), words[0]) != 5;
      if (turn % 16 == 0) map_delete(&run, &wide, &shared);
    }
    CHECK(run.dropped == 0);
  });
  std::uint64_t left = 0;
  for (const Row& row : read_rows(map)) left += row.value[0];
  CHECK(taken + left == kTurns * kThreads);
  CHECK(torn == 0);
  CHECK(map.header->live == read_rows(map).size());
  CHECK(wide.header->live == read_rows(wide).size());
}

TEST_CASE("maps: a full map refuses new keys, counts them, and has room again for what was deleted") {
  Placed placed("begin { @[1] = (int64)1 }");
  const MapView& map = placed.map();
  together(placed.place.machine(), [&](int thread, Run& run) {
    for (std::uint64_t turn = 0; turn < map.capacity; ++turn) {
      const std::uint64_t key = turn * kThreads + static_cast<std::uint64_t>(thread);
      map_set(&run, &map, &key, key);
    }
  });
  const auto rows = read_rows(map);
  CHECK(rows.size() == map.capacity);
  CHECK(map.header->refused == map.capacity * (kThreads - 1));
  static const ubp_context nowhere{nullptr, nullptr, nullptr, nullptr};
  Run run{&placed.place.machine(), &nowhere, 0, kMostTurns, 0};
  const std::uint64_t fresh = ~std::uint64_t{0};
  map_set(&run, &map, &fresh, 1);
  CHECK(run.dropped == 1);
  CHECK(map_delete(&run, &map, rows.front().key.data()) == 1);
  run.dropped = 0;
  map_set(&run, &map, &fresh, 1);
  CHECK(run.dropped == 0);
  CHECK(map_get(&run, &map, &fresh) == 1);
}

TEST_CASE("maps: a histogram's buckets hold each number once") {
  for (unsigned power = 0; power <= 5; ++power) {
    MapView map{};
    map.power = static_cast<std::uint8_t>(power);
    const std::uint64_t cells = histogram_cells(power);
    for (unsigned bit = 0; bit < 64; ++bit) {
      for (const std::uint64_t value :
           {std::uint64_t{1} << bit, (std::uint64_t{1} << bit) - 1, (std::uint64_t{3} << bit) / 2}) {
        const std::uint64_t bucket = bucket_of(map, value);
        CAPTURE(power);
        CAPTURE(value);
        REQUIRE(bucket < cells);
        CHECK(bucket_low(power, bucket) <= value);
        if (bucket + 1 < cells) CHECK(value < bucket_low(power, bucket + 1));
      }
    }
  }
}

TEST_CASE("maps: aggregations that make room are exact while there is some, and never torn") {
  constexpr std::uint64_t kTurns = 50'000, kKeys = 7, kValue = 5;
  Placed placed("let @ = lruhash(20); let @few = lruhash(3); begin { @[1] = stats(1); @few[1] = stats(1) }");
  const auto& maps = placed.place.maps();
  std::atomic<std::uint64_t> torn{0}, dropped{0};
  together(placed.place.machine(), [&](int, Run& run) {
    for (std::uint64_t turn = 0; turn < kTurns; ++turn) {
      const std::uint64_t key = turn % kKeys;
      for (const MapView& map : maps) {
        map_aggregate(&run, &map, &key, kValue);
        std::uint64_t average = kValue;  // of a key that is gone by now: what it was
        map_find(&run, &map, &key, &average);
        torn += average != kValue;
        dropped += &map == &maps[0] ? run.dropped : 0;
        run.dropped = 0;  // others may have taken the room that was made, which is counted
      }
    }
  });
  CHECK(torn == 0);
  CHECK(dropped == 0);
  std::uint64_t count = 0, total = 0;
  for (const Row& row : read_rows(maps[0])) count += row.value[0], total += row.value[1];
  CHECK(count == kTurns * kThreads);
  CHECK(total == count * kValue);
  const auto few = read_rows(maps[1]);
  CHECK(few.size() <= 3);
  for (const Row& row : few) CHECK(row.value[1] == row.value[0] * kValue);
}

}  // namespace ubp::program
