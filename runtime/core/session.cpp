// From options to armed probes, and from counters to the summary. Load time and exit only.
#include "runtime/core/session.h"

#include <unistd.h>

#include <fmt/format.h>

#include <numeric>

#include "runtime/core/process_memory.h"
#include "runtime/patch/poke.h"
#include "runtime/probes/table.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/trap_state.h"

namespace ubp::core {

using report::Level;
using report::say;
using trap::g_process;

Session::Session(Options options, std::string program) : options_(std::move(options)), program_(std::move(program)) {}

bool Session::start() {
  auto parsed = spec::parse(options_.probes);
  if (const auto* error = std::get_if<spec::Error>(&parsed)) {
    say(Level::kError, fmt::format("UBP_PROBES:{}:{}: {}", error->position.line, error->position.column, error->message));
    return false;
  }
  auto& items = std::get<std::vector<spec::Item>>(parsed);
  if (items.empty()) {
    say(Level::kError, "UBP_PROBES:1:1: no probe given; nothing is probed (try UBP_PROBES='libc:malloc')");
    return false;
  }
  plan_ = std::make_unique<probes::Plan>(std::move(items));
  if (!say_mistakes(plan_->resolve())) return false;
  plan_->classify();
  if (!plan_->points().empty() && !prepare()) return false;
  say_refusals();
  if (plan_->points().empty()) {
    say(Level::kWarning, "UBP_PROBES: no probe could be armed; the program runs unprobed");
    return true;
  }
  return arm();
}

// Returns whether the session may go on.
bool Session::say_mistakes(const std::vector<probes::Mistake>& mistakes) const {
  if (mistakes.empty() || options_.missing == Missing::kIgnore) return true;
  const bool forgiven = options_.missing == Missing::kWarn;
  for (const probes::Mistake& mistake : mistakes) {
    say(forgiven ? Level::kWarning : Level::kError,
        fmt::format("UBP_PROBES:{}:{}: {}", mistake.position.line, mistake.position.column, mistake.message));
    if (!mistake.hint.empty()) report::error_stream().write(fmt::format("ubp:   {}\n", mistake.hint));
    if (!forgiven) return false;  // one line: the first mistake
  }
  return true;
}

void Session::say_refusals() const {
  const auto& refused = plan_->refused();
  if (refused.empty()) return;
  const probes::Refused& first = refused.front();
  say(Level::kWarning,
      fmt::format("{} of {} probes refused, first {}:{}: {}; the report lists all", refused.size(),
                  refused.size() + plan_->probes().size(), plan_->modules()[first.probe.module].name,
                  plan_->symbol_of(first.probe), first.reason));
}

bool Session::prepare() {
  const TaskMemoryPlan memory{options_.slots, static_cast<std::uint32_t>(plan_->points().size() + 1)};
  if (const auto denied = map_task_memory(memory)) {
    say(Level::kError, fmt::format("cannot get memory for per-thread counters: {}; the program runs unprobed", *denied));
    return false;
  }
  // Each module's probepoints get the area that serves the module, or are refused.
  std::vector<std::optional<std::uint32_t>> area_of_module(plan_->modules().size());
  std::vector<bool> tried(plan_->modules().size(), false);
  plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
    xol::Displaced& point = plan_->points()[index];
    if (point.route == decoder::Route::kEmulate) return std::nullopt;
    const std::uint32_t module = plan_->module_of(index);
    if (!tried[module]) {
      tried[module] = true;
      area_of_module[module] = find_or_make_area(plan_->modules()[module].low(), plan_->modules()[module].high());
    }
    if (!area_of_module[module]) {
      return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "");
    }
    point.area = static_cast<std::uint8_t>(*area_of_module[module]);
    return std::nullopt;
  });
  if (make_permanent_slots(plan_->points())) {
    plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
      const xol::Displaced& point = plan_->points()[index];
      if (point.route != decoder::Route::kSystem || point.permanent != xol::kNoPermanentSlot) return std::nullopt;
      return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "permanent slots");
    });
  }
  return true;
}

bool Session::arm() {
  // Owned for ever: the trap path may read it until the process is gone.
  std::vector<xol::Displaced> points = plan_->points();
  points.push_back(calibration_point());
  auto* const table = new probes::Table(std::move(points));
  g_process.table = table->view();
  g_process.pid = static_cast<std::uint32_t>(getpid());
  set_return_mode();
  for (const symbols::Module& module : plan_->modules()) {
    if (!module.is_runtime) continue;
    g_process.text_low = module.low();
    g_process.text_high = module.high();
  }
  if (!signals::take_over()) {
    say(Level::kError, "the kernel refuses a SIGTRAP handler; the program runs unprobed");
    return false;
  }
  std::vector<patch::Byte> bytes;
  bytes.reserve(plan_->points().size());
  for (const xol::Displaced& point : plan_->points()) bytes.push_back({point.address, 0xcc});
  if (const auto denied = patch::write_text(bytes)) {
    say(Level::kError, *denied);
    return false;
  }
  armed_ = true;
  say(Level::kDebug, fmt::format("{} probepoints armed", bytes.size()));
  return true;
}

report::Summary Session::summary() const {
  report::Summary summary;
  summary.version = kVersion;
  summary.pid = getpid();
  summary.program = program_;
  summary.xol.policy = "thread";
  summary.xol.slots_per_thread = options_.slots;
  if (plan_ == nullptr) return summary;
  const auto& modules = plan_->modules();
  for (const probes::Refused& refused : plan_->refused()) {
    summary.refusals.push_back({modules[refused.probe.module].name, plan_->symbol_of(refused.probe), refused.probe.address,
                                refused.reason});
  }
  summary.totals.refused = plan_->refused().size();
  summary.totals.probes_requested = plan_->refused().size() + plan_->probes().size();
  if (!armed_) return summary;
  const std::vector<std::uint64_t> hits = read_counters(static_cast<std::uint32_t>(plan_->points().size()), summary.xol);
  summary.hit_cost_ns = measure_hit_ns();
  summary.overhead_ns = summary.hit_cost_ns * static_cast<double>(std::accumulate(hits.begin(), hits.end(), std::uint64_t{0}));
  summary.totals.probepoints_armed = hits.size();
  for (const probes::Probe& probe : plan_->probes()) {
    const spec::Item& item = plan_->items()[probe.item];
    summary.probes.push_back({item.text, std::string(spec::kind_name(item.kind)), modules[probe.module].name,
                              plan_->symbol_of(probe), probe.address, hits[probe.point]});
    summary.totals.hits += hits[probe.point];
    summary.totals.recorded += hits[probe.point];  // counting probes: every counted hit is recorded
  }
  return summary;
}

}  // namespace ubp::core
