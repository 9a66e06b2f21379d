// From options to armed probes, and from counters to the summary. Load time and exit; disarm() and rearm() at any time.
// Modules that come later: late_modules.cpp.
#include "runtime/core/session.h"

#include <link.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <tuple>

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

// Room for the probepoints of modules that are loaded later, where an item waits for them.
constexpr std::uint32_t kLatePoints = 65536;
constexpr std::uint64_t kLatePermanentBytes = std::uint64_t{1} << 20;

// Whether a module was made by the Go compiler: its linker puts a mark near the start of a data segment.
bool has_go_code(const symbols::Module& module) {
  constexpr std::string_view kMark = "\xff Go buildinf:";
  constexpr std::uint64_t kNearStart = 65536;
  if (module.is_runtime) return false;  // it has the mark as text
  return std::any_of(module.segments.begin(), module.segments.end(), [&](const symbols::Segment& segment) {
    const std::uint8_t* bytes = segment.executable ? nullptr : module.bytes_at(segment.address);
    if (bytes == nullptr) return false;
    const std::string_view text(reinterpret_cast<const char*>(bytes), std::min(segment.size, kNearStart));
    return text.find(kMark) != text.npos;
  });
}

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
  if (options_.missing == Missing::kPending) {
    for (spec::Item& item : items) item.pending = !item.exclude;
  }
  plan_ = std::make_unique<probes::Plan>(std::move(items));
  loaded_modules_ = static_cast<std::uint32_t>(plan_->modules().size());
  if (plan_->has_pending()) symbols::keep_readers();
  {
    report::Progress progress;
    const auto mistakes = plan_->resolve([&](std::size_t found) { progress.show(fmt::format("{} probes found", found)); });
    progress.clear();
    if (!say_mistakes(mistakes)) return false;
    // Forgiven mistakes may have left nothing: that was said, or was not to be said.
    if (!mistakes.empty() && !plan_->has_pending() && plan_->points().empty() && plan_->refused().empty()) return true;
  }
  times_.resolve = watch.lap_ns();
  const bool has_work = !plan_->points().empty() || plan_->has_pending();
  if (has_work && !prepare()) return false;
  times_.prepare = watch.lap_ns();
  if (plan_->points().empty() && !plan_->has_pending()) {
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
                  static_cast<double>(bytes) / std::max(points_, 1U)));
}

bool Session::prepare() {
  own_points_ = plan_->add_gate();
  const bool has_late = plan_->has_pending();
  if (has_late) {
    if (const auto hook = plan_->add_hook(_r_debug.r_brk)) own_points_.push_back(*hook);
  }
  const std::size_t points = plan_->points().size() + own_points_.size() + 1 + (has_late ? kLatePoints : 0);
  const TaskMemoryPlan memory{options_.slots, static_cast<std::uint32_t>(points), options_.policy};
  if (const auto denied = map_task_memory(memory)) {
    say(Level::kError, fmt::format("cannot get memory for per-thread counters: {}; the program runs unprobed", *denied));
    return false;
  }
  place(own_points_);
  return true;
}

void Session::place(std::vector<xol::Displaced>& own) {
  // Each module's probepoints get the area that serves the module, or are refused.
  std::vector<std::optional<std::uint32_t>> area_of_module(plan_->modules().size());
  std::vector<bool> tried(plan_->modules().size(), false);
  const auto give_area = [&](xol::Displaced& point) {
    if (point.route == decoder::Route::kEmulate) return true;
    const std::uint32_t module = plan_->module_at(point.address);
    if (!tried[module]) {
      tried[module] = true;
      area_of_module[module] = find_or_make_area(plan_->modules()[module].low(), plan_->modules()[module].high());
    }
    point.area = area_of_module[module].value_or(0) & 0xf;
    return area_of_module[module].has_value();
  };
  plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
    if (give_area(plan_->points()[index])) return std::nullopt;
    return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "");
  });
  std::erase_if(own, [&](xol::Displaced& point) { return !give_area(point); });
  if (!make_permanent_slots(plan_->points(), own, plan_->has_pending() ? kLatePermanentBytes : 0)) return;
  const auto lacks_slot = [](const xol::Displaced& point) {
    return point.route == decoder::Route::kSystem && point.system.permanent == xol::kNoPermanentSlot;
  };
  std::erase_if(own, lacks_slot);
  plan_->refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
    if (!lacks_slot(plan_->points()[index])) return std::nullopt;
    return probes::reason_text(probes::Reason::kOutOfReach, decoder::Refusal::kNone, "permanent slots");
  });
}

bool Session::arm() {
  Stopwatch watch;
  std::vector<xol::Displaced> points = std::move(plan_->points());
  points_ = static_cast<std::uint32_t>(points.size());
  points.insert(points.end(), own_points_.begin(), own_points_.end());
  points.push_back(calibration_point());
  g_process.has_gate = std::any_of(points.begin(), points.end(), [](const xol::Displaced& point) { return point.is_gate; });
  table_ = new probes::Table(std::move(points), plan_->has_pending() ? kLatePoints : 0);
  g_process.table = table_->view();
  times_.table = watch.lap_ns();
  g_process.pid = static_cast<std::uint32_t>(getpid());
  set_return_mode();
  for (const symbols::Module& module : plan_->modules()) {
    if (!module.is_runtime) continue;
    g_process.text_low = module.low();
    g_process.text_high = module.high();
  }
  g_process.keeps_stacks = std::any_of(plan_->modules().begin(), plan_->modules().end(), has_go_code);
  adopt_loading_thread();
  if (!signals::take_over()) {
    say(Level::kError, "the kernel refuses a SIGTRAP handler; the program runs unprobed");
    return false;
  }
  if (const auto denied = write_points(0, table_->view().count, true)) {
    say(Level::kError, *denied + "; the program runs unprobed");
    return false;
  }
  armed_ = true;
  times_.arm = watch.lap_ns();
  say_costs();
  return true;
}

// Writes int3, or what was there, at the probepoints [begin, end) of the table, but for those of modules that are gone
// and for the calibration point.
std::optional<std::string> Session::write_points(std::uint32_t begin, std::uint32_t end, bool arm) const {
  std::vector<patch::Byte> bytes;
  bytes.reserve(end - begin);
  for (std::uint32_t index = begin; index < end; ++index) {
    const xol::Displaced& point = g_process.table.points[index];
    if (point.address == 0 || index == points_ + own_points_.size()) continue;
    bytes.push_back({point.address, arm ? std::uint8_t{0xcc} : point.first_byte});
  }
  // The planned points are sorted; the few behind them, and those of later modules, are not.
  const auto before = [](const patch::Byte& a, const patch::Byte& b) { return a.address < b.address; };
  const auto unsorted = std::is_sorted_until(bytes.begin(), bytes.end(), before);
  std::sort(unsorted, bytes.end(), before);
  std::inplace_merge(bytes.begin(), unsorted, bytes.end(), before);
  return patch::write_text(bytes);
}

std::optional<std::string> Session::disarm() {
  if (!armed_) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto denied = write_points(0, table_->view().count, false);
  if (!denied) armed_ = false;
  return denied;
}

std::optional<std::string> Session::rearm() {
  if (armed_ || table_ == nullptr) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto denied = write_points(0, table_->view().count, true);
  if (!denied) armed_ = true;
  return denied;
}

report::Summary Session::summary() const {
  report::Summary summary;
  summary.version = kVersion;
  summary.program = program_;
  summary.xol.policy = policy_name(options_.policy);
  summary.xol.slots_per_thread = options_.slots;
  if (plan_ == nullptr) return summary;
  const std::lock_guard lock(mutex_);
  const auto& modules = plan_->modules();
  for (const probes::Refused& refused : plan_->refused()) {
    summary.refusals.push_back({modules[refused.module].name, refused.symbol, refused.address, refused.reason});
  }
  summary.totals.refused = plan_->refused().size();
  summary.totals.probes_requested = plan_->refused().size() + plan_->probes().size();
  summary.totals.pending = plan_->pending();
  if (table_ == nullptr) return summary;
  const std::uint32_t own_end = points_ + static_cast<std::uint32_t>(own_points_.size()) + 1;
  const std::vector<std::uint64_t> hits = read_counters(points_, own_end, summary.xol);
  summary.hit_cost_ns = measure_hit_ns();
  const std::uint64_t all_hits = std::accumulate(hits.begin(), hits.begin() + points_, std::uint64_t{0}) +
                                 std::accumulate(hits.begin() + own_end, hits.end(), std::uint64_t{0});
  summary.overhead_ns = summary.hit_cost_ns * static_cast<double>(all_hits);
  summary.totals.probepoints_armed = points_;
  for (const LateModule& late : late_) summary.totals.probepoints_armed += late.is_present ? late.addresses.size() : 0;
  summary.totals.missed = summary.xol.taken_out;
  summary.totals.hits = summary.totals.missed;
  summary.probes.reserve(plan_->probes().size());
  std::map<std::tuple<std::string, std::uint32_t, std::uint64_t>, std::size_t> late_rows;  // path, item, address -> row
  for (const probes::Probe& probe : plan_->probes()) {
    summary.totals.hits += hits[probe.point];
    summary.totals.recorded += hits[probe.point];  // counting probes: every counted hit is recorded
    const std::uint64_t address = plan_->address_of(probe);
    if (probe.module >= loaded_modules_) {  // one that came back elsewhere is one row still
      const auto [row, is_new] =
          late_rows.try_emplace({modules[probe.module].path, probe.item, address}, summary.probes.size());
      if (!is_new) {
        summary.probes[row->second].hits += hits[probe.point];
        continue;
      }
    }
    const spec::Item& item = plan_->items()[probe.item];
    summary.probes.push_back({item.text, std::string(spec::kind_name(item.kind)), modules[probe.module].name,
                              plan_->symbol_of(probe), address, hits[probe.point]});
  }
  return summary;
}

}  // namespace ubp::core
