// Modules that come and go while the program runs: pending probes are armed when theirs is mapped, before its
// constructors run; when it goes, its probepoints are forgotten and their counts kept.
//
// Context: normal, inside the application's dlopen or dlclose, in place of the empty function that the dynamic linker
// calls for debuggers (r_brk, link.h) with its own lock held; or at the start of a registration. What is called here is
// no hit of the application's.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/registry/registry.h"
#include "runtime/report/report.h"
#include "runtime/symbols/while_modules_stay.h"

namespace ubp::runtime {

using report::Level;
using report::say;

void Registry::modules_changed(bool just_mapped) {
  if (!modules_) {
    modules_.emplace();
    loaded_modules_ = static_cast<std::uint32_t>(modules_->all().size());
    for (const plan::CodeRange& range : Probepoints::own_text()) modules_->add_own_text(range);
    return;
  }
  const plan::Modules::Change change = modules_->refresh(just_mapped);
  if (change.left_out != 0)
    say(Level::kWarning, fmt::format("{} modules are not probed: too many were loaded", change.left_out));
  if (!change.come.empty() || !change.back.empty() || !change.gone.empty()) {
    std::erase_if(followers_, [](const Follower& follower) { return follower.life.expired(); });
    for (const Follower& follower : followers_) follower.follow(*modules_);
  }
  if (!probepoints_.is_started()) return;
  for (const std::uint32_t module : change.gone) {
    probepoints_.retire_module(module, modules_->all()[module]);
    forget_semaphores(module);
  }
  for (const std::uint32_t module : change.back) {
    const symbols::Module& its = modules_->all()[module];
    if (its.has_text_relocations && !its.is_relocated) {
      say(Level::kWarning,
          fmt::format("{}, which is back, is not probed: the dynamic linker has yet to write into its code", its.path));
      continue;
    }
    if (const auto denied = probepoints_.revive_module(module)) say(Level::kWarning, *denied);
  }
  for (const std::uint32_t module : change.come) {
    for (auto& [id, registration] : registrations_) {
      if (registration->plan != nullptr) arm_module(id, *registration, module);
    }
  }
  if (change.come.empty() && change.back.empty()) return;  // as before most registrations, of which there may be many
  for (auto& [id, registration] : registrations_) {
    if (registration->is_enabled) raise_semaphores(*registration);
  }
  if (more_is_counted_ != nullptr) more_is_counted_();
}

void Registry::follow_modules(std::weak_ptr<const void> life, std::function<void(const plan::Modules&)> follow) {
  watch_modules();
  symbols::while_modules_stay([&] {
    modules_changed(false);
    follow(*modules_);
  });
  followers_.push_back({std::move(life), std::move(follow)});
}

void Registry::arm_module(std::uint64_t id, Registration& registration, std::uint32_t module) {
  plan::Plan& plan = *registration.plan;
  const std::uint32_t first = registration.points;
  const std::size_t refused = registration.refused.size();
  std::vector<plan::Mistake> mistakes;
  plan.add_module(module, mistakes);
  if (!is_reported(registration)) mistakes.clear();
  for (const plan::Mistake& mistake : mistakes) {
    const char* const source = registration.request.is_environment ? "UBP_PROBES" : "a pending probe";
    say(Level::kWarning,
        fmt::format("{}:{}:{}: {}", source, mistake.position.line, mistake.position.column, mistake.message));
  }
  const std::size_t found = plan.points().size();
  refuse_unwanted(plan, registration.request);
  if (plan.points().size() < found && is_reported(registration)) {
    say(Level::kWarning, fmt::format("{} of {} probepoints in {}, loaded just now, are refused, first {}: {}",
                                     found - plan.points().size(), found, modules_->all()[module].name,
                                     place_of(*modules_, plan.refused().back()), plan.refused().back().reason));
  }
  const std::size_t wanted = plan.points().size(), room = probepoints_.room();
  const std::size_t runs = registration.runs.size(), watched = registration.watched.size();
  take(id, registration);
  if (wanted > room) {
    say(Level::kWarning,
        fmt::format("{} of {} probepoints in {} are refused: there is room for {} (UBP_MAX_PROBEPOINTS makes more)",
                    registration.refused.size() - refused, wanted, modules_->all()[module].name, room));
  }
  if (registration.points == first) return;
  if (!registration.base.empty()) registration.base.resize(registration.points);
  if (!registration.done.empty()) registration.done.resize(registration.points);
  if (!registration.is_enabled) return;
  const Runs added(registration.runs.begin() + static_cast<std::ptrdiff_t>(runs), registration.runs.end());
  add_consumers(id, registration, watched, added);
  note_base(registration, added, first);
  std::vector<std::uint32_t> inner, outer;
  split(registration, added, inner, outer);
  if (const auto denied = change_text(inner, outer, {}, {})) say(Level::kWarning, *denied);
  say(Level::kInfo,
      fmt::format("{} probepoints in {}, loaded just now", registration.points - first, modules_->all()[module].path));
}

}  // namespace ubp::runtime
