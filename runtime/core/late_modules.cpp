// Modules that come and go while the program runs: pending probes are armed when theirs is mapped, before its
// constructors run; when it goes, its probepoints are forgotten and their counts kept.
//
// Context: normal, inside the application's dlopen or dlclose, in place of the empty function that the dynamic linker
// calls for debuggers (r_brk, link.h) with its own lock held. What is called here is no hit of the application's.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/core/session.h"
#include "runtime/report/report.h"
#include "runtime/trap/trap_state.h"

namespace ubp::core {

using report::Level;
using report::say;
using symbols::Module;
using trap::g_process;

namespace {

bool is_same(const Module& a, const Module& b) { return a.bias == b.bias && a.path == b.path && a.build_id == b.build_id; }

}  // namespace

void Session::modules_changed() {
  const std::lock_guard lock(mutex_);
  if (!armed_) return;
  std::vector<Module> now = symbols::loaded_modules();
  const auto is_loaded = [&](const Module& module) {
    return std::any_of(now.begin(), now.end(), [&](const Module& other) { return is_same(module, other); });
  };
  for (LateModule& late : late_) {
    if (!late.is_present || is_loaded(plan_->modules()[late.module])) continue;
    for (std::uint32_t point = 0; point < late.addresses.size(); ++point) table_->retire(late.first + point);
    late.is_present = false;
  }
  for (Module& module : now) {
    // Without a build-id, what is loaded at the place of an earlier module under its name may be another file.
    const auto known = std::find_if(late_.begin(), late_.end(), [&](const LateModule& late) {
      return is_same(plan_->modules()[late.module], module) && (late.is_present || !module.build_id.empty());
    });
    const auto loaded_end = plan_->modules().begin() + loaded_modules_;
    if (std::any_of(plan_->modules().begin(), loaded_end, [&](const Module& other) { return is_same(other, module); })) continue;
    if (known == late_.end()) {
      module.is_relocated = false;
      arm_module(module);
    } else if (!known->is_present) {  // back at the same place
      const auto count = static_cast<std::uint32_t>(known->addresses.size());
      for (std::uint32_t point = 0; point < count; ++point) table_->revive(known->first + point, known->addresses[point]);
      known->is_present = true;
      if (const auto denied = write_points(known->first, known->first + count, true)) say(Level::kWarning, *denied);
    }
  }
}

void Session::arm_module(const Module& module) {
  const std::uint32_t first = table_->view().count;
  std::vector<probes::Mistake> mistakes;
  if (!plan_->add_module(module, first, mistakes)) {
    say(Level::kWarning, fmt::format("{} is not probed: too many modules were loaded", module.name));
    return;
  }
  for (const probes::Mistake& mistake : mistakes) {
    say(Level::kWarning, fmt::format("UBP_PROBES:{}:{}: {}", mistake.position.line, mistake.position.column, mistake.message));
  }
  std::vector<xol::Displaced> none;
  place(none);
  const std::size_t room = table_->room();
  if (plan_->points().size() > room) {
    say(Level::kWarning, fmt::format("{} of {} probepoints in {} are refused: only {} can be added while the program runs",
                                     plan_->points().size() - room, plan_->points().size(), module.name, room));
    plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
      return index < room ? std::nullopt : std::optional(probes::reason_text(probes::Reason::kNoRoom, decoder::Refusal::kNone, ""));
    });
  }
  LateModule late{static_cast<std::uint32_t>(plan_->modules().size() - 1), first, {}, true};
  for (const xol::Displaced& point : plan_->points()) late.addresses.push_back(point.address);
  table_->add(plan_->points());
  g_process.table = table_->view();
  late_.push_back(std::move(late));
  if (plan_->points().empty()) return;
  if (const auto denied = write_points(first, g_process.table.count, true)) say(Level::kWarning, *denied);
  say(Level::kInfo, fmt::format("{} probepoints in {}, loaded just now", plan_->points().size(), module.path));
}

}  // namespace ubp::core
