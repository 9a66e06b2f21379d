// Registering and changing. See registry.h. What is counted and recorded: counts.cpp; modules that come and go:
// late_modules.cpp; reports: summary.cpp.
#include "runtime/registry/registry.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "runtime/arm/process_memory.h"
#include "runtime/base/stopwatch.h"
#include "runtime/report/report.h"
#include "runtime/symbols/while_modules_stay.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"
#include "runtime/trap/trap_state.h"
#include "xol/assert.h"

namespace ubp::runtime {

namespace {

// Room for the probepoints of modules that are loaded later, and of programs that embed UBP under UBP_PROBES.
constexpr std::size_t kLatePoints = 65536, kSparePoints = 4096;
constexpr std::uint32_t kMostConsumers = 65536;

template <typename T>
void append(std::vector<T>& to, std::vector<T>& from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
  from.clear();
}

}  // namespace

// What the specification came to; a problem: it is not to be registered.
std::optional<Problem> Registry::judge(plan::Plan& plan, Registration& registration,
                                       std::vector<plan::Mistake> mistakes) const {
  const bool forgives = registration.request.forgives_missing;
  if (!mistakes.empty() && !forgives) return problem_of(mistakes.front());
  const bool is_empty = plan.points().empty() && plan.refused().empty() && !plan.has_pending();
  if (is_empty && mistakes.empty() && !plan.items().empty()) {
    Problem problem{UBP_E_NOT_FOUND, {0, 0}, 0, 0, "", "", "every probe was excluded again; nothing is probed", ""};
    problem.is_excluded = true;
    return problem;
  }
  registration.forgiven = std::move(mistakes);
  return std::nullopt;
}

Problem Registry::problem_of(const plan::Mistake& mistake) const {
  Problem problem{UBP_E_NOT_FOUND, mistake.position, 0, 0, "", "", mistake.message, mistake.hint};
  problem.lacks_module = mistake.lacks_module;
  if (!mistake.refused) return problem;
  problem = problem_of(*mistake.refused);
  problem.position = mistake.position;
  problem.message = mistake.message;
  return problem;
}

Problem Registry::problem_of(const plan::Refused& refused) const {
  const symbols::Module& module = modules_->all()[refused.module];
  const ubp_status status = refused.reason.starts_with("no-room") ? UBP_E_NO_ROOM : UBP_E_REFUSED;
  return {status,          {0, 0},      refused.address + module.bias,
          refused.address, module.name, refused.symbol,
          refused.reason,  "",          refused.named};
}

std::optional<std::string> Registry::start(std::size_t probepoints, bool has_pending) {
  if (probepoints_.is_started()) return std::nullopt;
  ProbepointsConfig config = config_;
  const std::size_t needed = probepoints + (has_pending ? kLatePoints : kSparePoints);
  config.consumers = static_cast<std::uint32_t>(
      std::min<std::size_t>(kMostConsumers, std::max<std::size_t>(needed, config.probepoints)));
  config.probepoints = static_cast<std::uint32_t>(
      config.probepoints == 0 ? needed : std::max<std::size_t>(probepoints, config.probepoints));
  if (auto denied = probepoints_.start(config, *modules_)) return denied;
  next_counter_ = probepoints_.first_consumer_counter();
  end_of_counters_ = next_counter_ + config.consumers;
  consumers_.start(next_counter_, {[this](std::uint32_t index, bool has_consumers) {
                                     probepoints_.set_consumers(index, has_consumers);
                                   },
                                   [this] {
                                     if (probepoints_.detours().has_jumped()) probepoints_.synchronise();
                                   }});
  return std::nullopt;
}

void Registry::make_room_for(std::vector<language::Item> items, std::optional<std::uint32_t> module) {
  if (probepoints_.is_started() || config_.probepoints != 0) return;
  symbols::while_modules_stay([&] {
    modules_changed(false);
    plan::Plan plan(*modules_, std::move(items), module);
    plan.resolve([](std::size_t) {});
    config_.probepoints =
        static_cast<std::uint32_t>(plan.points().size() + (plan.has_pending() ? kLatePoints : kSparePoints));
  });
}

std::optional<std::uint64_t> Registry::prepare(std::vector<language::Item> items, std::optional<std::uint32_t> module,
                                               const Request& request, const std::function<void(std::size_t)>& progress,
                                               Problem& problem) {
  std::optional<std::uint64_t> id;
  // The modules' text and tables are read where they are mapped.
  symbols::while_modules_stay(
      [&] { id = prepare_beside_modules(std::move(items), module, request, progress, problem); });
  return id;
}

std::optional<std::uint64_t> Registry::prepare_beside_modules(std::vector<language::Item> items,
                                                              std::optional<std::uint32_t> module,
                                                              const Request& request,
                                                              const std::function<void(std::size_t)>& progress,
                                                              Problem& problem) {
  Stopwatch watch;
  auto kept = std::make_unique<Registration>();
  Registration& registration = *kept;
  registration.request = request;
  modules_changed(false);
  if (module && !modules_->is_present(*module)) {
    problem = {UBP_E_NOT_FOUND,
               {0, 0},
               0,
               0,
               "",
               "",
               fmt::format("{} has just been unloaded", modules_->all()[*module].path),
               ""};
    return std::nullopt;
  }
  registration.plan = std::make_unique<plan::Plan>(*modules_, std::move(items), module);
  plan::Plan& plan = *registration.plan;
  if (request.action.needs.overrides) {
    if (trap::has_shadow_stack()) {
      problem.status = UBP_E_REFUSED;
      problem.message = "no call can be overridden where the processor keeps a shadow stack";
      return std::nullopt;
    }
    plan.want_calls();
  }
  plan.want_arguments(request.mark_arguments);
  if (config_.optimize != Optimize::kNever) plan.want_approaches();
  if (auto wrong = judge(plan, registration, plan.resolve(progress))) {
    problem = std::move(*wrong);
    return std::nullopt;
  }
  refuse_unwanted(plan, request);
  registration.decode_ns = plan.decode_ns();
  registration.resolve_ns = watch.lap_ns() - registration.decode_ns;
  if (!plan.probes().empty() || plan.has_pending()) {  // else all are refused, and functions' exits alone are left
    if (plan.has_pending()) probepoints_.watch_modules();
    if (auto denied = start(plan.points().size(), plan.has_pending())) {
      problem.status = UBP_E_SYSTEM;
      problem.message = std::move(*denied);
      return std::nullopt;
    }
    if (request.wants_returns && !want_returns(registration, problem)) return std::nullopt;
    if (registration.acts() && !give_counter(registration, problem)) return std::nullopt;
    take(next_id_, registration);
  }
  append(registration.refused, plan.refused());
  if (registration.points == 0 && !plan.has_pending() && !registration.refused.empty()) {
    problem = problem_of(registration.refused.front());
    // What an item's block asks for is said with the item's place; it is a mistake of the text.
    if (problem.message.starts_with("no-argument"))
      problem.position = plan.items()[registration.refused.front().item].position;
    take_counter(registration);
    return std::nullopt;
  }
  registration.items = plan.items();
  if (!plan.has_pending()) registration.plan.reset();
  registration.prepare_ns = watch.lap_ns();
  registrations_.emplace(next_id_, std::move(kept));
  return next_id_++;
}

void Registry::refuse_unwanted(plan::Plan& plan, const Request& request) const {
  if (request.refuse == nullptr) return;
  std::set<std::uint32_t> probed;  // and not only exits
  for (const plan::Probe& probe : plan.probes()) probed.insert(probe.point - plan.first_point());
  plan.refuse_points([&](std::uint32_t point) -> std::optional<std::string> {
    if (request.wants_returns && !probed.contains(point)) return std::nullopt;
    const std::uint64_t address = plan.points()[point].address;
    const symbols::Module& module = modules_->all()[modules_->module_at(address).value_or(0)];
    const auto detail = request.refuse(module, address - module.bias);
    if (!detail) return std::nullopt;
    return plan::reason_text(plan::Reason::kNoArgument, decoder::Refusal::kNone, *detail);
  });
}

// Takes what the plan has just resolved into the table and the registration.
void Registry::take(std::uint64_t id, Registration& registration) {
  plan::Plan& plan = *registration.plan;
  const Consumer consumer = consumer_of(id, registration);
  Runs runs = probepoints_.add(plan, *modules_, registration.acts() ? &consumer : nullptr);
  if (const auto unwatched = probepoints_.take_unwatched(); !unwatched.empty()) {
    const symbols::Module& first = modules_->all()[modules_->module_at(unwatched.front()).value_or(0)];
    report::say(
        report::Level::kWarning,
        fmt::format(
            "{} system calls of the program cannot be watched, first {}:0x{:x}: a thread that blocks SIGTRAP there "
            "dies at its next probe",
            unwatched.size(), first.name, unwatched.front() - first.bias));
  }
  append(registration.runs, runs);
  registration.points = plan.first_point() + static_cast<std::uint32_t>(plan.points().size());
  const std::size_t known = registration.probes.size();
  append(registration.probes, plan.probes());
  append(registration.refused, plan.refused());
  note_semaphores(registration, known);
  const std::size_t known_calls = registration.calls.size();
  if (registration.returns != nullptr) watch_returns(id, registration, known);
  if (registration.request.name_points == nullptr) return;
  std::vector<NamedPoint> named;
  for (std::size_t i = known; i < registration.probes.size(); ++i) {
    const plan::Probe& probe = registration.probes[i];
    const symbols::Module& module = modules_->all()[probe.module];
    const std::uint32_t counter =
        registration.returns == nullptr ? registration.counter : registration.calls[known_calls + (i - known)].pair + 1;
    named.push_back({index_of(registration.runs, probe.point), counter, static_cast<std::uint32_t>(probe.item),
                     module.name, symbol_of(*modules_, probe), address_of(*modules_, probe), &module});
    const symbols::Mark* const mark = mark_of(*modules_, plan.items()[probe.item], probe);
    if (mark == nullptr) continue;
    named.back().mark = fmt::format("{}:{}", mark->provider, mark->name);
    for (const symbols::MarkArgument& argument : mark->arguments)
      named.back().arguments.push_back(argument.place.at(module.bias));
  }
  registration.request.name_points(named);
}

bool Registry::give_counter(Registration& registration, Problem& problem) {
  const bool records = registration.records();
  if (records && !record::make_rings()) {
    problem.status = UBP_E_NO_MEMORY;
    problem.message = "cannot get address space for records";
    return false;
  }
  if (!free_counters_.empty()) {
    registration.counter = free_counters_.back();
    free_counters_.pop_back();
  } else if (next_counter_ < end_of_counters_) {
    registration.counter = next_counter_++;
  } else {
    problem.status = UBP_E_NO_ROOM;
    problem.message = "too many probes with consumers";
    return false;
  }
  has_consumers_ = true;
  leave_segment();                              // what they hit is to be missed
  if (records) registration.since = __rdtsc();  // a program may have made it a fault
  if (records) recorders_.insert_or_assign(registration.counter, next_id_);
  registration.counter_base = action_count(registration.counter);
  return true;
}

void Registry::take_counter(Registration& registration) {
  if (registration.counter == 0) return;
  UBP_ASSERT(registration.counter < next_counter_);
  free_counters_.push_back(registration.counter);
  recorders_.erase(registration.counter);
}

Consumer Registry::consumer_of(std::uint64_t id, const Registration& registration) const {
  Consumer consumer{
      registration.request.action, nullptr, from_jumped(registration.counter), handle_of(id), 0, nullptr, 0};
  consumer.handle = handle_of(registration.request.handle != 0 ? registration.request.handle : id);
  if (registration.returns != nullptr) {
    consumer.action.kind = ActionKind::kCall;
    consumer.action.needs.reads = true;
  }
  return consumer;
}

std::optional<std::string> Registry::apply(std::span<const Operation> operations) {
  struct Aim {
    Registration* registration;
    bool is_enabled, is_new = false, is_gone = false;
  };
  std::map<std::uint64_t, Aim> aims;
  for (const Operation& operation : operations) {
    const auto found = registrations_.find(operation.id);
    if (found == registrations_.end()) continue;
    Aim& aim = aims.try_emplace(operation.id, Aim{found->second.get(), found->second->is_enabled}).first->second;
    if (operation.kind == Operation::kRegister) aim.is_new = true;
    if (operation.kind == Operation::kUnregister) aim.is_gone = true;
    aim.is_enabled = !aim.is_gone && operation.kind != Operation::kDisable;
  }
  Stopwatch watch;
  // Of returns the exits are armed before the entries, and go after them.
  std::vector<std::uint32_t> first, uses, leaves, last;
  bool is_used = false;
  for (auto& [id, aim] : aims) {
    Registration& registration = *aim.registration;
    if (aim.is_enabled == registration.is_enabled) continue;
    change_generation(registration);
    if (!aim.is_enabled) {
      lower_semaphores(registration);
      split(registration, registration.runs, last, leaves);
      // First: otherwise commit() would choose a detour for it.
      if (registration.acts()) consumers_.remove(registration.runs, handle_of(id));
      continue;
    }
    is_used = probepoints_.is_started();  // else every item was forgiven, and there is nothing
    split(registration, registration.runs, first, uses);
    note_base(registration, registration.runs, 0);
    add_consumers(id, registration, 0, registration.runs);
  }
  if (is_used && probepoints_.has_unseen_threads()) leave_segment();
  auto denied = is_used ? probepoints_.arm_own() : std::nullopt;
  const bool has_net = std::any_of(aims.begin(), aims.end(), [](const auto& entry) {
    return entry.second.is_enabled && entry.second.registration->request.is_net;
  });
  if (has_net && is_used && !denied) measure_traps();
  if (!denied) denied = change_text(first, uses, leaves, last);
  for (auto& [id, aim] : aims) {
    Registration& registration = *aim.registration;
    const bool changes = aim.is_enabled != registration.is_enabled;
    if (!changes || !denied || !registration.acts()) continue;
    change_generation(registration);
    if (aim.is_enabled) {  // as it was
      consumers_.remove(registration.runs, handle_of(id));
    } else {
      add_consumers(id, registration, 0, registration.runs);
    }
  }
  consumers_.wait();
  const Standing records = standing();
  for (auto& [id, aim] : aims) {
    Registration& registration = *aim.registration;
    if (!denied && aim.is_enabled != registration.is_enabled) {
      if (!aim.is_enabled) note_done(registration);
      registration.is_enabled = aim.is_enabled;
    }
    if (registration.is_enabled) raise_semaphores(registration);
    if (denied ? !aim.is_new : !aim.is_gone) continue;
    gone_ += total(registration, records);
    take_counter(registration);
    give_back_pairs(registration);
    registrations_.erase(id);
  }
  arm_ns_ = watch.lap_ns();
  return denied;
}

// All of it or nothing; but what was to go last and cannot stays, and tells nobody.
std::optional<std::string> Registry::change_text(const std::vector<std::uint32_t>& first,
                                                 const std::vector<std::uint32_t>& uses,
                                                 const std::vector<std::uint32_t>& leaves,
                                                 const std::vector<std::uint32_t>& last) {
  if (!first.empty()) {
    if (auto denied = probepoints_.commit({first, {}})) return denied;
  }
  if (auto denied = probepoints_.commit({uses, leaves})) {
    if (!first.empty()) probepoints_.commit({{}, first});
    return denied;
  }
  if (!last.empty()) probepoints_.commit({{}, last});
  return std::nullopt;
}

std::optional<std::string> Registry::rest() {
  const bool is_used = std::any_of(registrations_.begin(), registrations_.end(),
                                   [](const auto& entry) { return entry.second->is_enabled; });
  return is_used ? std::nullopt : probepoints_.disarm_own();
}

std::optional<std::uint32_t> Registry::module_at(std::uint64_t address) {
  modules_changed(false);
  return modules_->module_at(address);
}

std::vector<std::uint64_t> Registry::ids(bool of_environment) const {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, registration] : registrations_) {
    if (registration->request.is_environment == of_environment) ids.push_back(id);
  }
  return ids;
}

void Registry::set_up_child() {
  probepoints_.set_up_child();
  gone_ = {};
  for (auto& [id, registration] : registrations_) {
    registration->base.clear();
    registration->done.clear();
    registration->counter_base = {};
    for (Calls& calls : registration->calls) calls.base = {};
    registration->drained = 0;
  }
}

}  // namespace ubp::runtime
