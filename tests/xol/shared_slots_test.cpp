// Slots that threads share: write-once ones and the pool, on plain memory, single-threaded against what must hold, and
// write-once slots with threads.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "xol/shared_slots.h"

using namespace ubp::xol;

namespace {

struct SharedMemory {
  explicit SharedMemory(std::uint32_t slots, std::size_t entries = 64) : index(entries), points(slots) {
    shared.index = index.data();
    shared.index_mask = entries - 1;
    shared.points = points.data();
    shared.next = &next;
    shared.slots = slots;
  }
  std::vector<std::atomic<std::uint64_t>> index;
  std::vector<std::atomic<std::uint32_t>> points;
  std::atomic<std::uint32_t> next{0};
  SharedSlots shared;
};

}  // namespace

TEST_CASE("write-once: every probepoint keeps its slot, until the budget is spent") {
  SharedMemory memory(24);
  std::set<std::uint32_t> given;
  for (std::uint32_t point = 1000; point < 1024; ++point) {
    CHECK(memory.shared.find(point) == kNoSlot);
    const std::uint32_t slot = memory.shared.hand_out();
    REQUIRE(slot < 24);
    CHECK(given.insert(slot).second);
    CHECK(memory.shared.publish(point, slot) == slot);
  }
  CHECK(memory.shared.hand_out() == kNoSlot);
  CHECK(memory.shared.hand_out() == kNoSlot);
  for (std::uint32_t point = 1000; point < 1024; ++point) CHECK(given.contains(memory.shared.find(point)));
  CHECK(memory.shared.find(0) == kNoSlot);
  CHECK(memory.shared.find(1024) == kNoSlot);
}

TEST_CASE("write-once: of two that give one probepoint a slot, the first holds") {
  SharedMemory memory(4);
  const std::uint32_t first = memory.shared.hand_out(), second = memory.shared.hand_out();
  CHECK(memory.shared.publish(7, first) == first);
  CHECK(memory.shared.publish(7, second) == first);
  CHECK(memory.shared.find(7) == first);
}

TEST_CASE("write-once: threads that race for the same probepoints agree on their slots") {
  constexpr std::uint32_t kPoints = 2000;
  SharedMemory memory(8000, 16384);
  std::vector<std::vector<std::uint32_t>> seen(4, std::vector<std::uint32_t>(kPoints));
  std::vector<std::thread> threads;
  for (auto& own : seen) {
    threads.emplace_back([&] {
      for (std::uint32_t point = 0; point < kPoints; ++point) {
        std::uint32_t slot = memory.shared.find(point);
        if (slot == kNoSlot) slot = memory.shared.publish(point, memory.shared.hand_out());
        own[point] = slot;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& own : seen) CHECK(own == seen.front());
  CHECK(std::set(seen.front().begin(), seen.front().end()).size() == kPoints);
}

TEST_CASE("pool: random use; nobody's slot is taken while it is held, and a set gives way when one is free") {
  constexpr std::uint32_t kSlots = 16;
  const CacheGeometry geometry = CacheGeometry::for_slots(kSlots);
  SharedMemory memory(kSlots);
  std::map<std::uint32_t, std::uint32_t> held;  // slot -> point
  std::mt19937 random(5);
  for (int step = 0; step < 100000; ++step) {
    if (!held.empty() && random() % 3 == 0) {  // somebody leaves
      held.erase(std::next(held.begin(), static_cast<long>(random() % held.size())));
      continue;
    }
    const std::uint32_t point = random() % 100;
    std::uint32_t slot = memory.shared.pool_find(geometry, point);
    if (slot == kNoSlot) {
      std::uint32_t was = 0;
      slot = memory.shared.pool_take(
          geometry, point, random(), [&](std::uint32_t s) { return held.contains(s); }, was);
      const std::uint32_t first = point % geometry.sets * geometry.ways;
      bool all_held = true;
      for (std::uint32_t way = 0; way < geometry.ways; ++way) all_held &= held.contains(first + way);
      if (slot == kNoSlot) {
        REQUIRE(all_held);
        continue;
      }
      REQUIRE(!held.contains(slot));
      REQUIRE(slot / geometry.ways == point % geometry.sets);
      REQUIRE(memory.shared.points[slot].load() == kBusy);
      memory.shared.pool_give(slot, point);
    }
    REQUIRE(memory.shared.points[slot].load() == point + 1);
    held[slot] = point;
  }
  for (std::uint32_t slot = 0; slot < kSlots; ++slot) CHECK(memory.shared.points[slot].load() != kBusy);
}
