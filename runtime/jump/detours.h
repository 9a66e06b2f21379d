// The jump tier: which probepoints have a detour, which of them are entered by a jump now, and why the others are not.
//
// A jump goes in behind the probepoint's int3, and comes out again before it, in steps between which every thread is
// made to see what was written (synchronise), so that no thread ever runs a mixture:
//
//   in    int3 | int3 at every boundary in the window | the jump's other bytes | its first byte
//   out   int3 at the first byte | the other bytes as they were | the boundaries as they were
//
// A thread that stands at a boundary, or jumps there, meets an int3 at every one of these times, and the trap path
// sends it to the instruction's copy in the detour. Detours are never freed or changed.
//
// A detour counts every probepoint among its instructions. Those need no jump of their own, unless something branches
// to them (JumpState::kCovered); their int3s stay, for whoever comes another way.
//
// Context: normal, under the registry's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "decoder/flags.h"
#include "decoder/window.h"
#include "runtime/jump/detour_space.h"
#include "runtime/jump/detour_writer.h"
#include "runtime/patch/swap.h"
#include "runtime/plan/modules.h"

namespace ubp::runtime {

// kAuto: function entries. kAlways: every probepoint that can have a jump.
enum class Optimize : std::uint8_t { kNever, kAuto, kAlways };

// What keeps a probepoint at its int3, if anything does: the report's "tier" and "left".
enum class JumpState : std::uint8_t {
  kUnseen,  // nobody asked
  kReady,   // its detour waits
  kJump,
  kCovered,   // counted in the detour of one before it, when that is a jump; or such a one leads to its own
  kNotEntry,  // kAuto optimises entries only
  kTooShort,  // as decoder::WindowProblem
  kInstruction,
  kTarget,
  kNoAddress,    // no address for the detour fits the boundaries
  kBudget,       // the memory for detours is used up
  kNeighbour,    // a probepoint lies in the window that its detour does not know
  kConsumer,     // consumers in its window, or no detour could be made that calls its own
  kUnsupported,  // membarrier is denied, the text cannot be written, or code runs that keeps signals to itself
};
inline constexpr std::size_t kJumpStates = 13;

// "window-too-short", as the summary spells it; kJumpTier for those reached by a jump, "" for those nobody asked about.
std::string_view tier_reason(JumpState state);
inline constexpr std::string_view kJumpTier = "jump";

inline constexpr std::uint32_t kMostDetourLength =
    128;  // bytes that one stands for; beyond, a jump back costs nothing against the rest

// A function whose probepoints are to have detours.
struct DetouredFunction {
  // led_into: where other functions lead into this one.
  DetouredFunction(plan::Code bytes, std::uint64_t own_bytes, std::uint64_t at, decoder::CodeElsewhere others,
                   std::vector<std::uint32_t> led_into)
      : storage(std::move(bytes)),
        code{storage, static_cast<std::uint32_t>(std::min<std::uint64_t>(own_bytes, storage.size()))},
        targets(code, std::move(led_into)),
        entry(at),
        elsewhere(std::move(others)) {}
  DetouredFunction(const DetouredFunction&) = delete;
  DetouredFunction& operator=(const DetouredFunction&) = delete;

  plan::Code storage;
  decoder::FunctionCode code;
  decoder::BranchTargets targets;
  std::uint64_t entry;  // where it runs
  decoder::CodeElsewhere elsewhere;
  // The detour made last: offsets in the function.
  std::uint32_t latest = 0, window_end = 0, covered_end = 0;
};

struct DetourJump;  // detours.cpp

class Detours {
 public:
  Detours();
  // capacity: probepoints there can ever be. synchronise: makes every thread see what was written. is_armed: whether
  // the probepoint's int3 is in. needs: what the consumers of a probepoint ask for.
  struct Callbacks {
    std::function<void()> synchronise;
    std::function<bool(std::uint32_t)> is_armed;
    std::function<ActionNeeds(std::uint32_t)> needs;
  };
  void start(Optimize optimize, std::size_t capacity, Callbacks callbacks);
  Optimize mode() const { return optimize_; }
  // From now on no jump is made; those that are stay.
  void stop() { is_stopped_ = true; }

  // Whether a probepoint so far into its function is to have a detour; if not: keep_int3(). make() says whether it can
  // have one (make_detours.cpp), reason() whether it still can.
  bool wants(std::uint32_t offset) const { return optimize_ == Optimize::kAlways || offset == 0; }
  void keep_int3(std::uint32_t index);
  // Makes the detour of a probepoint that has none. For those of one function, in the order of their addresses.
  void make(std::uint32_t index, DetouredFunction& function, std::uint32_t offset);
  // Makes the detour that a probepoint needs for consumers, where it has none that does. For those of one function,
  // the last one first: detours lead to those of exits that they meet.
  void make_for_consumers(std::uint32_t index, DetouredFunction& function, std::uint32_t offset,
                          const ActionNeeds& needs);
  // Makes the detour of a probepoint that is to lead to an exit's, once that is made. Without one it has no use.
  void make_approach(std::uint32_t index, DetouredFunction& function, std::uint32_t offset);
  // These are about to have consumers: detours that are made until forget_expected() leave them where they are, unless
  // they lie in the window.
  void expect_consumers(std::uint32_t index) {
    if (expected_.size() <= index) expected_.resize(index + 1);
    expected_[index] = true;
  }
  void forget_expected() {
    expected_.clear();
    expected_needs_.clear();
  }
  // Writes what was made.
  void flush();

  bool is_jump(std::uint32_t index) const { return state(index) == JumpState::kJump; }
  // Whether its jump leads to the detour that its consumers need now.
  bool is_chosen(std::uint32_t index) const;
  // Whether insert() would change anything.
  bool is_ready(std::uint32_t index) const {
    return state(index) == JumpState::kReady && !is_stopped_ && reason(index) == JumpState::kReady;
  }
  std::uint64_t jumps() const { return jumps_; }
  bool has_jumped() const { return has_jumped_; }  // some probepoint ever was a jump
  // The jumps whose detours execute the instruction at an address, but not as their first, are appended.
  void jumps_over(std::uint64_t address, std::vector<std::uint32_t>& indexes) const;

  // The jumps, or the probepoints that could be some, in the window of a probepoint that has a detour, are appended.
  void jumps_within(std::uint32_t index, std::vector<std::uint32_t>& indexes) const;
  void points_within(std::uint32_t index, std::vector<std::uint32_t>& indexes) const;
  // Of probepoints sorted by address, keeps the first of those whose jumps would overlap.
  void drop_overlapping(std::vector<std::uint32_t>& indexes);
  // The probepoints whose detours execute the instruction at an address without counting it, are appended, to be made
  // again.
  void take_stale(std::uint64_t address, std::vector<std::uint32_t>& indexes);
  // Whether some detour that counts it does so by %gs.
  bool counts_by_segment(std::uint32_t index) const;
  // What was made for a probepoint that is no jump is not used again.
  void discard(std::uint32_t index);
  bool has_any() const { return !infos_.empty(); }

  // Puts jumps in place of armed int3s, or the int3s back. indexes: sorted by address, each of them fit for it, as
  // drop_overlapping() leaves them. Returns what
  // was denied: then none of them is a jump. is_alone: no other thread runs, so that one step does.
  std::optional<std::string> insert(std::span<const std::uint32_t> indexes, bool is_alone);
  std::optional<std::string> remove(std::span<const std::uint32_t> indexes, bool is_alone);
  // Takes every jump out of what is still its text (patch/swap.h), for good: the process ends. In the steps of
  // remove(), but for the last: returns the int3s that are left of them. Denied: they stay.
  std::vector<patch::Swap> restore(bool is_alone);
  // The module is gone, and the text with it.
  void forget(std::uint32_t index);

  // What keeps the probepoint now.
  JumpState reason(std::uint32_t index) const;
  std::uint64_t used_bytes() const { return space_.used_bytes() + infos_.size() * sizeof(DetourInfo); }

 private:
  JumpState state(std::uint32_t index) const { return index < states_.size() ? states_[index] : JumpState::kUnseen; }
  void set(std::uint32_t index, JumpState state);
  std::optional<std::uint8_t> original_at(const DetourJump& jump, std::uint32_t offset) const;
  JumpState place(std::uint32_t index, DetouredFunction& function, std::uint32_t offset,
                  const DetourConsumers* consumers);
  void place_alone(std::uint32_t index, const DetouredFunction& function, std::uint32_t offset,
                   const DetourConsumers& consumers);
  void make_at(std::uint64_t entry, std::uint32_t index, std::uint64_t origin, std::uint32_t jump_bytes,
               const DetourPlan& plan, DetourSize size, std::span<const std::uint8_t> code,
               const DetourConsumers* consumers);
  const DetourInfo* with_consumers(std::uint32_t index) const;
  const DetourInfo* chain_of(std::uint32_t index, bool is_in_window) const;
  bool is_outdated(const DetourInfo& info) const;
  // Of those for consumers, one that does for these; null: none was made.
  template <typename Fits>
  const DetourInfo* best_of(std::uint32_t index, const ActionNeeds& needs, const Fits& fits) const {
    const auto [first, last] = for_consumers_.equal_range(index);
    const DetourInfo* best = nullptr;
    for (auto made = first; made != last; ++made) {
      const ForConsumers& its = made->second;
      if (its.needs.covers(needs) && (best == nullptr || its.needs.has_same_block(needs)) && fits(its)) best = its.info;
    }
    return best;
  }
  const DetourInfo* chosen(std::uint32_t index) const;
  void choose(std::uint32_t index);
  void lead(std::uint32_t index, int change);
  std::optional<std::uint64_t> find_place(std::uint64_t origin, std::uint32_t jump_bytes, const DetourPlan& plan,
                                          DetourSize size, Pattern pattern, std::span<const std::uint8_t> code);
  void stage(std::uint64_t address, std::span<const std::uint8_t> bytes);

  // Whether it has consumers, or is about to.
  bool is_consumed(std::uint32_t index) const;

  static constexpr std::uint64_t kPage = sys::kPageBytes;
  using Page = std::array<std::uint8_t, kPage>;

  Optimize optimize_ = Optimize::kNever;
  bool is_stopped_ = false, has_jumped_ = false;
  std::uint64_t budget_ = 0;
  Callbacks callbacks_;
  std::unique_ptr<DetourWriter> writer_;  // null: no jump is ever made
  DetourSpace space_;
  std::deque<DetourInfo> infos_;  // never moved or freed: the trap path may look
  std::vector<JumpState> states_;
  std::vector<bool> expected_;                                     // see expect_consumers()
  std::unordered_map<std::uint32_t, ActionNeeds> expected_needs_;  // of them, where that is known already
  struct ForConsumers {
    ActionNeeds needs;
    const DetourInfo* info;
    bool ends_block;
  };
  std::unordered_multimap<std::uint32_t, ForConsumers> for_consumers_;  // by probepoint
  std::unordered_map<std::uint32_t, const DetourInfo*> counting_;       // of those: their other detour
  std::unordered_map<std::uint32_t, std::uint32_t> covered_by_;         // of JumpState::kCovered: whose detour
  std::unordered_map<std::uint32_t, int> led_;                          // by probepoint: how many jumps lead to it
  std::map<std::uint64_t, Page> pages_;                                 // staged, by address
  std::unordered_set<std::uint64_t> written_;                           // pages that ever were
  std::vector<const DetourInfo*> made_;                                 // staged
  std::vector<std::uint32_t> newly_covered_;                            // likewise
  std::uint64_t jumps_ = 0;
};

}  // namespace ubp::runtime
