// The slot cache against a simple model, over random operation sequences.
#include <doctest/doctest.h>

#include <array>
#include <deque>
#include <random>
#include <vector>

#include "xol/slot_cache.h"

using namespace ubp::xol;

namespace {

struct Memory {
  explicit Memory(std::uint32_t slots)
      : geometry(CacheGeometry::for_slots(slots)),
        tags(geometry.slots),
        hands(geometry.sets),
        cache{tags.data(), hands.data(), geometry} {}
  CacheGeometry geometry;
  std::vector<SlotCache::Tag> tags;
  std::vector<std::uint8_t> hands;
  SlotCache cache;
};

// First in, first out, per set: what the cache promises, in the plainest words.
struct Model {
  explicit Model(CacheGeometry g) : geometry(g), sets(g.sets) {}
  // Returns {hit, evicted}.
  std::array<bool, 2> access(std::uint32_t point) {
    auto& set = sets[point % geometry.sets];
    for (const std::uint32_t held : set) {
      if (held == point) return {true, false};
    }
    bool evicted = false;
    if (set.size() == geometry.ways) {
      set.pop_front();
      evicted = true;
    }
    set.push_back(point);
    return {false, evicted};
  }
  CacheGeometry geometry;
  std::vector<std::deque<std::uint32_t>> sets;
};

}  // namespace

TEST_CASE("geometry divides every slot count into whole sets") {
  for (std::uint32_t slots = 1; slots <= 4096; ++slots) {
    const CacheGeometry g = CacheGeometry::for_slots(slots);
    REQUIRE(g.ways * g.sets == slots);
    REQUIRE(g.ways <= 4);
    REQUIRE(g.ways >= 1);
  }
  CHECK(CacheGeometry::for_slots(64).ways == 4);
  CHECK(CacheGeometry::for_slots(1).sets == 1);
}

TEST_CASE("random sequences agree with the model") {
  for (const std::uint32_t slots : {1u, 2u, 3u, 4u, 6u, 8u, 64u, 100u}) {
    for (std::uint32_t seed = 1; seed <= 20; ++seed) {
      std::mt19937 random(seed * 1000 + slots);
      const std::uint32_t points = 1 + random() % (slots * 6);
      Memory memory(slots);
      Model model(memory.geometry);
      std::vector<std::uint32_t> written(slots, ~0u);  // what a slot's bytes would be
      for (int step = 0; step < 5000; ++step) {
        const std::uint32_t point = random() % points;
        const auto [hit, evicted] = model.access(point);
        std::uint32_t slot = memory.cache.find(point);
        CAPTURE(slots);
        CAPTURE(seed);
        CAPTURE(step);
        REQUIRE((slot != kNoSlot) == hit);
        if (slot == kNoSlot) {
          const auto claim = memory.cache.claim(point);
          REQUIRE(claim.evicted == evicted);
          REQUIRE(memory.tags[claim.slot] == 0);  // no tag while the bytes change
          slot = claim.slot;
          // A trap path that is abandoned here must leave nothing behind but an empty slot.
          if (random() % 16 == 0) {
            REQUIRE(memory.cache.find(point) == kNoSlot);
          }
          written[slot] = point;
          memory.cache.publish(slot, point);
        }
        REQUIRE(written[slot] == point);
        REQUIRE(memory.cache.find(point) == slot);
      }
    }
  }
}

TEST_CASE("a claim abandoned half way is taken up by the next access") {
  Memory memory(4);
  for (std::uint32_t point = 0; point < 4; ++point) memory.cache.publish(memory.cache.claim(point).slot, point);
  const auto lost = memory.cache.claim(9);
  CHECK(lost.evicted);
  CHECK(memory.cache.find(0) == kNoSlot);  // its slot was being rewritten
  for (std::uint32_t point = 1; point < 4; ++point) CHECK(memory.cache.find(point) != kNoSlot);
  const auto again = memory.cache.claim(9);
  memory.cache.publish(again.slot, 9);
  CHECK(memory.cache.find(9) == again.slot);
}

TEST_CASE("a cycle of four times the slots misses always, a cycle of the slots only once each") {
  for (const std::uint32_t slots : {1u, 4u, 64u}) {
    for (const std::uint32_t factor : {1u, 4u}) {
      Memory memory(slots);
      std::uint32_t misses = 0, evictions = 0;
      constexpr std::uint32_t kRounds = 5;
      for (std::uint32_t round = 0; round < kRounds; ++round) {
        for (std::uint32_t point = 0; point < slots * factor; ++point) {
          if (memory.cache.find(point) != kNoSlot) continue;
          const auto claim = memory.cache.claim(point);
          memory.cache.publish(claim.slot, point);
          ++misses;
          evictions += claim.evicted;
        }
      }
      CHECK(misses == (factor == 1 ? slots : kRounds * slots * factor));
      CHECK(evictions == misses - slots);
    }
  }
}
