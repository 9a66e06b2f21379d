// Putting the text back at the end of the process, before anything else is done there: what libubp calls from then on
// is code that nobody probes. See probepoints.h.
#include <algorithm>

#include "runtime/arm/probepoints.h"
#include "runtime/arm/threads.h"
#include "runtime/patch/swap.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using trap::g_process;

namespace {

std::optional<std::string> swap_sorted(std::vector<patch::Swap>& swaps) {
  std::sort(swaps.begin(), swaps.end(),
            [](const patch::Swap& a, const patch::Swap& b) { return a.address < b.address; });
  const auto is_same = [](const patch::Swap& a, const patch::Swap& b) { return a.address == b.address; };
  swaps.erase(std::unique(swaps.begin(), swaps.end(), is_same), swaps.end());  // a jump's first byte is a probepoint's
  return patch::swap_text(swaps);
}

}  // namespace

Probepoints::Standing Probepoints::standing() const {
  Standing standing;
  standing.armed_points = armed_points_;
  if (!is_started() || detours_.mode() == Optimize::kNever) return standing;
  standing.by_point.reserve(g_process.table.count);
  for (std::uint32_t index = 0; index < g_process.table.count; ++index)
    standing.by_point.push_back(detours_.reason(index));
  for (std::uint32_t index = own_end_; index < g_process.table.count; ++index) {
    if ((users_[index] & kArmed) != 0 && !is_own(index) && !is_approach(index))
      ++standing.states[static_cast<std::size_t>(standing.by_point[index])];
  }
  return standing;
}

std::optional<std::string> Probepoints::restore() {
  if (!is_started()) return std::nullopt;
  // The order is that of arming, backwards: a thread that meets an int3 of a probepoint must find the gate in place.
  // The gate is many points: another thread may pass one that is out already, really block SIGTRAP there, and die at
  // the next. So it stays beside others.
  const bool is_alone = is_only_thread();
  const auto stays = [&](std::uint32_t index) {
    return is_own(index) && !is_alone && !g_process.table.points[index].is_hook;
  };
  std::vector<patch::Swap> swaps = detours_.restore(detours_.jumps() == 0 || is_alone), own;
  for (std::uint32_t index = 0; index < g_process.table.count; ++index) {
    const xol::Displaced& point = g_process.table.points[index];
    const bool goes = (users_[index] & kArmed) != 0 && !stays(index);
    if (goes) (is_own(index) ? own : swaps).push_back({point.address, 0xcc, point.first_byte});
  }
  if (auto denied = swap_sorted(swaps)) return denied;
  synchronise();
  if (auto denied = swap_sorted(own)) return denied;
  for (std::uint32_t index = 0; index < g_process.table.count; ++index) {
    if (!stays(index)) users_[index] &= static_cast<std::uint16_t>(~kArmed);
  }
  armed_points_ = 0;
  if (!is_alone) return std::nullopt;
  if (own_armed_) count_users(std::span(own_).first(own_used_), -1);
  own_armed_ = false;
  return std::nullopt;
}

}  // namespace ubp::runtime
