// Registrations of returns: their entries and exits, and what each function has counted. See consumers/returns.h.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/registry/registry.h"
#include "runtime/report/report.h"
#include "xol/assert.h"

namespace ubp::runtime {

using trap::Counter;

// What hits refer to: never freed, for a task's list may hold it for as long as it likes.
struct Registry::Returns {
  ReturnOwner owner{.generation = 1, .followed = nullptr};
  std::deque<ReturnFunction> functions;
  std::deque<ReturnExit> exits;
  std::deque<std::vector<CodeSpan>> spans;
  std::deque<CodeSpans> followed;

  void follow(const std::vector<plan::CodeRange>& ranges) {
    std::vector<CodeSpan> all = spans.empty() ? std::vector<CodeSpan>{} : spans.back();
    for (const plan::CodeRange& range : ranges) all.push_back({range.begin, range.end});
    std::sort(all.begin(), all.end(), [](const CodeSpan& a, const CodeSpan& b) { return a.begin < b.begin; });
    spans.push_back(std::move(all));
    followed.push_back({spans.back().data(), spans.back().size()});
    __atomic_store_n(&owner.followed, &followed.back(), __ATOMIC_RELEASE);  // pairs with is_followed()
  }
};

bool Registry::want_returns(Registration& registration, Problem& problem) {
  if (registration.records()) {
    problem.status = UBP_E_INVALID;
    problem.message = "returns can not be recorded; count them, or consume them";
    return false;
  }
  const Request& request = registration.request;
  const bool keeps = request.family != nullptr || request.keeps_calls;
  const auto goroutine_word = modules_->goroutine_word();
  if (!make_call_stacks(keeps) || (goroutine_word && !make_goroutine_lists(*goroutine_word, keeps))) {
    problem.status = UBP_E_NO_MEMORY;
    problem.message = "cannot get address space for calls";
    return false;
  }
  static auto& all = *new std::deque<Returns>;
  registration.returns = &all.emplace_back();
  ReturnOwner& owner = registration.returns->owner;
  owner.family = request.family != nullptr ? request.family : keeps ? &owner : nullptr;
  owner.keeps_arguments = request.keeps_arguments;
  owner.is_net = request.is_net;
  owner.entered = request.entered;
  owner.entered_data = request.entered_data;
  owner.is_for_other_hits = request.is_for_other_hits;
  registration.returns->follow({});
  return true;
}

const ReturnOwner* Registry::owner_of_calls(std::uint64_t id) const {
  const auto found = registrations_.find(id);
  return found != registrations_.end() && found->second->returns != nullptr ? &found->second->returns->owner : nullptr;
}

std::optional<std::string> Registry::why_no_calls(std::uint64_t id, const std::string& build_id,
                                                  std::uint64_t entry) const {
  Registration& registration = *registrations_.at(id);
  for (std::size_t& i = registration.entered_probes; i < registration.probes.size(); ++i) {
    const plan::Probe& probe = registration.probes[i];
    const auto module = static_cast<std::uint32_t>(probe.module);
    registration.entries.emplace(address_of(*modules_, probe), Registration::Entry{module, std::nullopt});
  }
  for (std::size_t& i = registration.entered_refused; i < registration.refused.size(); ++i)
    registration.entries.emplace(registration.refused[i].address,
                                 Registration::Entry{registration.refused[i].module, i});
  std::optional<std::string> why = "its function's entry is not known";
  const auto [first, last] = registration.entries.equal_range(entry);
  for (auto its = first; its != last; ++its) {
    const auto& [module, refused] = its->second;
    if (!modules_->is_present(module) || modules_->all()[module].build_id != build_id) continue;
    if (!refused) return std::nullopt;
    why = registration.refused[*refused].reason;
  }
  return why;
}

// What net times are to be without. After arm_own().
void Registry::measure_traps() {
  trap::Tasks& tasks = trap::g_process.tasks;
  if (tasks.trap_ticks == 0)
    tasks.trap_ticks = static_cast<std::uint64_t>(measure_hit_ns() / static_cast<double>(tasks.ns_per_tick) * 0x1p32);
}

// The counters of a function: two that stand together. 0: there are none left.
std::uint32_t Registry::take_pair() {
  if (!free_pairs_.empty()) {
    const std::uint32_t pair = free_pairs_.back();
    free_pairs_.pop_back();
    return pair;
  }
  if (end_of_counters_ - next_counter_ < 2) return 0;
  next_counter_ += 2;
  return next_counter_ - 2;
}

// A function that finds too little stack asks for more, and begins again.
void Registry::warn_of_go(const Registration& registration, std::size_t known) {
  std::uint32_t last = ~std::uint32_t{0};
  for (std::size_t i = known; i < registration.probes.size(); ++i) {
    const auto module = static_cast<std::uint32_t>(registration.probes[i].module);
    if (std::exchange(last, module) == module || !looked_for_go_.insert(module).second) continue;
    if (!modules_->has_go_code(module)) continue;
    report::say(report::Level::kWarning,
                fmt::format("{} has Go code: a call that asks for more stack counts as one more, which was left",
                            modules_->all()[module].name));
  }
}

// Of the probes from this one on, which the plan has just found, and of its exits: who is called at which point.
void Registry::watch_returns(std::uint64_t id, Registration& registration, std::size_t known) {
  Returns& returns = *registration.returns;
  warn_of_go(registration, known);
  returns.follow(registration.plan->followed());
  const ubp::runtime::Consumer base = consumer_of(id, registration);
  std::vector<Consumer> exits, entries;
  const auto add = [&](std::vector<Consumer>& to, std::uint32_t point, std::uint32_t counter, ubp_consumer function,
                       const void* data) {
    Consumer consumer = base;
    consumer.action.function = function;
    consumer.action.data = const_cast<void*>(data);
    consumer.counter_offset = from_jumped(counter);
    consumer.point = index_of(registration.runs, point);
    to.push_back(consumer);
  };
  for (std::size_t i = known; i < registration.probes.size(); ++i) {
    const plan::Probe& probe = registration.probes[i];
    if (i != known && probe.point == registration.probes[i - 1].point && !registration.calls.empty() &&
        registration.calls.back().probe.point == probe.point) {  // by another item
      registration.calls.push_back(registration.calls.back());
      registration.calls.back().probe = probe;
      continue;
    }
    const std::uint32_t pair = take_pair();
    if (pair == 0) {
      const auto item = static_cast<std::uint32_t>(probe.item), module = static_cast<std::uint32_t>(probe.module);
      registration.refused.push_back({item, module, address_of(*modules_, probe), symbol_of(*modules_, probe),
                                      plan::reason_text(plan::Reason::kNoRoom, decoder::Refusal::kNone, "")});
      continue;
    }
    const std::string_view symbol = modules_->table_of(probe.module).functions()[probe.function].symbol();
    Consumer told = base;
    told.action = registration.request.action;
    told.action.seen = returns.owner.family != nullptr ? Action::kCall : Action::kReturn;
    told.counter_offset = from_jumped(pair + 1);
    told.point = index_of(registration.runs, probe.point);
    const ReturnFunction& function = returns.functions.emplace_back(
        ReturnFunction{&returns.owner, told, address_of(*modules_, probe) + modules_->all()[probe.module].bias, pair,
                       symbol == "vfork" || symbol == "__vfork"});
    add(entries, probe.point, pair, &note_entry, &function);
    registration.calls.push_back({probe, pair, call_count(pair)});
  }
  const auto kept = std::remove_if(registration.probes.begin() + static_cast<std::ptrdiff_t>(known),
                                   registration.probes.end(), [&](const plan::Probe& probe) {
                                     return std::none_of(entries.begin(), entries.end(), [&](const Consumer& entry) {
                                       return entry.point == index_of(registration.runs, probe.point);
                                     });
                                   });
  registration.probes.erase(kept, registration.probes.end());
  for (const plan::Exit& exit : registration.plan->exits()) {
    const ReturnExit& its = returns.exits.emplace_back(
        ReturnExit{&returns.owner, exit.exit.kind, exit.exit.condition, exit.is_followed, exit.exit.operand,
                   exit.point.next(), exit.low, exit.high, exit.is_in_part});
    add(exits, exit.number, registration.counter, &note_exit, &its);
  }
  // An entry that is an exit too: the call is noted first.
  const auto by_point = [](const Consumer& a, const Consumer& b) { return a.point < b.point; };
  std::sort(exits.begin(), exits.end(), by_point);
  const auto is_exit = [&](const Consumer& entry) {
    return std::binary_search(exits.begin(), exits.end(), entry, by_point);
  };
  std::stable_partition(entries.begin(), entries.end(), is_exit);
  const auto alone = std::partition_point(entries.begin(), entries.end(), is_exit);
  std::vector<Consumer>& watched = registration.watched;
  watched.insert(watched.end(), entries.begin(), alone);
  watched.insert(watched.end(), exits.begin(), exits.end());
  watched.insert(watched.end(), alone, entries.end());
}

// As note_entry and note_exit may meet them from here on: exits before the entries that lead to them.
void Registry::add_consumers(std::uint64_t id, Registration& registration, std::size_t first_watched,
                             const Runs& runs) {
  if (!registration.acts()) return;
  if (registration.returns == nullptr) return consumers_.add(runs, consumer_of(id, registration));
  for (std::size_t i = first_watched; i < registration.watched.size(); ++i) consumers_.add(registration.watched[i]);
}

// What was noted before is nobody's from here on.
void Registry::change_generation(Registration& registration) {
  if (registration.returns == nullptr) return;
  std::uint16_t& generation = registration.returns->owner.generation;
  __atomic_store_n(&generation, static_cast<std::uint16_t>(generation + 1), __ATOMIC_RELEASE);
}

// A registration's points as one change, or of returns as two: `inner` are those that are armed first and taken out
// last.
void Registry::split(const Registration& registration, const Runs& runs, std::vector<std::uint32_t>& inner,
                     std::vector<std::uint32_t>& outer) const {
  std::vector<std::uint32_t> entries;
  for (const Consumer& consumer : registration.watched) {
    if (consumer.action.function == &note_entry) entries.push_back(consumer.point);
  }
  std::sort(entries.begin(), entries.end());
  for_each_index(runs, [&](std::uint32_t index) {
    const bool is_inner = registration.returns != nullptr && !std::binary_search(entries.begin(), entries.end(), index);
    (is_inner ? inner : outer).push_back(index);
  });
}

Registry::CallCount Registry::call_count(std::uint32_t pair) const {
  CallCount count;
  count.returns = action_count(pair + 1);
  count.returns.missed += read_counter(Counter::kMissed, pair);
  count.entries = read_counter(Counter::kPerformed, pair);
  count.left = read_counter(Counter::kLeft, pair);
  return count;
}

// Since the counters were given to the probe.
Registry::CallCount Registry::calls_at(const Registration& registration, std::size_t probe) const {
  const Calls& calls = registration.calls[probe];
  const CallCount now = call_count(calls.pair);
  return {now.returns - calls.base.returns, now.entries - calls.base.entries, now.left - calls.base.left};
}

Registry::Count Registry::returns_of(const Registration& registration) const {
  Count sum;
  for (std::size_t probe = 0; probe < registration.calls.size(); ++probe) sum += calls_at(registration, probe).returns;
  return sum;
}

void Registry::give_back_pairs(Registration& registration) {
  std::uint32_t last = 0;
  for (const Calls& calls : registration.calls) {
    if (std::exchange(last, calls.pair) != calls.pair) free_pairs_.push_back(calls.pair);
  }
  registration.calls.clear();
}

}  // namespace ubp::runtime
