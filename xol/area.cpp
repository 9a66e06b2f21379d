// Finding room for XOL areas. Load time only.
#include "xol/make_area.h"

namespace ubp::xol {
namespace {

constexpr std::uint64_t kStep = std::uint64_t{16} << 20;
constexpr std::uint64_t kLowestAddress = std::uint64_t{1} << 20;
constexpr std::uint64_t kHighestAddress = (std::uint64_t{1} << 47) - (std::uint64_t{1} << 20);
constexpr std::uint64_t kHeapRoom = std::uint64_t{1} << 30;  // left free above the code when there is no room below

bool serves(std::uint64_t base, std::uint64_t bytes, std::uint64_t low, std::uint64_t high) {
  return in_reach(base, bytes, low, high) && in_reach(base, bytes, high, low);
}

bool try_reserve(std::uint64_t address, std::uint64_t bytes) {
  void* const wanted = reinterpret_cast<void*>(address);
  void* const got =
      mmap(wanted, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) return true;
  if (got != MAP_FAILED) munmap(got, bytes);  // a kernel before 4.17 takes the address as a hint
  return false;
}

}  // namespace

std::optional<std::uint64_t> reserve_near(std::uint64_t low, std::uint64_t high, std::uint64_t bytes) {
  low &= ~(kPageBytes - 1);
  high = (high + kPageBytes - 1) & ~(kPageBytes - 1);
  for (std::uint64_t gap = 0; low >= kLowestAddress + bytes + gap; gap += kStep) {
    const std::uint64_t base = low - bytes - gap;
    if (!serves(base, bytes, low, high)) break;
    if (try_reserve(base, bytes)) return base;
  }
  // Above: first beyond the room a heap may want, then nearer, down to right behind the code.
  for (std::uint64_t base = high + kHeapRoom; base + bytes < kHighestAddress; base += kStep) {
    if (!serves(base, bytes, low, high)) break;
    if (try_reserve(base, bytes)) return base;
  }
  for (std::uint64_t base = high + kHeapRoom - kStep; base >= high; base -= kStep) {
    if (serves(base, bytes, low, high) && try_reserve(base, bytes)) return base;
  }
  return std::nullopt;
}

std::optional<Area> make_area(std::uint64_t low, std::uint64_t high, const AreaLayout& layout) {
  const auto rx = reserve_near(low, high, layout.area_bytes);
  if (!rx) return std::nullopt;
  void* const rw = mmap(nullptr, layout.area_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (rw == MAP_FAILED) {
    munmap(reinterpret_cast<void*>(*rx), layout.area_bytes);
    return std::nullopt;
  }
  const Area area{*rx, reinterpret_cast<std::uint64_t>(rw)};
  if (!map_views(area.rx, area.rw, layout.area_bytes)) {
    unmap_area(area, layout);
    return std::nullopt;
  }
  return area;
}

void unmap_area(const Area& area, const AreaLayout& layout) {
  munmap(reinterpret_cast<void*>(area.rx), layout.area_bytes);
  munmap(reinterpret_cast<void*>(area.rw), layout.area_bytes);
}

bool area_serves(const Area& area, const AreaLayout& layout, std::uint64_t low, std::uint64_t high) {
  return serves(area.rx, layout.area_bytes, low, high);
}

}  // namespace ubp::xol
