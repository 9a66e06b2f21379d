// The jump tier: which probepoints have a detour, which of them are entered by a jump now, and why the others are not.
//
// A jump goes in behind the probepoint's int3, and comes out again before it, in steps between which every thread is made to
// see what was written (synchronise), so that no thread ever runs a mixture:
//
//   in    int3 | int3 at every boundary in the window | the jump's other bytes | its first byte
//   out   int3 at the first byte | the other bytes as they were | the boundaries as they were | (the first byte: Machine)
//
// A thread that stands at a boundary, or jumps there, meets an int3 at every one of these times, and the trap path sends it to
// the instruction's copy in the detour. Detours are never freed or changed.
//
// Context: normal, under the registry's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "decoder/window.h"
#include "xol/detour_space.h"

namespace ubp::core {

// kAuto: function entries. kAlways: every probepoint that can have a jump.
enum class Optimize : std::uint8_t { kNever, kAuto, kAlways };

// What keeps a probepoint at its int3, if anything does.
enum class Tier : std::uint8_t {
  kUnseen,       // nobody asked
  kReady,        // its detour waits
  kJump,
  kNotEntry,     // kAuto optimises entries only
  kTooShort,     // as decoder::WindowProblem
  kInstruction,
  kTarget,
  kNoAddress,    // no address for the detour fits the boundaries
  kBudget,       // the memory for detours is used up
  kNeighbour,    // another probepoint lies in the window
  kConsumer,     // its hits run consumers
  kUnsupported,  // membarrier is denied, the text cannot be written, or code runs that keeps signals to itself
};
inline constexpr std::size_t kTiers = 12;

// "window-too-short", as the summary spells it; "" for kUnseen, kReady and kJump.
std::string_view tier_reason(Tier tier);

class Detours {
 public:
  Detours();
  // capacity: probepoints there can ever be. synchronise: makes every thread see what was written.
  void start(Optimize optimize, std::size_t capacity, std::function<void()> synchronise);
  Optimize mode() const { return optimize_; }
  // From now on no jump is made; those that are stay.
  void stop() { is_stopped_ = true; }

  // Whether a probepoint so far into its function is to have a detour; if not: leave().
  bool wants(std::uint32_t offset) const { return optimize_ == Optimize::kAlways || offset == 0; }
  void leave(std::uint32_t index);
  // Makes the detour of a probepoint that has none, at `offset` in its function, whose entry runs at `entry`.
  void make(std::uint32_t index, const decoder::FunctionCode& function, std::uint64_t entry, std::uint32_t offset);
  // Writes what was made.
  void flush();

  bool is_jump(std::uint32_t index) const { return tier(index) == Tier::kJump; }
  // Whether insert() would change anything.
  bool is_ready(std::uint32_t index) const;
  std::uint64_t jumps() const { return jumps_; }
  // The jumps whose windows hold the address, behind their first byte, are appended.
  void jumps_over(std::uint64_t address, std::vector<std::uint32_t>& indexes) const;

  // Puts jumps in place of armed int3s, or the int3s back. indexes: sorted by address, each of them fit for it. Returns what
  // was denied: then none of them is a jump.
  std::optional<std::string> insert(std::span<const std::uint32_t> indexes);
  std::optional<std::string> remove(std::span<const std::uint32_t> indexes);
  // The module is gone, and the text with it.
  void forget(std::uint32_t index);

  // What keeps the probepoint now.
  Tier reason(std::uint32_t index) const;
  std::uint64_t used_bytes() const { return space_.used_bytes(); }

 private:
  Tier tier(std::uint32_t index) const { return index < tiers_.size() ? tiers_[index] : Tier::kUnseen; }
  Tier place(std::uint32_t index, const decoder::FunctionCode& function, std::uint64_t entry, std::uint32_t offset);
  void stage(std::uint64_t address, std::span<const std::uint8_t> bytes);
  bool has_neighbour(std::uint32_t index) const;

  static constexpr std::uint64_t kPage = 4096;
  using Page = std::array<std::uint8_t, kPage>;

  Optimize optimize_ = Optimize::kNever;
  bool is_stopped_ = false;
  std::uint64_t budget_ = 0;
  std::function<void()> synchronise_;
  xol::DetourStorage storage_;
  xol::DetourSpace space_;
  std::vector<Tier> tiers_;
  std::map<std::uint64_t, Page> pages_;                             // staged, by address
  std::vector<std::pair<std::uint32_t, std::uint64_t>> made_;       // staged: index, entry
  std::uint64_t jumps_ = 0;
};

}  // namespace ubp::core
