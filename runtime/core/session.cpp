// From options to armed probes, and from counters to the summary. Load time and exit only.
#include "runtime/core/session.h"

#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "runtime/core/arena.h"
#include "runtime/core/process_memory.h"
#include "runtime/patch/poke.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/trap_state.h"

namespace ubp::core {

using report::Level;
using report::say;
using trap::g_process;

namespace {

class Stopwatch {
 public:
  std::int64_t lap_ns() {
    const auto now = std::chrono::steady_clock::now();
    const auto lap = now - last_;
    last_ = now;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(lap).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace

Session::Session(Options options, std::string program) : options_(std::move(options)), program_(std::move(program)) {}

bool Session::start() {
  Stopwatch watch;
  auto parsed = spec::parse(options_.probes);
  times_.parse = watch.lap_ns();
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
  {
    report::Progress progress;
    const auto mistakes = plan_->resolve([&](std::size_t found) { progress.show(fmt::format("{} probes found", found)); });
    progress.clear();
    if (!say_mistakes(mistakes)) return false;
    // Forgiven mistakes may have left nothing: that was said, or was not to be said.
    if (!mistakes.empty() && plan_->points().empty() && plan_->refused().empty()) return true;
  }
  times_.resolve = watch.lap_ns();
  if (!plan_->points().empty() && !prepare()) return false;
  times_.prepare = watch.lap_ns();
  if (plan_->points().empty()) {
    const auto& refused = plan_->refused();
    say(Level::kError, refused.empty() ? "UBP_PROBES: every probe was excluded again; nothing is probed"
                                       : fmt::format("no probe could be armed, first {}: {}",
                                                     plan_->place_of(refused.front()), refused.front().reason));
    return false;
  }
  say_refusals();
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
  const bool named = std::any_of(refused.begin(), refused.end(), [](const auto& r) { return r.named; });
  say(named ? Level::kWarning : Level::kInfo, fmt::format("{} of {} probes refused, first {}: {}; the report lists all", refused.size(),
                                   refused.size() + plan_->probes().size(), plan_->place_of(refused.front()),
                                   refused.front().reason));
}

// The price of the load, for UBP_LOG=info and the benchmarks.
void Session::say_costs() const {
  const auto ms = [](std::int64_t ns) { return static_cast<double>(ns) / 1e6; };
  const std::uint64_t bytes = arena_bytes() + points_ * sizeof(std::uint64_t);
  say(Level::kInfo,
      fmt::format("{} probepoints: parse {:.2f} ms, resolve {:.2f} ms, decode {:.2f} ms, slots {:.2f} ms, table {:.2f} ms, arm "
                  "{:.2f} ms; {:.1f} bytes a probepoint (one counting thread)",
                  points_, ms(times_.parse), ms(times_.resolve - plan_->decode_ns()), ms(plan_->decode_ns()), ms(times_.prepare), ms(times_.table), ms(times_.arm),
                  static_cast<double>(bytes) / points_));
}

bool Session::prepare() {
  own_points_ = plan_->add_gate();
  const TaskMemoryPlan memory{options_.slots, static_cast<std::uint32_t>(plan_->points().size() + own_points_.size() + 1)};
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
    const std::uint32_t module = plan_->module_at(point.address);
    if (!tried[module]) {
      tried[module] = true;
      area_of_module[module] = find_or_make_area(plan_->modules()[module].low(), plan_->modules()[module].high());
    }
    if (!area_of_module[module]) {
      return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "");
    }
    point.area = *area_of_module[module] & 0xf;
    return std::nullopt;
  });
  std::erase_if(own_points_, [&](xol::Displaced& point) {
    const symbols::Module& module = plan_->modules()[plan_->module_at(point.address)];
    const auto area = find_or_make_area(module.low(), module.high());
    point.area = area.value_or(0) & 0xf;
    return !area;
  });
  const bool denied = make_permanent_slots(plan_->points(), own_points_);
  std::erase_if(own_points_, [](const xol::Displaced& point) { return point.system.permanent == xol::kNoPermanentSlot; });
  if (denied) {
    plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
      const xol::Displaced& point = plan_->points()[index];
      if (point.route != decoder::Route::kSystem || point.system.permanent != xol::kNoPermanentSlot) return std::nullopt;
      return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "permanent slots");
    });
  }
  return true;
}

bool Session::arm() {
  Stopwatch watch;
  std::vector<xol::Displaced> points = std::move(plan_->points());
  points_ = static_cast<std::uint32_t>(points.size());
  points.insert(points.end(), own_points_.begin(), own_points_.end());
  points.push_back(calibration_point());
  g_process.has_gate = std::any_of(points.begin(), points.end(), [](const xol::Displaced& point) { return point.is_gate; });
  table_ = new probes::Table(std::move(points));
  g_process.table = table_->view();
  times_.table = watch.lap_ns();
  g_process.pid = static_cast<std::uint32_t>(getpid());
  set_return_mode();
  for (const symbols::Module& module : plan_->modules()) {
    if (!module.is_runtime) continue;
    g_process.text_low = module.low();
    g_process.text_high = module.high();
  }
  adopt_loading_thread();
  if (!signals::take_over()) {
    say(Level::kError, "the kernel refuses a SIGTRAP handler; the program runs unprobed");
    return false;
  }
  if (const auto denied = write_points([](const xol::Displaced&) { return std::uint8_t{0xcc}; })) {
    say(Level::kError, *denied + "; the program runs unprobed");
    return false;
  }
  armed_ = true;
  times_.arm = watch.lap_ns();
  say_costs();
  return true;
}

// Writes one byte at every planned probepoint and every gate site.
std::optional<std::string> Session::write_points(std::uint8_t (*value)(const xol::Displaced&)) const {
  std::vector<patch::Byte> bytes;
  const std::size_t count = points_ + own_points_.size();
  bytes.reserve(count);
  for (std::size_t point = 0; point < count; ++point) {
    const xol::Displaced& displaced = g_process.table.points[point];
    bytes.push_back({displaced.address, value(displaced)});
  }
  std::inplace_merge(bytes.begin(), bytes.begin() + points_, bytes.end(),
                     [](const patch::Byte& a, const patch::Byte& b) { return a.address < b.address; });
  return patch::write_text(bytes);
}

std::optional<std::string> Session::disarm() {
  if (!armed_) return std::nullopt;
  const auto denied = write_points([](const xol::Displaced& point) { return point.first_byte; });
  if (!denied) armed_ = false;
  return denied;
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
    summary.refusals.push_back({modules[refused.module].name, refused.symbol, refused.address, refused.reason});
  }
  summary.totals.refused = plan_->refused().size();
  summary.totals.probes_requested = plan_->refused().size() + plan_->probes().size();
  if (table_ == nullptr) return summary;
  const std::vector<std::uint64_t> hits = read_counters(points_, summary.xol);
  summary.hit_cost_ns = measure_hit_ns();
  summary.overhead_ns = summary.hit_cost_ns * static_cast<double>(std::accumulate(hits.begin(), hits.end(), std::uint64_t{0}));
  summary.totals.probepoints_armed = hits.size();
  summary.totals.missed = summary.xol.taken_out;
  summary.totals.hits = summary.totals.missed;
  summary.probes.reserve(plan_->probes().size());
  for (const probes::Probe& probe : plan_->probes()) {
    const spec::Item& item = plan_->items()[probe.item];
    summary.probes.push_back({item.text, std::string(spec::kind_name(item.kind)), modules[probe.module].name,
                              plan_->symbol_of(probe), plan_->address_of(probe), hits[probe.point]});
    summary.totals.hits += hits[probe.point];
    summary.totals.recorded += hits[probe.point];  // counting probes: every counted hit is recorded
  }
  return summary;
}

}  // namespace ubp::core
