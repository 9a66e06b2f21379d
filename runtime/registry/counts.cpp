// What probes have counted and recorded. See registry.h.
#include <algorithm>

#include "runtime/arm/process_memory.h"
#include "runtime/registry/registry.h"
#include "runtime/trap/task.h"
#include "xol/assert.h"

namespace ubp::runtime {

using trap::Counter;
using trap::g_process;

std::uint64_t Registry::read_counter(Counter name, std::uint32_t index) {
  std::uint64_t sum = 0;
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) {
    const std::uint64_t* const counters = g_process.tasks.counters_of(block) + g_process.tasks.offset_of(name);
    sum += __atomic_load_n(&counters[index], __ATOMIC_RELAXED);  // its owner may still count
  }
  return sum;
}

Registry::Count Registry::point_count(std::uint32_t index) const {
  return {read_counter(Counter::kTrapped, index) + read_counter(Counter::kJumped, index), 0,
          read_counter(Counter::kMissed, index), 0};
}

Registry::Count Registry::action_count(std::uint32_t counter) const {
  Count count{read_counter(Counter::kPerformed, counter), read_counter(Counter::kFiltered, counter),
              read_counter(Counter::kMissed, counter), read_counter(Counter::kDropped, counter)};
  count.recorded -= count.filtered + count.dropped;
  count.filtered += read_counter(Counter::kSkipped, counter);
  return count;
}

std::vector<const Registry::Registration*> Registry::reported() const {
  std::vector<const Registration*> all;
  for (const auto& [id, registration] : registrations_) {
    if (is_reported(*registration)) all.push_back(registration.get());
  }
  return all;
}

std::vector<CountedItem> Registry::counted_items() const {
  std::vector<CountedItem> all;
  for (const Registration* const registration : reported()) {
    if (!registration->request.is_environment || registration->items.empty()) continue;
    const auto add = [&](const language::Item& item, CountedItem::Kind kind, std::uint32_t first) {
      all.push_back({item.position, item.probe == language::kBare, kind, first, 1});
    };
    for (const Calls& calls : registration->calls) {  // as call_count()
      const language::Item& item = registration->items[calls.probe.item];
      add(item, CountedItem::kAction, calls.pair + 1);
      add(item, CountedItem::kMissed, calls.pair);
    }
    if (registration->returns != nullptr) continue;
    if (registration->acts()) {
      add(registration->items.front(), CountedItem::kAction, registration->counter);
      continue;
    }
    std::vector<std::pair<std::size_t, std::uint32_t>> points;  // by item; two names may be of one point
    for (const plan::Probe& probe : registration->probes)
      points.emplace_back(probe.item, index_of(registration->runs, probe.point));
    std::sort(points.begin(), points.end());
    points.erase(std::unique(points.begin(), points.end()), points.end());
    std::size_t last = registration->items.size();
    for (const auto& [item, index] : points) {
      if (item == last && all.back().first + all.back().count == index) {
        ++all.back().count;
      } else {
        add(registration->items[item], CountedItem::kPoints, index);
      }
      last = item;
    }
  }
  return all;
}

std::vector<Registry::Count> Registry::counts(const Runs& runs) const {
  constexpr std::uint32_t kFew = 64;  // as many that looking for what is worth reading costs more than reading
  std::vector<Count> counts;
  for (const Run& run : runs) {
    if (run.count < kFew) {
      for (std::uint32_t i = 0; i < run.count; ++i) counts.push_back(point_count(run.first_index + i));
      continue;
    }
    const auto trapped = read_counters(Counter::kTrapped, run.first_index, run.count);
    const auto jumped = read_counters(Counter::kJumped, run.first_index, run.count);
    const auto missed = read_counters(Counter::kMissed, run.first_index, run.count);
    for (std::uint32_t i = 0; i < run.count; ++i) counts.push_back({trapped[i] + jumped[i], 0, missed[i], 0});
  }
  return counts;
}

// The probe counts from here on, at the points of these runs, the first of which is `point`.
void Registry::note_base(Registration& registration, const Runs& runs, std::uint32_t point) const {
  bool may_have_counted = false;
  for_each_index(runs, [&](std::uint32_t index) { may_have_counted |= probepoints_.may_have_counted(index); });
  if (!may_have_counted && registration.base.empty()) return;
  const std::vector<Count> now = counts(runs);
  registration.base.resize(registration.points);
  UBP_ASSERT(point + now.size() <= registration.base.size());
  std::copy(now.begin(), now.end(), registration.base.begin() + point);
}

// What it has counted up to here.
void Registry::note_done(Registration& registration) const {
  const std::vector<Count> now = counts(registration.runs);
  registration.done.resize(registration.points);
  UBP_ASSERT(now.size() <= registration.done.size());
  for (std::uint32_t point = 0; point < now.size(); ++point) {
    registration.done[point] += now[point] - (registration.base.empty() ? Count{} : registration.base[point]);
  }
}

Registry::Count Registry::count_at(const Registration& registration, std::uint32_t point, const Count& now) const {
  Count count = registration.done.empty() ? Count{} : registration.done[point];
  if (registration.is_enabled) count += now - (registration.base.empty() ? Count{} : registration.base[point]);
  return count;
}

Registry::Count Registry::total(const Registration& registration, const Standing& standing) const {
  if (!is_reported(registration)) return {};
  if (registration.returns != nullptr) return returns_of(registration);
  if (registration.counter != 0) {
    Count count = action_count(registration.counter) - registration.counter_base;
    if (registration.records()) {  // detours count no record but by the ring's head
      const auto found = standing.find(&registration);
      count.recorded = registration.drained + (found != standing.end() ? found->second : 0);
    }
    return count;
  }
  Count sum;
  const std::vector<Count> now =
      registration.is_enabled ? counts(registration.runs) : std::vector<Count>(registration.points);
  for (std::uint32_t point = 0; point < now.size(); ++point) sum += count_at(registration, point, now[point]);
  return sum;
}

Registry::Registration* Registry::recorder_of(const record::Record& record, std::uint64_t& id) const {
  const auto found = recorders_.find(record.counter);
  const auto its = found != recorders_.end() ? registrations_.find(found->second) : registrations_.end();
  if (its == registrations_.end()) return nullptr;
  id = its->first;
  Registration& registration = *its->second;
  // Else it is an earlier probe's, whose counter it had; or of one that was on its way when that probe went.
  const bool is_its = record.time >= registration.since &&
                      std::any_of(registration.runs.begin(), registration.runs.end(),
                                  [&](const Run& run) { return record.point - run.first_index < run.count; });
  return is_its ? &registration : nullptr;
}

Registry::Standing Registry::standing() const {
  Standing standing;
  std::uint64_t id = 0;
  if (recorders_.empty()) return standing;
  record::read(false, [&](const record::Record& record) {
    if (const Registration* const registration = recorder_of(record, id)) ++standing[registration];
  });
  return standing;
}

std::vector<ubp_record> Registry::drain() {
  std::vector<ubp_record> records;
  std::size_t count = 0;
  record::read(false, [&](const record::Record&) { ++count; });
  records.reserve(count + record::kRingRecords);  // before any is taken
  const record::Clock clock;
  record::read(true, [&](const record::Record& record) {
    std::uint64_t id = 0;
    Registration* const registration = recorder_of(record, id);
    if (registration == nullptr) return;
    ++registration->drained;
    records.push_back({clock.nanoseconds(record.time), probepoints_.last_address(record.point), handle_of(id),
                       record.task & ~(trap::kGuest | trap::kOtherNamespace), 0});
  });
  std::stable_sort(records.begin(), records.end(),
                   [](const ubp_record& a, const ubp_record& b) { return a.time_ns < b.time_ns; });
  return records;
}

}  // namespace ubp::runtime
