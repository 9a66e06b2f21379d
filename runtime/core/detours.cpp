// Making detours, and jumps to them. See detours.h.
#include "runtime/core/detours.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/patch/poke.h"
#include "runtime/trap/trap_state.h"

namespace ubp::core {

using decoder::kJumpBytes;
using decoder::kMostPrefixes;
using trap::g_process;

namespace {

constexpr std::uint64_t kAutoBudget = std::uint64_t{64} << 20, kBudget = std::uint64_t{1} << 30;

bool reserve_chunk(std::uint64_t base) {
  void* const wanted = reinterpret_cast<void*>(base);
  void* const got = mmap(wanted, xol::kChunkBytes, PROT_READ | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) {
    madvise(got, xol::kChunkBytes, MADV_DONTDUMP);  // no core needs them
    madvise(got, xol::kChunkBytes, MADV_NOHUGEPAGE);
    return true;
  }
  if (got != MAP_FAILED) munmap(got, xol::kChunkBytes);  // a kernel before 4.17 takes the address as a hint
  return false;
}

std::int32_t thread_offset(const void* address) {
  std::uint64_t thread;
  asm("mov %%fs:0, %0" : "=r"(thread));
  return static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(address) - thread);
}

// The highest bytes of a displacement that lead to where detours may lie, best first. A boundary at the highest byte needs
// 0xcc, 870 MB below; a program at the bottom of the address space keeps the room for its heap.
std::span<const std::uint8_t> directions(std::uint64_t origin) {
  static constexpr std::uint8_t kDown[] = {0xcc, 0xc4, 0xd4, 0xdc, 0x20, 0x30}, kUp[] = {0x60, 0x50, 0x40, 0x30, 0x20};
  constexpr std::uint64_t kLow = std::uint64_t{1} << 30;
  return origin < kLow ? std::span<const std::uint8_t>(kUp) : std::span<const std::uint8_t>(kDown);
}

Tier tier_of(decoder::WindowProblem problem) {
  switch (problem) {
    case decoder::WindowProblem::kNone: return Tier::kReady;
    case decoder::WindowProblem::kTooShort: return Tier::kTooShort;
    case decoder::WindowProblem::kInstruction: return Tier::kInstruction;
    case decoder::WindowProblem::kTarget: return Tier::kTarget;
  }
  return Tier::kInstruction;
}

// One jump over its window.
struct Jump {
  std::uint64_t address;
  const xol::DetourInfo* info;
  std::uint8_t bytes[kJumpBytes + kMostPrefixes];

  explicit Jump(std::uint32_t index)
      : address(g_process.table.points[index].address), info(&xol::detour_info(g_process.detours.entry_of(index))), bytes{} {
    xol::write_detour_jump({bytes, info->jump_bytes}, address, g_process.detours.entry_of(index));
  }
  bool is_boundary(std::uint32_t offset) const {
    return std::any_of(info->starts + 1, info->starts + info->count, [&](std::uint8_t start) { return start == offset; });
  }
};

}  // namespace

std::string_view tier_reason(Tier tier) {
  static constexpr std::string_view kReasons[kTiers] = {"",          "",          "",           "not-entry",   "window-too-short", "instruction",
                                                        "branch-target", "no-address", "budget", "neighbour", "consumer",    "unsupported"};
  return kReasons[static_cast<std::size_t>(tier)];
}

Detours::Detours() : space_(reserve_chunk) {}

void Detours::start(Optimize optimize, std::size_t capacity, std::function<void()> synchronise) {
  optimize_ = optimize;
  if (optimize == Optimize::kNever) return;
  void* const entries = mmap(nullptr, capacity * sizeof(std::uint64_t), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (entries == MAP_FAILED) throw std::bad_alloc();
  g_process.detours.entries = static_cast<std::uint64_t*>(entries);
  budget_ = optimize == Optimize::kAuto ? kAutoBudget : kBudget;
  synchronise_ = std::move(synchronise);
  static_assert(offsetof(trap::TaskState, fast) < 128);
  storage_ = {thread_offset(&trap::t_state), thread_offset(&trap::t_spilled.rcx), thread_offset(&trap::t_spilled.rax),
              offsetof(trap::TaskState, fast)};
}

void Detours::stage(std::uint64_t address, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t page = address & ~(kPage - 1), offset = address - page;
    const auto [found, is_new] = pages_.try_emplace(page);
    if (is_new) std::memcpy(found->second.data(), reinterpret_cast<const void*>(page), kPage);
    const std::size_t size = std::min<std::size_t>(bytes.size(), kPage - offset);
    std::copy_n(bytes.begin(), size, found->second.begin() + static_cast<std::ptrdiff_t>(offset));
    bytes = bytes.subspan(size);
    address += size;
  }
}

Tier Detours::place(std::uint32_t index, const decoder::FunctionCode& function, std::uint64_t entry, std::uint32_t offset) {
  const std::uint64_t origin = entry + offset;
  Tier problem = Tier::kNoAddress;
  for (std::uint32_t prefixes = 0; prefixes <= kMostPrefixes; ++prefixes) {
    const std::uint32_t jump_bytes = kJumpBytes + prefixes;
    const decoder::Window window = decoder::find_window(function, offset, jump_bytes);
    if (window.problem != decoder::WindowProblem::kNone) return prefixes == 0 ? tier_of(window.problem) : problem;
    if (decoder::is_branched_into(function, offset + 1, offset + std::min<std::uint32_t>(jump_bytes, window.length))) {
      return Tier::kTarget;
    }
    xol::Pattern pattern;
    if (!xol::boundary_pattern(window, prefixes, pattern)) return problem;
    const std::uint32_t bytes = xol::detour_bytes(window);
    constexpr std::uint32_t kHighest = 0xff000000;
    for (const std::uint8_t direction : directions(origin)) {
      const std::uint32_t highest = std::uint32_t{direction} << 24;
      if ((pattern.mask & kHighest) != 0 && (pattern.value & kHighest) != highest) continue;
      const xol::Pattern fixed{pattern.mask | kHighest, (pattern.value & ~kHighest) | highest};
      const auto place = space_.place(origin + jump_bytes, fixed, bytes);
      if (!place) continue;
      std::uint8_t image[xol::kDetourHead + 256];
      const auto counter = static_cast<std::uint32_t>(index * sizeof(std::uint64_t));
      xol::write_detour({image, xol::kDetourHead + bytes}, *place, window, prefixes, origin, function.bytes.subspan(offset), index,
                        counter, storage_);
      stage(*place - xol::kDetourHead, {image, xol::kDetourHead + bytes});
      made_.emplace_back(index, *place);
      return Tier::kReady;
    }
  }
  
  return problem;
}

void Detours::leave(std::uint32_t index) {
  if (tiers_.size() <= index) tiers_.resize(index + 1, Tier::kUnseen);
  if (tiers_[index] == Tier::kUnseen) tiers_[index] = Tier::kNotEntry;
}

void Detours::make(std::uint32_t index, const decoder::FunctionCode& function, std::uint64_t entry, std::uint32_t offset) {
  if (tiers_.size() <= index) tiers_.resize(index + 1, Tier::kUnseen);
  Tier& tier = tiers_[index];
  if (tier != Tier::kUnseen && tier != Tier::kNotEntry) return;
  if (is_stopped_) {
    tier = Tier::kUnsupported;
  } else if (space_.used_bytes() >= budget_) {
    tier = Tier::kBudget;
  } else {
    tier = place(index, function, entry, offset);
  }
  constexpr std::size_t kMostPages = 1024;
  if (pages_.size() >= kMostPages) flush();
}

void Detours::flush() {
  bool is_denied = false;
  for (const auto& [address, page] : pages_) is_denied |= patch::write_block(address, page).has_value();
  for (const auto& [index, entry] : made_) {
    if (is_denied) {
      tiers_[index] = Tier::kUnsupported;
      continue;
    }
    space_.publish(g_process.detours, entry);
    __atomic_store_n(&g_process.detours.entries[index], entry, __ATOMIC_RELEASE);  // pairs with entry_of
  }
  pages_.clear();
  made_.clear();
  is_stopped_ |= is_denied;
}

bool Detours::has_neighbour(std::uint32_t index) const {
  const std::uint64_t address = g_process.table.points[index].address;
  const xol::DetourInfo& info = xol::detour_info(g_process.detours.entry_of(index));
  for (std::uint64_t offset = 1; offset < info.jump_bytes; ++offset) {
    if (g_process.table.find(address + offset) != probes::kNotFound) return true;
  }
  return false;
}

bool Detours::is_ready(std::uint32_t index) const {
  return tier(index) == Tier::kReady && !is_stopped_ && reason(index) == Tier::kReady;
}

Tier Detours::reason(std::uint32_t index) const {
  if (tier(index) != Tier::kReady) return tier(index);
  if (g_process.table.points[index].has_consumers) return Tier::kConsumer;
  return has_neighbour(index) ? Tier::kNeighbour : Tier::kReady;
}

void Detours::jumps_over(std::uint64_t address, std::vector<std::uint32_t>& indexes) const {
  for (std::uint64_t back = 1; back < kJumpBytes + kMostPrefixes; ++back) {
    const std::uint32_t index = g_process.table.find(address - back);
    if (index == probes::kNotFound || !is_jump(index)) continue;
    if (back < xol::detour_info(g_process.detours.entry_of(index)).jump_bytes) indexes.push_back(index);
  }
}

namespace {

// Writes, of every jump's bytes behind the first, those that pick(jump, offset) gives a value for. Nothing to write is no
// problem.
template <typename Pick>
std::optional<std::string> write_bytes(std::span<const std::uint32_t> indexes, const Pick& pick, bool& has_written) {
  std::vector<patch::Byte> bytes;
  for (const std::uint32_t index : indexes) {
    const Jump jump(index);
    for (std::uint32_t offset = 0; offset < jump.info->jump_bytes; ++offset) {
      if (const std::optional<std::uint8_t> value = pick(jump, offset)) bytes.push_back({jump.address + offset, *value});
    }
  }
  has_written = !bytes.empty();
  return bytes.empty() ? std::nullopt : patch::write_text(bytes);
}

using Value = std::optional<std::uint8_t>;

}  // namespace

std::optional<std::string> Detours::insert(std::span<const std::uint32_t> indexes) {
  if (indexes.empty()) return std::nullopt;
  const auto guard = [](const Jump& jump, std::uint32_t offset) -> Value {
    return jump.is_boundary(offset) ? Value(0xcc) : std::nullopt;
  };
  const auto rest = [](const Jump& jump, std::uint32_t offset) -> Value {
    return offset != 0 && !jump.is_boundary(offset) ? Value(jump.bytes[offset]) : std::nullopt;
  };
  const auto first = [](const Jump& jump, std::uint32_t offset) -> Value { return offset == 0 ? Value(jump.bytes[0]) : std::nullopt; };
  bool has_written = false;
  auto denied = write_bytes(indexes, guard, has_written);
  if (!denied && has_written) synchronise_();
  if (!denied) denied = write_bytes(indexes, rest, has_written);
  if (!denied) {
    synchronise_();
    denied = write_bytes(indexes, first, has_written);
  }
  if (denied) {
    is_stopped_ = true;
    return denied;
  }
  synchronise_();
  for (const std::uint32_t index : indexes) tiers_[index] = Tier::kJump;
  jumps_ += indexes.size();
  return std::nullopt;
}

std::optional<std::string> Detours::remove(std::span<const std::uint32_t> indexes) {
  if (indexes.empty()) return std::nullopt;
  const auto first = [](const Jump&, std::uint32_t offset) -> Value { return offset == 0 ? Value(0xcc) : std::nullopt; };
  const auto rest = [](const Jump& jump, std::uint32_t offset) -> Value {
    return offset != 0 && !jump.is_boundary(offset) ? Value(jump.info->original[offset]) : std::nullopt;
  };
  const auto boundary = [](const Jump& jump, std::uint32_t offset) -> Value {
    return jump.is_boundary(offset) ? Value(jump.info->original[offset]) : std::nullopt;
  };
  bool has_written = false;
  if (auto denied = write_bytes(indexes, first, has_written)) return denied;
  for (const std::uint32_t index : indexes) tiers_[index] = Tier::kReady;
  jumps_ -= indexes.size();
  synchronise_();
  if (auto denied = write_bytes(indexes, rest, has_written)) return denied;
  synchronise_();
  if (auto denied = write_bytes(indexes, boundary, has_written)) return denied;
  if (has_written) synchronise_();
  return std::nullopt;
}

void Detours::forget(std::uint32_t index) {
  if (tier(index) == Tier::kUnseen) return;
  jumps_ -= is_jump(index) ? 1 : 0;
  tiers_[index] = Tier::kUnseen;
  __atomic_store_n(&g_process.detours.entries[index], 0, __ATOMIC_RELEASE);  // pairs with entry_of
}

}  // namespace ubp::core
