// Probepoints whose code the program has unmapped or replaced since something was written there: nothing may be written
// there again. See probepoints.h.
#include <algorithm>
#include <array>

#include "runtime/arm/probepoints.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using trap::g_process;

// Whether a byte of text is one that may stand at a probepoint. Where the first byte of a jump before it may be what
// stands there, any is.
bool Probepoints::may_stand(std::uint32_t index, std::uint8_t byte) const {
  const xol::Displaced& point = g_process.table.points[index];
  if (byte == 0xcc || byte == point.first_byte) return true;
  if (detours_.is_jump(index)) return is_detour_jump(&byte);
  std::vector<std::uint32_t> jumps;
  detours_.jumps_over(point.address, jumps);
  return !jumps.empty();
}

std::vector<std::uint32_t> Probepoints::find_lost(std::vector<std::uint32_t> indexes,
                                                  const patch::OwnMemory& memory) const {
  std::erase_if(indexes, [&](std::uint32_t index) {
    return (users_[index] & (kArmed | kWasArmed)) == 0 || g_process.table.points[index].address == 0;
  });
  if (indexes.empty()) return indexes;
  sort_by_address(indexes);
  std::array<std::uint8_t, xol::kPageBytes> page{};
  std::uint64_t at = ~std::uint64_t{0};
  bool is_read = false;
  std::erase_if(indexes, [&](std::uint32_t index) {
    const std::uint64_t address = g_process.table.points[index].address, offset = address % xol::kPageBytes;
    if (at != address - offset) {
      at = address - offset;
      is_read = memory.read(at, page.data(), page.size()) == page.size();
    }
    return is_read && may_stand(index, page[offset]);
  });
  return indexes;
}

void Probepoints::lose(const std::vector<std::uint32_t>& indexes) {
  for (const std::uint32_t index : indexes) {
    if ((users_[index] & kArmed) != 0 && !is_approach(index)) --armed_points_;
    users_[index] &= static_cast<std::uint16_t>(~kArmed);
    detours_.forget(index);
    table_->retire(index);
  }
}

void Probepoints::drop_lost(std::vector<std::uint32_t>& indexes, const patch::OwnMemory& memory) {
  std::vector<std::uint32_t> lost = find_lost(indexes, memory);
  lose(lost);
  std::sort(lost.begin(), lost.end());
  std::erase_if(indexes, [&](std::uint32_t index) { return std::binary_search(lost.begin(), lost.end(), index); });
}

}  // namespace ubp::runtime
