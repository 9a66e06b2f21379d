// What a registry tells: the report's summary, and the statistics of the C interface.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>

#include "runtime/base/arena.h"
#include "runtime/registry/registry.h"
#include "runtime/report/report.h"

namespace ubp::runtime {

using trap::Counter;

namespace {

std::uint64_t pending_of(const std::unique_ptr<plan::Plan>& plan) { return plan != nullptr ? plan->pending() : 0; }

// How much of a module's code is known to belong to functions; nothing where that is most of it.
std::optional<report::Coverage> coverage_of(const plan::Modules& modules, std::uint32_t index) {
  constexpr std::uint64_t kMost = 90;  // percent: the linker's stubs and padding are no functions
  const symbols::Module& module = modules.all()[index];
  const symbols::FunctionTable& table = modules.table_of(index);
  report::Coverage part{module.name, table.sources()};
  for (const symbols::Segment& segment : module.segments) part.code_bytes += segment.executable ? segment.size : 0;
  std::uint64_t end = 0, last = ~std::uint64_t{0};
  for (const symbols::Function& function : table.functions()) {
    part.functions += function.address != last;
    last = function.address;
    const std::uint64_t begin = std::max(end, function.address);
    end = std::max(end, function.address + function.size);
    if (end > begin) part.known_bytes += end - begin;
  }
  if (part.known_bytes * 100 >= part.code_bytes * kMost) return std::nullopt;
  return part;
}

// The other names of the function whose entry is probed.
std::vector<std::string> aliases_of(const plan::Modules& modules, const plan::Probe& probe) {
  std::vector<std::string> names;
  if (probe.offset != 0) return names;
  const std::vector<symbols::Function>& functions = modules.table_of(probe.module).functions();
  const symbols::Function& own = functions[probe.function];
  const auto is_before = [](const symbols::Function& function, std::uint64_t address) {
    return function.address < address;
  };
  auto other = std::lower_bound(functions.begin(), functions.end(), own.address, is_before);
  for (; other != functions.end() && other->address == own.address; ++other) {
    if (other->has_symbol() && other->symbol() != own.symbol() && (names.empty() || names.back() != other->symbol()))
      names.emplace_back(other->symbol());
  }
  return names;
}

}  // namespace

std::size_t Registry::attached(std::uint64_t id) const {
  const Registration* const registration = reported(id);
  std::size_t count = 0;
  if (registration == nullptr) return 0;
  std::set<std::tuple<std::uint32_t, std::uint32_t, std::string, std::string>> marks;
  for (const plan::Probe& probe : registration->probes) {
    const auto item = static_cast<std::uint32_t>(probe.item), module = static_cast<std::uint32_t>(probe.module);
    const symbols::Mark* const mark = mark_of(*modules_, registration->items[item], probe);
    count += mark == nullptr || marks.emplace(item, module, mark->provider, mark->name).second;
  }
  return count;
}

void Registry::read(std::uint64_t id, ubp_probe_stats& stats) const {
  const Registration* const its = reported(id);
  if (its == nullptr) return;
  const Registration& registration = *its;
  const Count count = total(registration, registration.records() ? standing() : Standing{});
  stats.recorded = count.recorded;
  stats.missed = count.missed;
  stats.dropped = count.dropped;
  stats.filtered = count.filtered;
  stats.hits = count.hits();
  stats.probepoints = registration.points;
  stats.probes = registration.probes.size();
  stats.refused = registration.refused.size();
  stats.pending = pending_of(registration.plan);
  stats.enabled = registration.is_enabled ? 1 : 0;
}

void Registry::read(ubp_stats& stats) const {
  Count all = gone_;
  const Standing records = standing();
  for (const Registration* const registration : reported()) all += total(*registration, records);
  report::XolStats xol;
  read_slot_stats(probepoints_.own_points(), xol);
  stats.probes = reported().size();
  stats.probepoints = probepoints_.armed_points();
  stats.recorded = all.recorded;
  stats.missed = all.missed + xol.taken_out;
  stats.dropped = all.dropped;
  stats.filtered = all.filtered;
  stats.hits = all.hits() + xol.taken_out;
  stats.slot_hits = xol.hits;
  stats.misses = xol.misses;
  stats.refills = xol.refills;
  stats.evictions = xol.evictions;
  stats.area_bytes = xol.area_bytes;
  stats.threads_seen = xol.threads_seen;
  stats.synchronisations = probepoints_.synchronisations();
  const report::OptimisedStats optimised = optimised_stats(probepoints_.standing(), read_counters(Counter::kJumped));
  stats.optimised_probepoints = optimised.probepoints;
  stats.optimised_hits = optimised.hits;
}

std::size_t Registry::problems(std::uint64_t id) const {
  const Registration* const registration = reported(id);
  return registration != nullptr ? registration->forgiven.size() + registration->refused.size() : 0;
}

std::optional<Problem> Registry::problem(std::uint64_t id, std::size_t index) const {
  const Registration& registration = *registrations_.at(id);
  if (index >= problems(id)) return std::nullopt;
  if (index < registration.forgiven.size()) return problem_of(registration.forgiven[index]);
  return problem_of(registration.refused[index - registration.forgiven.size()]);
}

std::vector<Problem> Registry::waiting(std::uint64_t id) const {
  std::vector<Problem> found;
  const Registration* const registration = reported(id);
  if (registration == nullptr || registration->plan == nullptr) return found;
  for (const plan::Mistake& mistake : registration->plan->waiting()) found.push_back(problem_of(mistake));
  return found;
}

report::OptimisedStats Registry::optimised_stats(const Probepoints::Standing& standing,
                                                 const std::vector<std::uint64_t>& hits) const {
  report::OptimisedStats stats;
  if (!probepoints_.is_started() || probepoints_.detours().mode() == Optimize::kNever) return stats;
  stats.hits = std::accumulate(hits.begin(), hits.end(), std::uint64_t{0});
  stats.detour_bytes = probepoints_.detours().used_bytes();
  for (std::size_t state = 0; state < kJumpStates; ++state) {
    const std::string_view reason = tier_reason(static_cast<JumpState>(state));
    const std::uint64_t points = standing.states[state];
    if (reason == kJumpTier) stats.probepoints += points;
    if (points != 0 && !reason.empty() && reason != kJumpTier) stats.left.emplace_back(reason, points);
  }
  return stats;
}

report::Summary Registry::summary(const std::string& program, const Probepoints::Standing& standing,
                                  bool lists_all) const {
  report::Summary summary;
  summary.version = kVersion;
  summary.program = program;
  summary.xol.policy = xol::policy_name(config_.policy);
  summary.xol.slots_per_thread = config_.slots;
  if (!probepoints_.is_started()) return summary;
  const auto& modules = modules_->all();
  read_slot_stats(probepoints_.own_points(), summary.xol);
  std::vector<std::uint64_t> recorded = read_counters(Counter::kTrapped);
  const std::vector<std::uint64_t> none(recorded.size());
  const std::vector<std::uint64_t> missed = has_consumers_ ? read_counters(Counter::kMissed) : none;
  const std::vector<std::uint64_t> optimised =
      probepoints_.detours().mode() != Optimize::kNever ? read_counters(Counter::kJumped) : none;
  for (std::size_t index = 0; index < recorded.size(); ++index) {
    (probepoints_.is_own(static_cast<std::uint32_t>(index)) ? summary.traps.runtime : summary.traps.hits) +=
        recorded[index] + missed[index];
  }
  summary.traps.runtime += read_own_traps();
  summary.traps.cost_ns = measure_hit_ns();
  for (std::size_t index = 0; index < recorded.size(); ++index) recorded[index] += optimised[index];
  summary.optimised = optimised_stats(standing, optimised);
  report::Totals& totals = summary.totals;
  totals.probepoints_armed = standing.armed_points;
  totals.recorded = gone_.recorded;
  totals.missed = gone_.missed + summary.xol.taken_out;
  totals.filtered = gone_.filtered;
  totals.dropped = gone_.dropped;
  std::size_t rows = 0;
  for (const Registration* const registration : reported()) rows += registration->probes.size();
  const bool leaves_out = !lists_all && rows > report::kMaxRowsWithoutHits;
  for (const Registration* const registration : reported()) {
    for (const plan::Refused& refused : registration->refused) {
      summary.refusals.push_back({modules[refused.module].name, refused.symbol, refused.address, refused.reason});
    }
    totals.refused += registration->refused.size();
    totals.probes_requested += registration->refused.size() + registration->probes.size();
    totals.pending += pending_of(registration->plan);
    if (registration->counter != 0 && registration->returns == nullptr) {
      const Count count = action_count(registration->counter) - registration->counter_base;
      totals.filtered += count.filtered;
      totals.dropped += count.dropped;
      totals.recorded -= count.filtered + count.dropped;  // its probepoints' hits, below
    }
    if (!leaves_out) summary.probes.reserve(summary.probes.size() + registration->probes.size());
    std::set<std::uint32_t> searched;  // modules
    for (const plan::Probe& probe : registration->probes) {
      const auto* symbol = std::get_if<language::SymbolTarget>(&registration->items[probe.item].target);
      if (symbol != nullptr && !symbol->quoted && symbol->pattern == "*") searched.insert(probe.module);
    }
    for (const std::uint32_t module : searched) {
      if (auto part = coverage_of(*modules_, module)) summary.coverage.push_back(std::move(*part));
    }
    std::map<std::tuple<std::string, std::uint32_t, std::uint64_t>, std::size_t>
        late_rows;  // path, item, address -> row
    for (std::size_t i = 0; i < registration->probes.size(); ++i) {
      const plan::Probe& probe = registration->probes[i];
      const std::uint32_t index = index_of(registration->runs, probe.point);
      std::optional<CallCount> calls;
      if (registration->returns != nullptr) calls = calls_at(*registration, i);
      const Count count =
          calls ? calls->returns : count_at(*registration, probe.point, {recorded[index], 0, missed[index], 0});
      const std::uint64_t hits = count.hits();
      totals.recorded += count.recorded;
      totals.filtered += count.filtered;
      totals.missed += count.missed;
      totals.dropped += count.dropped;
      const bool is_late = probe.module >= loaded_modules_;
      if (leaves_out && hits == 0 && !is_late) {
        ++summary.unlisted;
        continue;
      }
      const std::uint64_t address = address_of(*modules_, probe);
      if (is_late) {  // one that came back elsewhere is one row still
        const auto [row, is_new] =
            late_rows.try_emplace({modules[probe.module].path, probe.item, address}, summary.probes.size());
        if (!is_new) {
          summary.probes[row->second].hits += hits;
          summary.probes[row->second].entries += calls ? calls->entries : 0;
          summary.probes[row->second].left += calls ? calls->left : 0;
          continue;
        }
      }
      const language::Item& item = registration->items[probe.item];
      summary.probes.push_back({item.text, language::kind_name(item.kind), modules[probe.module].name,
                                symbol_of(*modules_, probe), address, hits, standing.tier_name(index),
                                aliases_of(*modules_, probe), calls.has_value(), calls ? calls->entries : 0,
                                calls ? calls->left : 0});
    }
  }
  totals.hits = totals.recorded + totals.filtered + totals.missed + totals.dropped;
  return summary;
}

std::string Registry::costs(std::uint64_t id) const {
  const auto ms = [](std::int64_t ns) { return static_cast<double>(ns) / 1e6; };
  const Registration& registration = *registrations_.at(id);
  const std::uint64_t bytes = arena_bytes() + probepoints_.table_bytes() +
                              registration.points * (sizeof(std::uint64_t) + sizeof(std::uint16_t));
  std::string text = fmt::format(
      "{} probepoints: resolve {:.2f} ms, decode {:.2f} ms, slots and table {:.2f} ms, arm {:.2f} ms; {:.1f} bytes a probepoint "
      "(one counting thread)",
      registration.points, ms(registration.resolve_ns), ms(registration.decode_ns), ms(registration.prepare_ns),
      ms(arm_ns_), static_cast<double>(bytes) / std::max(registration.points, 1U));
  const report::OptimisedStats optimised = optimised_stats(probepoints_.standing(), {});
  if (probepoints_.detours().mode() != Optimize::kNever)
    text += fmt::format("; {} reached by jumps", optimised.probepoints);
  for (const auto& [reason, count] : optimised.left) text += fmt::format(", {} {}", count, reason);
  return text;
}

}  // namespace ubp::runtime
