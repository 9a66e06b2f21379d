// Specification items -> what to arm: the probes, their probepoints, and what was refused and why. Load time only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/probes/refusal.h"
#include "runtime/spec/spec.h"
#include "runtime/symbols/symbols.h"
#include "xol/displaced.h"

namespace ubp::probes {

// One probe: an item at one address. Several may share a probepoint.
struct Probe {
  std::uint32_t item = 0;       // index into the items
  std::uint32_t module = 0;     // index into Plan::modules
  std::uint32_t point = 0;      // index into Plan::points (set by finish())
  std::uint32_t offset = 0;     // bytes from the function's entry
  const symbols::Function* function = nullptr;  // nullptr: an address in no known function
  std::uint64_t address = 0;    // ELF virtual address
};

struct Refused {
  Probe probe;
  std::string reason;
};

// A mistake in the specification, with the place it was made. Hints are further lines ("did you mean ...").
struct Mistake {
  spec::Position position{};
  std::string message;
  std::string hint;
};

class Plan {
 public:
  // Reads the modules and remembers the items. Nothing is resolved yet.
  explicit Plan(std::vector<spec::Item> items);

  // Resolves every item. Returns the mistakes, in item order; the others are resolved all the same.
  std::vector<Mistake> resolve();

  // Classifies the instruction at every address and sorts the probepoints by address. After it, probes() are exactly
  // those that can be armed as far as the instruction is concerned.
  void classify();

  // Refuses the probes of all points for which `refuse` gives a reason, and renumbers the rest.
  template <typename Refuse>
  void refuse_points(const Refuse& refuse);

  const std::vector<spec::Item>& items() const { return items_; }
  const std::vector<symbols::Module>& modules() const { return modules_; }
  const std::vector<Probe>& probes() const { return probes_; }
  std::vector<xol::Displaced>& points() { return points_; }
  const std::vector<Refused>& refused() const { return refused_; }
  // The module that a probepoint lies in.
  std::uint32_t module_of(std::uint32_t point) const { return point_modules_[point]; }
  // "symbol", "symbol+0x1c", or "0x1234" where no function is known.
  std::string symbol_of(const Probe& probe) const;

 private:
  const symbols::FunctionTable& table_of(std::uint32_t module);
  std::vector<std::uint32_t> modules_matching(const spec::Item& item) const;
  std::optional<Mistake> add_item(std::uint32_t item);
  std::optional<Mistake> add_symbol(std::uint32_t item, const std::vector<std::uint32_t>& modules,
                                    std::vector<Probe>& found);
  std::optional<Mistake> add_address(std::uint32_t item, const std::vector<std::uint32_t>& modules,
                                     std::vector<Probe>& found);
  Mistake unknown_symbol(const spec::Item& item, const std::vector<std::uint32_t>& modules);
  Mistake unknown_module(const spec::Item& item) const;
  std::optional<std::string> boundary_problem(const Probe& probe) const;
  void set_points(std::vector<Probe> probes, std::vector<xol::Displaced> points);

  std::vector<spec::Item> items_;
  std::vector<symbols::Module> modules_;
  std::map<std::uint32_t, symbols::FunctionTable> tables_;
  std::vector<Probe> probes_;
  std::vector<xol::Displaced> points_;
  std::vector<std::uint32_t> point_modules_;
  std::vector<Refused> refused_;
};

template <typename Refuse>
void Plan::refuse_points(const Refuse& refuse) {
  std::vector<std::optional<std::string>> reasons(points_.size());
  for (std::uint32_t point = 0; point < points_.size(); ++point) reasons[point] = refuse(point);
  std::vector<Probe> kept;
  for (const Probe& probe : probes_) {
    if (reasons[probe.point]) {
      refused_.push_back({probe, *reasons[probe.point]});
    } else {
      kept.push_back(probe);
    }
  }
  std::vector<xol::Displaced> points;
  for (std::uint32_t point = 0; point < points_.size(); ++point) {
    if (!reasons[point]) points.push_back(points_[point]);
  }
  set_points(std::move(kept), std::move(points));
}

}  // namespace ubp::probes
