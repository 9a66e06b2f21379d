// The probes of this process: what was asked for, what became of it, what was counted. One for the process; behind the
// C interface (api.cpp), through which the preload entry registers UBP_PROBES too.
//
// Every change is a list of operations that take effect together: an int3 goes in after the consumers it leads to, and
// consumers go after the int3s that lead to them.
//
// Context: normal, under the interface's lock. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/arm/probepoints.h"
#include "runtime/consumers/consumers.h"
#include "runtime/consumers/returns.h"
#include "runtime/include/ubp.h"
#include "runtime/record/rings.h"
#include "runtime/report/summary.h"

namespace ubp::runtime {

inline constexpr const char* kVersion = "0.1.0";

// What a caller is told of one mistake or refusal.
struct Problem {
  ubp_status status = UBP_OK;
  language::Position position{0, 0};
  std::uint64_t address = 0, elf_address = 0;  // run-time; in its module
  std::string module, symbol, message, hint;
  bool is_exact = false;         // the item meant this very address
  language::Position end{0, 0};  // behind what is wrong; line 0: not known
  std::string excerpt{};         // the line it is in, and a marker below
  bool lacks_module = false;     // of UBP_E_NOT_FOUND: the module is not loaded
  bool is_excluded = false;      // likewise: all that was found was excluded again
};

// A probepoint of a registration: by which of its items, and what it is called.
struct NamedPoint {
  std::uint32_t point;
  std::uint32_t action;  // runtime::counter_of() its consumer
  std::uint32_t item;
  std::string module, symbol;
  std::uint64_t address = 0;             // ELF virtual address
  const symbols::Module* its = nullptr;  // the module, for the time of the call
  // Of a static mark: "provider:name", and where its arguments are at run time.
  std::string mark{};
  std::vector<symbols::ValuePlace> arguments{};
};

// What counts for an item of UBP_PROBES: counters of one name, one after the other.
struct CountedItem {
  enum Kind : std::uint8_t { kPoints, kAction, kMissed };  // its probepoints; its action's; what more it has missed

  language::Position position;  // of the item
  bool is_bare;                 // it has no block
  Kind kind;
  std::uint32_t first, count;
};

struct Request {
  Action action;
  bool forgives_missing = false;     // what is not found is left out
  bool wants_returns = false;        // all of its items are of Kind::kReturn or kCall
  bool is_environment = false;       // UBP_PROBES: lives until the process ends
  std::uint64_t mark_arguments = 0;  // that its static marks must have, bit 0 for the first
  // Why a place, by its module and its ELF address, is not to be probed; null: nobody asks.
  std::function<std::optional<std::string>(const symbols::Module& module, std::uint64_t address)> refuse{};
  std::function<void(const std::vector<NamedPoint>&)> name_points{};  // called before they are armed; null: nobody asks
  std::uint64_t handle = 0;  // what consumers are told to be called for; 0: its own
  // Of returns: what is kept of calls from their entries on. family: whose calls are seen as within each other; null:
  // nothing. entered: see ReturnOwner.
  const void* family = nullptr;
  bool keeps_calls = false;  // also where it has no family: then its own calls are one
  bool keeps_arguments = false;
  bool is_net = false;  // times are without those of its probes
  ubp_consumer entered = nullptr;
  void* entered_data = nullptr;
  // It is there for another request's hits, which what it keeps of calls is for: nothing of it is reported.
  bool is_for_other_hits = false;
};

// What the C interface calls a probe.
inline ubp_probe* handle_of(std::uint64_t id) { return reinterpret_cast<ubp_probe*>(id); }

struct Operation {
  enum Kind : std::uint8_t { kRegister, kEnable, kDisable, kUnregister } kind;
  std::uint64_t id;
};

class Registry {
 public:
  // The first probe starts the probepoints with this, and with more room where that takes more.
  void configure(const ProbepointsConfig& config) { config_ = config; }
  const ProbepointsConfig& config() const { return config_; }
  // Keeps the modules in step with the dynamic linker from the first probe on.
  void watch_modules() { probepoints_.watch_modules(); }
  // Calls `follow` with the modules as they are now, and from then on whenever they have changed, until `life` is over.
  void follow_modules(std::weak_ptr<const void> life, std::function<void(const plan::Modules&)> follow);

  // Before the first of several probes: room for all that these items stand for.
  void make_room_for(std::vector<language::Item> items, std::optional<std::uint32_t> module);
  // Resolves items and prepares their probepoints; nothing is armed. Returns the new probe's id, or what is wrong: then
  // nothing has changed. No items are a probe that never hits. module: see plan::Plan. progress(n): called now and then
  // with the number found so far.
  std::optional<std::uint64_t> prepare(std::vector<language::Item> items, std::optional<std::uint32_t> module,
                                       const Request& request, const std::function<void(std::size_t)>& progress,
                                       Problem& problem);
  // Makes all of the operations, or none: then the probes that they register are gone. Unknown ids are left out.
  std::optional<std::string> apply(std::span<const Operation> operations);

  bool is_known(std::uint64_t id) const { return registrations_.contains(id); }
  // The module at a run-time address, as things are now.
  std::optional<std::uint32_t> module_at(std::uint64_t address);
  // Of a registration of returns: who keeps what is kept of its calls, and why those of the function at this entry are
  // not among them; nothing: they are.
  const ReturnOwner* owner_of_calls(std::uint64_t id) const;
  std::optional<std::string> why_no_calls(std::uint64_t id, const std::string& build_id, std::uint64_t entry) const;
  const symbols::Module& module(std::uint32_t index) const { return modules_->all()[index]; }

  // How many probes a registration has, the places of a static mark as one.
  std::size_t attached(std::uint64_t id) const;
  void read(std::uint64_t id, ubp_probe_stats& stats) const;
  void read(ubp_stats& stats) const;
  // Takes the records, sorted by time.
  std::vector<ubp_record> drain();
  // What it did not get: how many, and each.
  std::size_t problems(std::uint64_t id) const;
  std::optional<Problem> problem(std::uint64_t id, std::size_t index) const;
  // What waits for modules, though there are such as its name fits.
  std::vector<Problem> waiting(std::uint64_t id) const;
  // How things stand, and the summary of it. Between the two, restore() may put the text back.
  Probepoints::Standing probepoints_standing() const { return probepoints_.standing(); }
  // lists_all: with the probes that a report leaves out.
  report::Summary summary(const std::string& program, const Probepoints::Standing& standing, bool lists_all) const;
  // At the end of the process: see Probepoints.
  std::optional<std::string> restore() {
    lower_all_semaphores();
    return probepoints_.restore();
  }
  std::vector<std::uint64_t> ids(bool of_environment) const;
  // Of all items of UBP_PROBES, as things are now; and who is told when modules have brought more.
  std::vector<CountedItem> counted_items() const;
  void when_more_is_counted(std::function<void()> tell) { more_is_counted_ = std::move(tell); }
  bool is_armed() const { return probepoints_.is_own_armed(); }

  // The dynamic linker has mapped or unmapped modules: arms the pending probes in new ones, forgets those of modules
  // that are gone. just_mapped: called by the linker itself, before what is new is relocated.
  void modules_changed(bool just_mapped);
  // Takes the runtime's own int3s out, when no probe is left.
  std::optional<std::string> rest();
  // A probepoint has been hit often.
  void promote(std::uint32_t index) { probepoints_.promote(index, *modules_); }
  // From now on every hit is a trap.
  void leave_jump_tier() { probepoints_.leave_jump_tier(); }
  void leave_segment() {
    if (modules_) probepoints_.leave_segment(*modules_);
  }
  // A forked child counts from zero.
  void set_up_child();
  // For UBP_LOG=info: what the registration cost.
  std::string costs(std::uint64_t id) const;

 private:
  struct Count {
    std::uint64_t recorded = 0, filtered = 0, missed = 0, dropped = 0;
    std::uint64_t hits() const { return recorded + filtered + missed + dropped; }
    Count& operator+=(const Count& other) {
      recorded += other.recorded, filtered += other.filtered;
      missed += other.missed, dropped += other.dropped;
      return *this;
    }
    Count operator-(const Count& other) const {
      return {recorded - other.recorded, filtered - other.filtered, missed - other.missed, dropped - other.dropped};
    }
    bool operator==(const Count&) const = default;
  };
  // Of a static mark: whether this registration is counted in it.
  struct Semaphore {
    std::uint32_t module;
    std::uint64_t address;  // ELF virtual address
    bool is_raised = false;
  };
  // Of one function: what returned, and of the calls how many began and how many were left otherwise.
  struct CallCount {
    Count returns;
    std::uint64_t entries = 0, left = 0;
  };
  struct Calls {
    plan::Probe probe;
    std::uint32_t pair;  // its two counters: ReturnFunction::entries, and that of the returns
    CallCount base;      // what they held when they were given
  };
  struct Returns;  // returns.cpp
  struct Registration {
    std::vector<language::Item> items;
    std::vector<plan::Probe> probes;  // their points are numbered within the registration
    std::vector<plan::Refused> refused;
    std::vector<plan::Mistake> forgiven;
    std::vector<Semaphore> semaphores;  // no two alike
    Runs runs;
    std::uint32_t points = 0;
    std::unique_ptr<plan::Plan> plan;  // kept while items wait for modules
    Request request;
    std::uint32_t counter = 0;  // the action's, and what it held when it was given; 0: none
    Count counter_base;
    std::uint64_t since = 0,
                  drained = 0;   // of one that records: the timestamp when it was made; records that were taken
    Returns* returns = nullptr;  // Request::wants_returns; then, by probe, and who is called at which point:
    std::vector<Calls> calls;
    std::vector<Consumer> watched;
    bool acts() const { return request.action.kind != ActionKind::kCount || returns != nullptr; }
    bool records() const { return request.action.kind == ActionKind::kRecord; }
    bool is_enabled = false;
    std::vector<Count> base, done;  // by point: counters when enabled, hits before; empty: zeros
    std::int64_t resolve_ns = 0, decode_ns = 0, prepare_ns = 0;  // what it took
    // Of returns, by the functions' entries: what is armed of them and what is refused, as far as it was looked for.
    struct Entry {
      std::uint32_t module;
      std::optional<std::size_t> refused;  // of `refused`
    };
    std::unordered_multimap<std::uint64_t, Entry> entries;
    std::size_t entered_probes = 0, entered_refused = 0;
  };

  static bool is_reported(const Registration& registration) { return !registration.request.is_for_other_hits; }
  // Null: nothing of it is reported.
  const Registration* reported(std::uint64_t id) const {
    const Registration& registration = *registrations_.at(id);
    return is_reported(registration) ? &registration : nullptr;
  }
  // Those of which something is, in the order in which they were made.
  std::vector<const Registration*> reported() const;
  // Who made a record; null: it is gone.
  Registration* recorder_of(const record::Record& record, std::uint64_t& id) const;
  using Standing = std::unordered_map<const Registration*, std::uint64_t>;
  // How many records stand in the rings.
  Standing standing() const;

  // prepare(), while no thread can unload a module.
  std::optional<std::uint64_t> prepare_beside_modules(std::vector<language::Item> items,
                                                      std::optional<std::uint32_t> module, const Request& request,
                                                      const std::function<void(std::size_t)>& progress,
                                                      Problem& problem);
  std::optional<Problem> judge(plan::Plan& plan, Registration& registration, std::vector<plan::Mistake> mistakes) const;
  Problem problem_of(const plan::Mistake& mistake) const;
  Problem problem_of(const plan::Refused& refused) const;
  std::optional<std::string> start(std::size_t probepoints, bool has_pending);
  void take_counter(Registration& registration);
  void take(std::uint64_t id, Registration& registration);
  Count point_count(std::uint32_t index) const;
  static std::uint64_t read_counter(trap::Counter name, std::uint32_t index);  // summed over all tasks
  Count action_count(std::uint32_t counter) const;
  std::vector<Count> counts(const Runs& runs) const;  // of every probepoint in them, in order
  void note_base(Registration& registration, const Runs& runs, std::uint32_t point) const;
  void note_done(Registration& registration) const;
  Count total(const Registration& registration, const Standing& standing) const;
  report::OptimisedStats optimised_stats(const Probepoints::Standing& standing,
                                         const std::vector<std::uint64_t>& hits) const;
  Count count_at(const Registration& registration, std::uint32_t point, const Count& now) const;
  Consumer consumer_of(std::uint64_t id, const Registration& registration) const;
  bool give_counter(Registration& registration, Problem& problem);
  // semaphores.cpp
  void note_semaphores(Registration& registration, std::size_t first_probe) const;
  void raise_semaphores(Registration& registration) const;
  void lower_semaphores(Registration& registration) const;
  void lower_all_semaphores() const;
  void forget_semaphores(std::uint32_t module) const;
  void refuse_unwanted(plan::Plan& plan, const Request& request) const;
  // returns.cpp
  bool want_returns(Registration& registration, Problem& problem);
  static void measure_traps();
  std::uint32_t take_pair();
  void watch_returns(std::uint64_t id, Registration& registration, std::size_t known);
  void warn_of_go(const Registration& registration, std::size_t known);
  void add_consumers(std::uint64_t id, Registration& registration, std::size_t first_watched, const Runs& runs);
  static void change_generation(Registration& registration);
  void split(const Registration& registration, const Runs& runs, std::vector<std::uint32_t>& inner,
             std::vector<std::uint32_t>& outer) const;
  CallCount call_count(std::uint32_t pair) const;
  CallCount calls_at(const Registration& registration, std::size_t probe) const;
  Count returns_of(const Registration& registration) const;
  void give_back_pairs(Registration& registration);
  std::optional<std::string> change_text(const std::vector<std::uint32_t>& first,
                                         const std::vector<std::uint32_t>& uses,
                                         const std::vector<std::uint32_t>& leaves,
                                         const std::vector<std::uint32_t>& last);
  void arm_module(std::uint64_t id, Registration& registration, std::uint32_t module);

  ProbepointsConfig config_;
  std::optional<plan::Modules> modules_;
  Probepoints probepoints_;
  Consumers consumers_;
  struct Follower {
    std::weak_ptr<const void> life;
    std::function<void(const plan::Modules&)> follow;
  };
  std::vector<Follower> followers_;
  std::function<void()> more_is_counted_;
  std::map<std::uint64_t, std::unique_ptr<Registration>> registrations_;
  std::uint64_t next_id_ = 1;
  std::uint32_t loaded_modules_ = 0;  // in the modules when the first probe was registered
  std::vector<std::uint32_t> free_counters_, free_pairs_;
  std::set<std::uint32_t> looked_for_go_;                       // modules whose returns are wanted
  std::unordered_map<std::uint32_t, std::uint64_t> recorders_;  // ids by their counter
  std::uint32_t next_counter_ = 0, end_of_counters_ = 0;
  bool has_consumers_ = false;  // some probe ever had one
  Count gone_;                  // of probes that were unregistered
  std::int64_t arm_ns_ = 0;
};

}  // namespace ubp::runtime
