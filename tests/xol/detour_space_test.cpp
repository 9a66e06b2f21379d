// Places for detours: they match their patterns, never overlap, and every byte of one leads back to it. And what a position in a
// detour says of the thread there.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <deque>
#include <map>
#include <memory>
#include <random>

#include "xol/detour_space.h"

using namespace ubp::xol;

namespace {

constexpr std::uint64_t kRegion = std::uint64_t{256} << 20;

// A region that chunks may be made in, 2 MiB aligned.
struct Region {
  std::uint64_t mapping, low;
  Region() {
    void* const memory = mmap(nullptr, kRegion + kChunkBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    mapping = reinterpret_cast<std::uint64_t>(memory);
    low = (mapping + kChunkBytes - 1) & ~(kChunkBytes - 1);
  }
  ~Region() { munmap(reinterpret_cast<void*>(mapping), kRegion + kChunkBytes); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  bool open(std::uint64_t base) const {
    if (base - low >= kRegion) return false;
    return mprotect(reinterpret_cast<void*>(base), kChunkBytes, PROT_READ | PROT_WRITE) == 0;
  }
};

void test_places(unsigned seed, bool refuses_some) {
  CAPTURE(seed);
  const Region region;
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t bound) { return static_cast<std::uint32_t>(random() % bound); };
  DetourSpace space([&](std::uint64_t base) { return (!refuses_some || base / kChunkBytes % 3 != 0) && region.open(base); });
  auto view = std::make_unique<DetourView>();
  std::deque<DetourInfo> infos;
  std::map<std::uint64_t, const DetourInfo*> placed;  // by the address of the head
  std::uint64_t used = 0;
  int found = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t from = region.low + kRegion + below(1u << 20);  // behind the jump
    Pattern pattern{0xff000000, (0xf2u + below(12)) << 24};
    for (int byte = 0; byte < 3; ++byte) {
      if (below(3) != 0) continue;
      pattern.mask |= 0xffu << (8 * byte);
      pattern.value |= (below(4) == 0 ? below(256) : 0xccu) << (8 * byte);
    }
    const std::uint32_t bytes = 20 + below(600);
    const auto entry = space.place(from, pattern, bytes);
    if (!entry) continue;
    ++found;
    REQUIRE((static_cast<std::uint32_t>(*entry - from) & pattern.mask) == pattern.value);
    const std::uint64_t head = *entry - kDetourHead, end = *entry + bytes;
    const auto next = placed.lower_bound(head);
    REQUIRE((next == placed.end() || next->first >= end));
    REQUIRE((next == placed.begin() || std::prev(next)->second->entry + std::prev(next)->second->bytes <= head));
    DetourInfo& info = infos.emplace_back();
    info.entry = *entry;
    info.bytes = static_cast<std::uint16_t>(bytes);
    *reinterpret_cast<const DetourInfo**>(head) = &info;
    CHECK(view->around(*entry) != &info);  // not before it is published
    space.publish(*view, *entry);
    placed.emplace(head, &info);
    used += kDetourHead + bytes;
  }
  CHECK(found > 1500);
  CHECK(space.used_bytes() == used);
  std::uint64_t last_end = 0;
  for (const auto& [head, info] : placed) {
    const std::uint64_t end = info->entry + info->bytes;
    bool is_found = true;
    for (std::uint64_t at = head; at < end; ++at) is_found &= view->around(at) == info;
    CHECK(is_found);
    if (last_end != 0 && last_end < head && (last_end ^ head) < kChunkBytes) CHECK(view->around(last_end) == nullptr);
    last_end = end;
  }
  CHECK(view->around(region.low + kRegion + 5) == nullptr);
}

}  // namespace

TEST_CASE("detour space: places match, do not overlap, and are found by every byte") {
  for (const unsigned seed : {1u, 2u, 3u}) test_places(seed, false);
}

TEST_CASE("detour space: chunks that cannot be had are gone around") { test_places(4, true); }

TEST_CASE("detour space: a pattern that names one address gives it once") {
  const Region region;
  DetourSpace space([&](std::uint64_t base) { return region.open(base); });
  const Pattern exact{0xffffffff, 0xf8cccccc};
  const std::uint64_t from = region.low + kRegion;
  const auto first = space.place(from, exact, 100);
  REQUIRE(first);
  CHECK(static_cast<std::uint32_t>(*first - from) == 0xf8cccccc);
  CHECK(!space.place(from, exact, 100));
  CHECK(!space.place(from + 50, exact, 100));   // it would overlap
  CHECK(space.place(from + 4096, exact, 100));
}

TEST_CASE("detour position: a counted instruction and a plain one, byte by byte") {
  ubp::decoder::Instruction nop;
  nop.length = 5;
  nop.route = ubp::decoder::Route::kSlot;
  DetourPlan plan;
  plan.parts.push_back({0, nop, true, 8});
  plan.parts.push_back({5, nop, false, 0});
  plan.length = 10;
  const std::uint8_t code[10] = {0x0f, 0x1f, 0x44, 0, 0, 0x0f, 0x1f, 0x44, 0, 0};
  const std::uint32_t bytes = detour_bytes(plan, nullptr);
  std::vector<std::uint8_t> image(kDetourHead + bytes);
  DetourInfo info;
  info.entry = reinterpret_cast<std::uint64_t>(image.data()) + kDetourHead;
  info.origin = info.entry - 0x1000;
  info.jump_bytes = 5;
  write_detour(image, info, plan, code, {}, nullptr);
  REQUIRE(info.copies[0] == kCountBytes);
  REQUIRE(info.copies[1] == kCountBytes + 5);
  REQUIRE(info.bytes == kCountBytes + 5 + 5 + 5);
  const auto at = [&](std::int64_t offset) { return detour_position(info, info.origin, info.entry + static_cast<std::uint64_t>(offset)); };
  for (std::int64_t offset = 0; offset < info.copies[0]; ++offset) {
    const DetourPosition position = at(offset);
    CHECK(position.rip == info.origin);
    CHECK(position.is_before);
    CHECK(position.is_counted == (offset >= kCounted));
    CHECK(position.spilled_rcx == (offset >= kSpilledRcx && offset <= kRestoredRax));
    CHECK(position.spilled_rax == (offset >= kSpilledRax && offset <= kCounted));
  }
  CHECK(at(-std::int64_t{kDetourSlowBytes}).spilled_rcx);
  CHECK(at(info.copies[0]).is_counted);
  CHECK(at(info.copies[0]).rip == info.origin);
  CHECK(!at(info.copies[1]).is_counted);
  CHECK(at(info.copies[1]).rip == info.origin + 5);
  CHECK(at(info.copies[1] + 5).rip == info.origin + 10);  // the jump back
}
