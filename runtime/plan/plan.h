// Specification items -> what to arm: the probes, their probepoints, and what was refused and why. Load time only.
//
// Built for millions: a probe is 16 bytes, a probepoint 24, and every instruction is decoded once.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "decoder/walk.h"
#include "runtime/language/spec.h"
#include "runtime/plan/exits.h"
#include "runtime/plan/modules.h"
#include "runtime/plan/refusal.h"
#include "runtime/symbols/symbols.h"
#include "xol/displaced.h"

namespace ubp::plan {

// One probe: an item at one address. Several may share a probepoint.
struct Probe {
  std::uint32_t point = 0;          // index into Plan::points()
  std::uint32_t offset = 0;         // bytes from the function's entry
  std::uint64_t function : 28 = 0;  // index into the module's functions
  std::uint64_t item : 22 = 0;      // index into the items
  std::uint64_t module : 14 = 0;    // index into the modules
};
static_assert(language::kMaxItems == 1 << 22 && kMaxModules == 1 << 14);

struct Refused {
  std::uint32_t item = 0;
  std::uint32_t module = 0;
  std::uint64_t address = 0;  // ELF virtual address
  std::string symbol;         // "f+0x3"; empty: no function is known there
  std::string reason;
  bool misplaced = false;  // no instruction is known to start there
  bool named = false;      // by an item that means this address, not by a glob or insn:
};

// A mistake in the specification, with the place it was made. hint: a further line ("did you mean ...").
struct Mistake {
  language::Position position{};
  std::string message;
  std::string hint;
  std::optional<Refused> refused{};  // it is there, but is no instruction
  bool lacks_module = false;         // the module is not loaded
};

// "symbol" or "symbol+0x1c", and the ELF virtual address.
std::string symbol_of(const Modules& modules, const Probe& probe);
std::uint64_t address_of(const Modules& modules, const Probe& probe);
// The static mark that an item of kind kMark has found there; null: the item is of another kind.
const symbols::Mark* mark_of(const Modules& modules, const language::Item& item, const Probe& probe);
// The places of static marks that an item means in the modules that are loaded now; those that cannot be read are
// left out. Context: normal. Thread-safe: yes.
std::vector<symbols::Mark> marks_meant_by(const language::Item& item);
// The probe's name as an item that pastes back: "module:symbol+0x1c".
std::string place_of(const Modules& modules, const Refused& refused);

class Plan {
 public:
  // Remembers the items; nothing is resolved yet. module: where to look, instead of everywhere the items say; an item
  // without a module then means this one. modules: outlives the plan.
  Plan(const Modules& modules, std::vector<language::Item> items, std::optional<std::uint32_t> module = std::nullopt);

  // Whether an item waits for modules that are loaded later; how many of them have come to nothing so far.
  // What items that wait for modules did not find in those that are there, and that their modules' names fit.
  const std::vector<Mistake>& waiting() const { return waiting_; }
  bool has_pending() const;
  std::size_t pending() const;
  // A module that was loaded after the plan was made: resolves the pending items in it. Its probepoints are then the
  // ones in points(), numbered from first_point() on.
  void add_module(std::uint32_t module, std::vector<Mistake>& mistakes);

  // Resolves and classifies every item. Returns the mistakes, in item order; the others are resolved all the same.
  // progress(n): called now and then with the number of probes found so far.
  template <typename Progress>
  std::vector<Mistake> resolve(const Progress& progress);

  // Refuses the probes of all points for which refuse(index) gives a reason, and renumbers the rest.
  template <typename Refuse>
  void refuse_points(const Refuse& refuse);

  // From here on only the entries of functions are found, named as such; all else is refused.
  void want_calls() { wants_calls_ = true; }
  // From here on exits that have no room for a jump get a probepoint before them that has (Exit::approach).
  void want_approaches() { wants_approaches_ = true; }
  // From here on only static marks that have these arguments are found, bit 0 for the first; others are refused.
  void want_arguments(std::uint64_t arguments) { wanted_arguments_ = arguments; }

  const std::vector<language::Item>& items() const { return items_; }
  std::vector<Probe>& probes() { return probes_; }
  // Sorted by address, no two alike.
  std::vector<xol::Displaced>& points() { return points_; }
  std::uint32_t first_point() const { return first_point_; }
  // Of the functions whose returns are wanted: their exits, whose points are among the others; and see Exits.
  std::vector<Exit>& exits() { return exits_; }
  const std::vector<CodeRange>& followed() const { return followed_; }
  std::vector<Refused>& refused() { return refused_; }
  // Nanoseconds of resolve() spent in decoding functions.
  std::int64_t decode_ns() const { return decode_ns_; }

 private:
  struct Candidate {
    Probe probe;
    xol::Displaced point;
  };
  struct Found;  // what one item came to

  friend std::vector<symbols::Mark> marks_meant_by(const language::Item& item);
  std::vector<std::uint32_t> modules_matching(const language::Item& item) const;
  std::optional<Mistake> add_item(std::uint32_t item);
  std::optional<Mistake> find_symbol(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                     Found& found);
  std::optional<Mistake> find_address(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                      Found& found);
  std::optional<Mistake> find_mark(const language::Item& item, const std::vector<std::uint32_t>& modules, Found& found);
  std::optional<Mistake> find_places(const language::Item& item, const std::vector<std::uint32_t>& modules,
                                     Found& found);
  std::optional<std::string> argument_problem(const symbols::Mark& mark) const;
  Mistake unknown_mark(const language::Item& item, const std::vector<std::uint32_t>& modules) const;
  std::optional<Mistake> wait_or_fail(const language::Item& item, Mistake mistake);
  void add_one(std::uint32_t module, const symbols::Function* function, std::uint64_t address, Found& found) const;
  void add_addresses(std::uint32_t module, std::span<const std::uint64_t> addresses, Found& found);
  void add_functions(std::uint32_t module, std::span<const symbols::Function* const> functions, std::uint64_t low,
                     std::uint64_t high, Found& found);
  void add_decoded(std::uint32_t module, const symbols::Function& function, const decoder::Decoded& decoded,
                   const std::uint8_t* bytes, Found& found) const;
  bool is_called(const symbols::Function& function, std::uint32_t offset, const Found& found) const;
  void refuse(std::uint32_t module, const symbols::Function* function, std::uint64_t address, std::string reason,
              Found& found, bool misplaced = false) const;
  std::optional<std::string> module_problem(std::uint32_t module) const;
  std::optional<std::string> boundary_problem(std::uint32_t module, const symbols::Function* function,
                                              std::uint64_t address, Found& found) const;
  Mistake unknown_symbol(const language::Item& item, const std::vector<std::uint32_t>& modules) const;
  language::Item as_named(const language::Item& item) const;
  Mistake unknown_module(const language::Item& item) const;
  std::string meant_module(const language::Item& item) const;
  void exclude(const Found& found);
  bool wants_returns(const Probe& probe) const { return language::is_of_returns(items_[probe.item].kind); }
  void find_exits();
  void refuse_exits(const std::map<std::uint32_t, std::string>& reasons, const std::vector<std::uint32_t>& number);
  void number_points();

  const Modules& modules_;
  std::vector<language::Item> items_;
  std::vector<Candidate> candidates_;  // while resolving
  std::vector<Probe> probes_;
  std::vector<xol::Displaced> points_;
  std::vector<Refused> refused_;
  std::vector<Exit> exits_;
  std::vector<CodeRange> followed_;
  std::vector<bool> matched_;  // by item: it has found something
  std::vector<Mistake> waiting_;
  std::optional<std::uint32_t> only_module_;  // where resolving looks
  bool wants_calls_ = false, wants_approaches_ = false;
  std::uint64_t wanted_arguments_ = 0;
  std::uint32_t first_point_ = 0;  // number of points_[0]
  std::int64_t decode_ns_ = 0;
};

template <typename Progress>
std::vector<Mistake> Plan::resolve(const Progress& progress) {
  std::vector<Mistake> mistakes;
  for (std::uint32_t item = 0; item < items_.size(); ++item) {
    if (auto mistake = add_item(item)) mistakes.push_back(std::move(*mistake));
    progress(candidates_.size());
  }
  number_points();
  return mistakes;
}

template <typename Refuse>
void Plan::refuse_points(const Refuse& refuse) {
  std::map<std::uint32_t, std::string> reasons;
  for (std::uint32_t point = 0; point < points_.size(); ++point) {
    if (auto reason = refuse(point)) reasons.emplace(point, std::move(*reason));
  }
  if (reasons.empty()) return;
  std::vector<std::uint32_t> number(points_.size());
  std::uint32_t kept = 0;
  for (std::uint32_t point = 0; point < points_.size(); ++point) {
    number[point] = kept;
    if (reasons.contains(point)) continue;
    points_[kept++] = points_[point];
  }
  points_.resize(kept);
  refuse_exits(reasons, number);
  std::erase_if(probes_, [&](Probe& probe) {
    if (probe.point < first_point_) return false;
    const auto reason = reasons.find(probe.point - first_point_);
    if (reason != reasons.end()) {
      const auto item = static_cast<std::uint32_t>(probe.item), module = static_cast<std::uint32_t>(probe.module);
      refused_.push_back({item, module, address_of(modules_, probe), symbol_of(modules_, probe), reason->second});
      return true;
    }
    probe.point = first_point_ + number[probe.point - first_point_];
    return false;
  });
}

}  // namespace ubp::plan
