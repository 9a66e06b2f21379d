// XOL areas: found near code, two views of the same pages, never writable and executable at once.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "xol/make_area.h"

using namespace ubp::xol;

namespace {

// The permissions /proc/self/maps shows for an address: "r-xs".
std::string permissions(std::uint64_t address) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    unsigned long low = 0, high = 0;
    char mode[8] = "";
    if (std::sscanf(line.c_str(), "%lx-%lx %7s", &low, &high, mode) == 3 && address >= low && address < high)
      return mode;
  }
  return "";
}

int answer() { return 42; }

}  // namespace

TEST_CASE("layout: whole pages a block, bounded area") {
  for (const std::uint32_t slots : {1u, 64u, 65u, 4096u}) {
    const AreaLayout layout = AreaLayout::for_slots(slots, 16384);
    CHECK(layout.block_bytes % kPageBytes == 0);
    CHECK(layout.block_bytes >= slots * kSlotBytes);
    CHECK(layout.area_bytes == layout.block_bytes * layout.blocks);
    CHECK(layout.area_bytes <= std::uint64_t{256} << 20);
  }
}

TEST_CASE("locate is the inverse of the slot address") {
  const AreaLayout layout = AreaLayout::for_slots(100, 64);
  const Area area{0x7f1200000000, 0x7f3400000000};
  for (const std::uint32_t block : {0u, 1u, 63u}) {
    for (const std::uint32_t slot : {0u, 1u, 99u}) {
      const auto at = locate(layout, area, area.rx + block * layout.block_bytes + slot * kSlotBytes + 5);
      CHECK(at.block == block);
      CHECK(at.slot == slot);
      CHECK(at.offset == 5);
    }
  }
}

TEST_CASE("an area near this program's code executes what its other view writes") {
  const AreaLayout layout = AreaLayout::for_slots(64, 64);
  const auto code = reinterpret_cast<std::uint64_t>(&answer);
  const auto area = make_area(code, code + 0x1000, layout);
  REQUIRE(area);
  CHECK(area_serves(*area, layout, code, code + 0x1000));
  CHECK(permissions(area->rx) == "---s");
  REQUIRE(open_pages(*area, 0, layout.block_bytes));
  CHECK(permissions(area->rx) == "r-xs");
  CHECK(permissions(area->rw) == "rw-s");
  CHECK(permissions(area->rx + layout.block_bytes) == "---s");
  const std::uint8_t returns_7[] = {0xb8, 7, 0, 0, 0, 0xc3};
  std::memcpy(reinterpret_cast<void*>(area->rw + 64), returns_7, sizeof returns_7);
  CHECK(reinterpret_cast<int (*)()>(area->rx + 64)() == 7);

  SUBCASE("a second area for the same code takes other space") {
    const auto second = make_area(code, code + 0x1000, layout);
    REQUIRE(second);
    CHECK((second->rx + layout.area_bytes <= area->rx || area->rx + layout.area_bytes <= second->rx));
    unmap_area(*second, layout);
  }
  SUBCASE("fresh views forget what the old pages held") {  // as a forked child makes them
    REQUIRE(map_views(area->rx, area->rw, layout.area_bytes));
    REQUIRE(open_pages(*area, 0, layout.block_bytes));
    CHECK(*reinterpret_cast<const std::uint8_t*>(area->rx + 64) == 0);
    std::memcpy(reinterpret_cast<void*>(area->rw), returns_7, sizeof returns_7);
    CHECK(reinterpret_cast<int (*)()>(area->rx)() == 7);
  }
  unmap_area(*area, layout);
  CHECK(permissions(area->rx).empty());
}

TEST_CASE("no room within reach is no area") {
  // Code that spans 4 GiB cannot be served by any one area.
  CHECK_FALSE(reserve_near(0x100000000, 0x200000000, 0x1000000));
}

TEST_CASE("low code gets an area above it, beyond the heap") {
  const AreaLayout layout = AreaLayout::for_slots(64, 64);
  const auto base = reserve_near(0x400000, 0x500000, layout.area_bytes);
  REQUIRE(base);
  CHECK(in_reach(*base, layout.area_bytes, 0x400000, 0x500000));
  munmap(reinterpret_cast<void*>(*base), layout.area_bytes);
}
