// Taking charge of the process, and what the preload entry needs at its end.
#include <link.h>

#include <exception>

#include "runtime/api/api.h"
#include "runtime/api/api_lock.h"
#include "runtime/base/cancellation.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using report::Level;
using report::say;

namespace {

// Stands in for the dynamic linker's empty r_brk.
void on_modules_changed() {
  const SignalsHeld quiet;
  const Uncancelled uncancelled;
  if (_r_debug.r_state != r_debug::RT_CONSISTENT) return;
  const ApiLock lock;
  if (lock.status() != UBP_OK) return;  // a vfork child; or libubp itself opens its readers
  try {
    interface().registry.modules_changed(true);
  } catch (const std::exception& problem) {
    say(Level::kWarning, problem.what());
  }
}

// Detours keep what they spill in the TLS: two tasks on one would restore each other's registers, and what a program
// makes by itself has no place for it.
void before_sharing_tls() {
  const SignalsHeld quiet;
  const ApiLock lock;
  if (lock.status() == UBP_OK) interface().registry.leave_jump_tier();
}

void leave_segment() {
  if (!trap::counts_by_segment()) return;
  const SignalsHeld quiet;
  const ApiLock lock;
  if (lock.status() == UBP_OK) interface().registry.leave_segment();
}

// Called by the trap path.
void promote(std::uint32_t point) {
  const SignalsHeld quiet;
  const ApiLock lock(false, ApiLock::Wait::kNot);
  if (lock.status() != UBP_OK) return;  // it is asked again
  try {
    interface().registry.promote(point);
  } catch (const std::exception&) {
    // no memory: it stays as it is
  }
}

}  // namespace

namespace {

report::Summary without_counts(const std::string& program, ubp_status status) {
  report::Summary summary;
  summary.version = kVersion;
  summary.program = program;
  summary.error = report::Failure{"nothing was counted", "the end of the process", ubp_status_string(status), ""};
  return summary;
}

}  // namespace

report::Summary summary(const std::string& program, bool lists_all) {
  const ApiLock lock;
  if (lock.status() != UBP_OK) return without_counts(program, lock.status());
  const Registry& registry = interface().registry;
  return registry.summary(program, registry.probepoints_standing(), lists_all);
}

report::Summary end(const std::string& program, bool lists_all, const SignalsHeld* quiet, bool& is_restored) {
  const ApiLock lock(true, quiet != nullptr ? ApiLock::Wait::kForever : ApiLock::Wait::kBriefly);
  if (lock.status() != UBP_OK) return without_counts(program, lock.status());
  Registry& registry = interface().registry;
  const Probepoints::Standing standing = registry.probepoints_standing();
  const auto denied = registry.restore();
  is_restored = !denied && !registry.is_armed();
  if (denied) {
    say(Level::kWarning, *denied);
  } else if (quiet != nullptr) {
    quiet->let_signals_in();
  }
  return registry.summary(program, standing, lists_all);
}

void leave_consumers() {
  const SignalsHeld quiet;
  const Uncancelled uncancelled;
  const ApiLock lock(false);
  if (lock.status() != UBP_OK || !interface().is_embedded) return;
  Registry& registry = interface().registry;
  std::vector<Operation> operations;
  for (const bool of_environment : {false, true}) {
    for (const std::uint64_t id : registry.ids(of_environment)) operations.push_back({Operation::kDisable, id});
  }
  auto denied = registry.apply(operations);
  if (!denied) denied = registry.rest();
  if (denied) say(Level::kWarning, *denied);
}

Shortfall shortfall(const std::vector<ubp_probe*>& probes) {
  const SignalsHeld quiet;
  const ApiLock lock;
  Shortfall found;
  if (lock.status() != UBP_OK) return found;
  const Registry& registry = interface().registry;
  for (const ubp_probe* probe : probes) {
    const auto id = reinterpret_cast<std::uint64_t>(probe);
    for (std::size_t i = 0; auto problem = registry.problem(id, i); ++i) {
      if (problem->position.line != 0) {
        found.mistakes.push_back(std::move(*problem));
        continue;
      }
      found.is_exact |= problem->is_exact;
      if (found.refused++ == 0) found.first = std::move(*problem);
    }
    for (Problem& problem : registry.waiting(id)) found.waiting.push_back(std::move(problem));
    ubp_probe_stats stats{};
    registry.read(id, stats);
    found.probes += stats.probes;
  }
  return found;
}

std::string costs(ubp_probe* probe) {
  const SignalsHeld quiet;
  const ApiLock lock;
  return lock.status() == UBP_OK ? interface().registry.costs(reinterpret_cast<std::uint64_t>(probe)) : std::string();
}

ubp_status initialise(const ProbepointsConfig& config, bool is_embedding) {
  const ApiLock lock(false);
  if (lock.status() != UBP_OK) return lock.status();
  Interface& state = interface();
  if (signals::is_taken_by_another()) {
    say(Level::kError,
        "this process has another copy of UBP, which stays in charge; link libubp.so, or do not preload it");
    return UBP_E_OTHER_RUNTIME;
  }
  const bool was_running = state.registry.is_armed();
  if (!was_running && !state.is_initialised) state.registry.configure(config);
  if (is_embedding && !state.is_embedded) {
    state.is_embedded = true;
    state.registry.watch_modules();
    if (was_running)
      report::error_stream().write("ubp: the program embeds UBP too: one runtime serves it and UBP_PROBES\n");
  }
  state.is_initialised = true;
  trap::g_process.upcalls.on_modules_changed = reinterpret_cast<std::uint64_t>(&on_modules_changed);
  trap::g_process.upcalls.before_sharing_tls = &before_sharing_tls;
  trap::g_process.upcalls.leave_segment = &leave_segment;
  if (state.registry.config().optimize == Optimize::kAuto) trap::g_process.upcalls.promote = &promote;
  return UBP_OK;
}

void give_up() {
  const SignalsHeld quiet;
  const ApiLock lock;
  if (lock.status() == UBP_OK && !interface().is_embedded) interface().is_initialised = false;
}

}  // namespace ubp::runtime
