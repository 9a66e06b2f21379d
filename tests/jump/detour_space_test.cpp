// Places for detours: they match their patterns, never overlap, and every byte of one leads back to it.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <deque>
#include <map>
#include <memory>
#include <random>

#include "runtime/jump/detour_space.h"

using namespace ubp::runtime;

namespace {

constexpr std::uint64_t kRegion = std::uint64_t{256} << 20;
constexpr std::uint32_t kDetourHead = 18;

// A region that chunks may be made in, 2 MiB aligned.
struct Region {
  std::uint64_t mapping, low;
  Region() {
    void* const memory =
        mmap(nullptr, kRegion + kChunkBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
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
  DetourSpace space(
      [&](std::uint64_t base) { return (!refuses_some || base / kChunkBytes % 3 != 0) && region.open(base); });
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
    const Extent code{from - 5, from - 5 + 5 + below(120)};
    const auto entry = space.place(from, pattern, {kDetourHead, bytes}, code);
    if (!entry) continue;
    ++found;
    REQUIRE(!shares_low_bits({*entry - kDetourHead, *entry + bytes}, code));
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
    space.publish(*view, head);
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
  const auto place = [&](std::uint64_t at) { return space.place(at, exact, {kDetourHead, 100}, {at - 5, at}); };
  const auto first = place(from);
  REQUIRE(first);
  CHECK(static_cast<std::uint32_t>(*first - from) == 0xf8cccccc);
  CHECK(!place(from));
  CHECK(!place(from + 50));  // it would overlap
  CHECK(place(from + 4096));
}

TEST_CASE("detour_low_bits: shared by what overlaps modulo 2^24, and by nothing else") {
  constexpr std::uint64_t kCode = 0x7f1234567890;
  const Extent code{kCode, kCode + 20};
  for (const std::uint64_t far :
       {std::uint64_t{0}, kPredictorBytes, 3 * kPredictorBytes, std::uint64_t{1} << 26, std::uint64_t{1} << 30}) {
    for (const std::uint64_t at : {kCode + far, kCode - far}) {
      CHECK(shares_low_bits({at, at + 1}, code));
      CHECK(shares_low_bits({at + 19, at + 40}, code));
      CHECK(shares_low_bits({at - 7, at + 1}, code));
      CHECK(shares_low_bits({at - 7, at + 70}, code));
      CHECK(!shares_low_bits({at - 7, at}, code));
      CHECK(!shares_low_bits({at + 20, at + 40}, code));
    }
  }
  CHECK(shares_low_bits({kPredictorBytes - 2, kPredictorBytes + 2},
                        {kPredictorBytes * 5, kPredictorBytes * 5 + 1}));  // around the wrap
  CHECK(!shares_low_bits({kPredictorBytes - 2, kPredictorBytes}, {kPredictorBytes * 5, kPredictorBytes * 5 + 1}));
}

// Where nothing but the highest byte is fixed, and where int3s at a boundary fix the byte above the lowest: all detours
// of a section of code lie close together, and differ from all of its code, not only from their own.
TEST_CASE("detour_low_bits: a section's detours are dense, and agree with none of its code") {
  const Region region;
  DetourSpace space([&](std::uint64_t base) { return region.open(base); });
  constexpr std::uint32_t kFunctions = 2000, kFunctionBytes = 400, kBytes = 40;
  const std::uint64_t text = (region.low + kRegion + kSectionBytes) & ~(kSectionBytes - 1);
  const Extent code{text, text + kFunctions * kFunctionBytes};
  std::map<std::uint64_t, int> pages;
  for (std::uint32_t function = 0; function < kFunctions; ++function) {
    const std::uint64_t at = text + function * kFunctionBytes;
    const Pattern pattern = function % 4 == 0 ? Pattern{0xff00ff00, 0xf400cc00} : Pattern{0xff000000, 0xf4000000};
    const auto entry = space.place(at + 5, pattern, {kDetourHead, kBytes}, {at, at + 20});
    REQUIRE(entry);
    REQUIRE(!shares_low_bits({*entry - kDetourHead, *entry + kBytes}, code));
    ++pages[*entry / 4096];
  }
  CHECK(pages.size() < 2 * (kFunctions * (kDetourHead + kBytes) / 4096));
}
