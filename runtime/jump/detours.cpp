// Jumps to detours, and back to int3s. See detours.h. Making detours: make_detours.cpp.
#include "runtime/jump/detours.h"

#include <algorithm>

#include "runtime/patch/poke.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using trap::g_process;

using Jump = DetourJump;

// One jump over its window.
struct DetourJump {
  std::uint64_t address;
  const DetourInfo* info;
  std::uint8_t bytes[kMostJumpBytes];

  DetourJump(std::uint32_t index, DetourWriter& writer)
      : address(g_process.table.points[index].address), info(g_process.detours.of(index)), bytes{} {
    writer.write_jump({bytes, info->jump_bytes}, address, info->entry);
  }
  bool is_boundary(std::uint32_t offset) const {
    return std::any_of(info->starts + 1, info->starts + info->count,
                       [&](std::uint8_t start) { return start == offset; });
  }
};

std::string_view tier_reason(JumpState state) {
  static constexpr std::string_view kReasons[kJumpStates] = {
      "",           "",       kJumpTier,   kJumpTier,  "not-entry",  "window-too-short", "instruction", "branch-target",
      "no-address", "budget", "neighbour", "consumer", "unsupported"};
  return kReasons[static_cast<std::size_t>(state)];
}

// The detour that does for the consumers that a probepoint has now; null: none was made.
const DetourInfo* Detours::with_consumers(std::uint32_t index) const {
  return best_of(index, callbacks_.needs(index),
                 [this](const ForConsumers& made) { return made.info->jump_bytes != 0 && !is_outdated(*made.info); });
}

// The detour that the probepoint needs now; null: it has none that does.
const DetourInfo* Detours::chosen(std::uint32_t index) const {
  if (g_process.table.points[index].has_consumers) return with_consumers(index);
  const auto counting = counting_.find(index);
  return counting != counting_.end() ? counting->second : g_process.detours.of(index);
}

bool Detours::is_chosen(std::uint32_t index) const { return chosen(index) == g_process.detours.of(index); }

// Makes it the one that its jump leads to.
void Detours::choose(std::uint32_t index) {
  __atomic_store_n(&g_process.detours.infos[index], chosen(index), __ATOMIC_RELEASE);  // pairs with DetourView::of
}

// A jump is in, or out: its detour leads to another probepoint's.
void Detours::lead(std::uint32_t index, int change) {
  const DetourInfo* const info = g_process.detours.of(index);
  if (info == nullptr || info->chain == nullptr) return;
  const auto led = led_.try_emplace(info->chain->point, 0).first;
  led->second += change;
  if (led->second == 0) led_.erase(led);
}

JumpState Detours::reason(std::uint32_t index) const {
  const JumpState now = state(index);
  if (now == JumpState::kCovered) {
    const std::uint32_t first = covered_by_.at(index);
    return is_jump(first) || led_.contains(index)        ? JumpState::kCovered
           : g_process.table.points[index].has_consumers ? JumpState::kConsumer
                                                         : reason(first);
  }
  if (now != JumpState::kReady) return led_.contains(index) ? JumpState::kCovered : now;
  if (is_stopped_) return JumpState::kUnsupported;
  for (std::uint64_t back = 1; back < kMostJumpBytes; ++back) {  // it may lie in a jump that came later
    const std::uint32_t before = g_process.table.find(g_process.table.points[index].address - back);
    if (before != kNotFound && is_jump(before) && back < g_process.detours.of(before)->jump_bytes)
      return JumpState::kCovered;
  }
  const bool has_consumers = g_process.table.points[index].has_consumers;
  const DetourInfo* const needed = chosen(index);
  if (needed == nullptr) return JumpState::kConsumer;
  const DetourInfo& info = *needed;
  if (is_outdated(info)) return JumpState::kConsumer;
  const std::uint64_t origin = g_process.table.points[index].address;
  for (std::uint32_t part = has_consumers ? 1 : 0; part < info.count; ++part) {
    if (!info.is_counted(part)) continue;
    const std::uint32_t point = g_process.table.find(origin + info.starts[part]);
    if (point == kNotFound || g_process.table.points[point].has_consumers) return JumpState::kConsumer;
  }
  std::uint32_t part = 0;
  for (std::uint64_t offset = 1; offset < std::max<std::uint64_t>(info.jump_bytes, info.length); ++offset) {
    if (g_process.table.find(origin + offset) == kNotFound) continue;
    if (!info.find_part(offset, part) || !(info.is_counted(part) || info.is_chained(part)))
      return JumpState::kNeighbour;
  }
  return JumpState::kReady;
}

namespace {

// Calls visit(index, info, offset) for the detours that begin before an address and reach it, or whose jumps do.
template <typename Visit>
void for_each_over(std::uint64_t address, const Visit& visit) {
  constexpr std::uint64_t kFurthest = kMostDetourLength + decoder::kMaxInstructionBytes;
  for (std::uint64_t back = 1; back < kFurthest; ++back) {
    const std::uint32_t index = g_process.table.find(address - back);
    const DetourInfo* const info = index == kNotFound ? nullptr : g_process.detours.of(index);
    if (info != nullptr && info->point == index && back < std::max(info->jump_bytes, info->length))
      visit(index, *info, back);
  }
}

}  // namespace

void Detours::jumps_over(std::uint64_t address, std::vector<std::uint32_t>& indexes) const {
  for_each_over(address, [&](std::uint32_t index, const DetourInfo&, std::uint64_t) {
    if (is_jump(index)) indexes.push_back(index);
  });
}

namespace {

// Calls visit(index) for the probepoints behind the first byte of what may be a probepoint's jump.
template <typename Visit>
void for_each_within(std::uint32_t index, const Visit& visit) {
  const DetourInfo* const info = g_process.detours.of(index);
  if (info == nullptr || info->point != index) return;
  for (std::uint64_t offset = 1; offset < kMostJumpBytes; ++offset) {
    const std::uint32_t point = g_process.table.find(info->origin + offset);
    if (point != kNotFound) visit(point);
  }
}

}  // namespace

void Detours::jumps_within(std::uint32_t index, std::vector<std::uint32_t>& indexes) const {
  for_each_within(index, [&](std::uint32_t point) {
    if (is_jump(point)) indexes.push_back(point);
  });
}

void Detours::points_within(std::uint32_t index, std::vector<std::uint32_t>& indexes) const {
  for_each_within(index, [&](std::uint32_t point) {
    if (state(point) == JumpState::kReady) indexes.push_back(point);
  });
}

void Detours::drop_overlapping(std::vector<std::uint32_t>& indexes) {
  std::uint64_t end = 0;
  std::erase_if(indexes, [&](std::uint32_t index) {
    choose(index);
    const DetourInfo& info = *g_process.detours.of(index);
    if (info.origin < end) return true;
    end = info.origin + info.jump_bytes;
    return false;
  });
}

void Detours::take_stale(std::uint64_t address, std::vector<std::uint32_t>& indexes) {
  for_each_over(address, [&](std::uint32_t index, const DetourInfo& info, std::uint64_t offset) {
    std::uint32_t part = 0;
    if (state(index) != JumpState::kReady || (info.find_part(offset, part) && info.is_counted(part))) return;
    set(index, JumpState::kUnseen);
    indexes.push_back(index);
  });
}

namespace {

// Writes, of every jump's bytes behind the first, those that pick(jump, offset) gives a value for. Nothing to write is
// no problem.
template <typename Pick>
std::optional<std::string> write_bytes(std::span<const std::uint32_t> indexes, DetourWriter& writer, const Pick& pick,
                                       bool& has_written) {
  std::vector<patch::Byte> bytes;
  for (const std::uint32_t index : indexes) {
    const Jump jump(index, writer);
    for (std::uint32_t offset = 0; offset < jump.info->jump_bytes; ++offset) {
      if (const std::optional<std::uint8_t> value = pick(jump, offset))
        bytes.push_back({jump.address + offset, *value});
    }
  }
  has_written = !bytes.empty();
  return bytes.empty() ? std::nullopt : patch::write_text(bytes);
}

using Value = std::optional<std::uint8_t>;

void set_active(std::uint32_t index, bool is_active) {
  const std::uint8_t value = is_active ? 1 : 0;
  __atomic_store_n(&const_cast<DetourInfo*>(g_process.detours.of(index))->is_active, value, __ATOMIC_RELAXED);
}

}  // namespace

// What stands behind a jump's first byte without it.
std::optional<std::uint8_t> Detours::original_at(const DetourJump& jump, std::uint32_t offset) const {
  if (offset == 0) return std::nullopt;
  const std::uint32_t point = g_process.table.find(jump.address + offset);
  return point != kNotFound && callbacks_.is_armed(point) ? 0xcc : jump.info->original[offset];
}

std::optional<std::string> Detours::insert(std::span<const std::uint32_t> indexes, bool is_alone) {
  if (indexes.empty()) return std::nullopt;
  const auto guard = [](const Jump& jump, std::uint32_t offset) -> Value {
    return jump.is_boundary(offset) ? Value(0xcc) : std::nullopt;
  };
  const auto rest = [](const Jump& jump, std::uint32_t offset) -> Value {
    return offset != 0 && !jump.is_boundary(offset) ? Value(jump.bytes[offset]) : std::nullopt;
  };
  const auto first = [](const Jump& jump, std::uint32_t offset) -> Value {
    return offset == 0 ? Value(jump.bytes[0]) : std::nullopt;
  };
  const auto whole = [](const Jump& jump, std::uint32_t offset) -> Value { return jump.bytes[offset]; };
  bool has_written = false;
  std::optional<std::string> denied;
  if (is_alone) {
    denied = write_bytes(indexes, *writer_, whole, has_written);
  } else {
    denied = write_bytes(indexes, *writer_, guard, has_written);
    if (!denied && has_written) callbacks_.synchronise();
    if (!denied) denied = write_bytes(indexes, *writer_, rest, has_written);
    if (!denied) callbacks_.synchronise();
    if (!denied) denied = write_bytes(indexes, *writer_, first, has_written);
  }
  if (denied) {
    is_stopped_ = true;
    write_bytes(
        indexes, *writer_, [&](const Jump& jump, std::uint32_t offset) { return original_at(jump, offset); },
        has_written);
    return denied;
  }
  callbacks_.synchronise();
  for (const std::uint32_t index : indexes) {
    states_[index] = JumpState::kJump;
    set_active(index, true);
    lead(index, 1);
  }
  jumps_ += indexes.size();
  has_jumped_ = true;
  return std::nullopt;
}

std::optional<std::string> Detours::remove(std::span<const std::uint32_t> indexes, bool is_alone) {
  if (indexes.empty()) return std::nullopt;
  for (const std::uint32_t index : indexes) set_active(index, false);
  const auto first = [](const Jump&, std::uint32_t offset) -> Value {
    return offset == 0 ? Value(0xcc) : std::nullopt;
  };
  const auto rest = [](const Jump& jump, std::uint32_t offset) -> Value {
    return offset != 0 && !jump.is_boundary(offset) ? Value(jump.info->original[offset]) : std::nullopt;
  };
  const auto boundary = [&](const Jump& jump, std::uint32_t offset) {
    return jump.is_boundary(offset) ? original_at(jump, offset) : std::nullopt;
  };
  bool has_written = false;
  const auto whole = [&](const Jump& jump, std::uint32_t offset) {
    return offset == 0 ? Value(0xcc) : original_at(jump, offset);
  };
  if (is_alone) {
    if (auto denied = write_bytes(indexes, *writer_, whole, has_written)) return denied;
  } else if (auto denied = write_bytes(indexes, *writer_, first, has_written)) {
    return denied;
  }
  for (const std::uint32_t index : indexes) {
    states_[index] = JumpState::kReady;
    lead(index, -1);
  }
  jumps_ -= indexes.size();
  callbacks_.synchronise();
  if (is_alone) return std::nullopt;
  if (auto denied = write_bytes(indexes, *writer_, rest, has_written)) return denied;
  callbacks_.synchronise();
  if (auto denied = write_bytes(indexes, *writer_, boundary, has_written)) return denied;
  if (has_written) callbacks_.synchronise();
  return std::nullopt;
}

bool Detours::counts_by_segment(std::uint32_t index) const {
  const JumpState now = state(index);
  if (now != JumpState::kJump && now != JumpState::kReady && now != JumpState::kCovered) return false;
  const std::uint32_t first = now == JumpState::kCovered ? covered_by_.at(index) : index;
  const DetourInfo* const info = g_process.detours.of(first);
  const auto counting = counting_.find(first);
  const bool has_other = counting != counting_.end() && counting->second != nullptr;
  return (info != nullptr && info->by_segment != 0) || (has_other && counting->second->by_segment != 0);
}

void Detours::discard(std::uint32_t index) { states_[index] = JumpState::kNotEntry; }

std::vector<patch::Swap> Detours::restore(bool is_alone) {
  std::vector<std::uint32_t> indexes;
  for (std::uint32_t index = 0; jumps_ != 0 && index < states_.size(); ++index) {
    if (is_jump(index)) indexes.push_back(index);
  }
  std::sort(indexes.begin(), indexes.end(), [](std::uint32_t a, std::uint32_t b) {
    return g_process.table.points[a].address < g_process.table.points[b].address;
  });
  std::vector<patch::Swap> first, rest, last;
  for (const std::uint32_t index : indexes) {
    const Jump jump(index, *writer_);
    set_active(index, false);
    states_[index] = JumpState::kReady;
    for (std::uint32_t offset = 0; offset < jump.info->jump_bytes; ++offset) {
      const std::uint64_t address = jump.address + offset;
      const std::uint32_t point = g_process.table.find(address);
      const std::uint8_t original =
          point != kNotFound ? g_process.table.points[point].first_byte : jump.info->original[offset];
      const bool is_boundary = jump.is_boundary(offset);
      if (is_alone) {
        rest.push_back({address, jump.bytes[offset], original});
      } else if (offset == 0 || is_boundary) {
        if (!is_boundary) first.push_back({address, jump.bytes[offset], 0xcc});
        last.push_back({address, 0xcc, original});
      } else {
        rest.push_back({address, jump.bytes[offset], original});
      }
    }
  }
  jumps_ = 0;
  if (!first.empty()) {
    patch::swap_text(first);
    callbacks_.synchronise();
  }
  if (!rest.empty()) {
    patch::swap_text(rest);
    callbacks_.synchronise();
  }
  return last;
}

void Detours::forget(std::uint32_t index) {
  if (state(index) == JumpState::kUnseen) return;
  if (is_jump(index)) {
    --jumps_;
    lead(index, -1);
  }
  discard(index);  // when it is back, and hot, it may have one again
  for_consumers_.erase(index);
  counting_.erase(index);
  __atomic_store_n(&g_process.detours.infos[index], nullptr, __ATOMIC_RELEASE);  // pairs with DetourView::of
}

}  // namespace ubp::runtime
