// The C interface: arguments checked, exceptions and problems turned into statuses, and the registry called under the
// ApiLock.
#include "runtime/api/api.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "runtime/api/api_lock.h"
#include "runtime/api/calls.h"
#include "runtime/api/programs.h"
#include "runtime/api/stacks.h"
#include "runtime/consumers/consumer_code.h"
#include "runtime/report/report.h"

namespace ubp::runtime {
namespace {

using report::Level;
using report::say;

bool (*g_flush)() = nullptr;

// Open in this thread; its calls add operations.
struct Transaction {
  std::vector<Operation> operations;
  std::uint32_t shutdowns;  // before it was opened
  bool has_failed = false;
};
thread_local constinit Transaction* t_transaction __attribute__((tls_model("initial-exec"))) = nullptr;

// This thread's open transaction, or null. Shutting the interface down ends those that are open: the counter alone says
// so.
Transaction* transaction() {
  if (t_transaction != nullptr &&
      t_transaction->shutdowns != __atomic_load_n(&interface().shutdowns, __ATOMIC_RELAXED)) {
    delete std::exchange(t_transaction, nullptr);
  }
  return t_transaction;
}

template <std::size_t Size>
void copy_text(char (&to)[Size], std::string_view from) {
  const std::size_t length = std::min(from.size(), Size - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

void tell(ubp_refusal* refusal, const Problem& problem) {
  if (refusal == nullptr) return;
  refusal->status = problem.status;
  refusal->line = static_cast<std::uint32_t>(problem.position.line);
  refusal->column = static_cast<std::uint32_t>(problem.position.column);
  refusal->is_exact = problem.is_exact ? 1 : 0;
  refusal->address = problem.address;
  refusal->elf_address = problem.elf_address;
  copy_text(refusal->module, problem.module);
  copy_text(refusal->symbol, problem.symbol);
  copy_text(refusal->message, problem.message);
  copy_text(refusal->hint, problem.hint);
}

// A call that changes something failed: so has its transaction.
ubp_status failed(ubp_status status) {
  if (status != UBP_OK && transaction() != nullptr) t_transaction->has_failed = true;
  return status;
}

// What a registration asks for.
struct Asked {
  Request request;
  std::uint32_t flags = 0;  // UBP_PROBE_*: those that say when
};

// What a consumer with these flags does, or, without one, UBP_PROBE_RECORD. A record holds no registers.
Action action_of(const ubp_options& options) {
  if ((options.flags & UBP_PROBE_RECORD) != 0) return {ActionKind::kRecord, record_hit, nullptr, {}};
  if (options.consumer == nullptr) return {};
  Action action{ActionKind::kCall, options.consumer, options.data, {}};
  action.needs.reads = (options.flags & UBP_PROBE_NO_REGISTERS) == 0;
  action.needs.modifies = (options.flags & UBP_PROBE_MODIFY) != 0;
  action.needs.overrides = (options.flags & UBP_PROBE_OVERRIDE) != 0;
  action.needs.walks = (options.flags & UBP_PROBE_BACKTRACE) != 0;
  action.needs.xmm = (options.flags & UBP_PROBE_NO_FP) == 0;
  action.needs.all_fp = (options.flags & (UBP_PROBE_NO_FP | UBP_PROBE_SSE_ONLY)) == 0;
  return action;
}

ubp_status check_options(const ubp_options* options, Asked& asked) {
  if (options == nullptr) return UBP_OK;
  if (const ubp_status status = check_size(options)) return status;
  constexpr std::uint32_t kKnown = UBP_PROBE_DISABLED | UBP_PROBE_MODIFY | UBP_PROBE_NO_FP | UBP_PROBE_PENDING |
                                   UBP_PROBE_IGNORE_MISSING | UBP_PROBE_SSE_ONLY | UBP_PROBE_NO_REGISTERS |
                                   UBP_PROBE_RECORD | UBP_PROBE_OVERRIDE | UBP_PROBE_BACKTRACE | UBP_PROBE_NET;
  constexpr std::uint32_t kOfConsumers = UBP_PROBE_MODIFY | UBP_PROBE_NO_FP | UBP_PROBE_SSE_ONLY |
                                         UBP_PROBE_NO_REGISTERS | UBP_PROBE_OVERRIDE | UBP_PROBE_BACKTRACE |
                                         UBP_PROBE_NET;
  const bool records = (options->flags & UBP_PROBE_RECORD) != 0;
  if ((options->flags & ~kKnown) != 0 || options->reserved != 0) return UBP_E_INVALID;
  if (options->consumer == nullptr && (options->flags & kOfConsumers) != 0) return UBP_E_INVALID;
  const bool contradicts = (options->flags & UBP_PROBE_MODIFY) != 0 && (options->flags & UBP_PROBE_NO_REGISTERS) != 0;
  if (contradicts || (records && options->consumer != nullptr)) return UBP_E_INVALID;
  asked.request.action = action_of(*options);
  asked.request.forgives_missing = (options->flags & UBP_PROBE_IGNORE_MISSING) != 0;
  asked.request.is_net = (options->flags & UBP_PROBE_NET) != 0;
  asked.flags = options->flags;
  return UBP_OK;
}

// Of a registration. has_target: it names something.
ubp_status check_arguments(bool has_target, const ubp_options* options, const ubp_refusal* refusal, Asked& asked) {
  if (!has_target) return UBP_E_INVALID;
  if (refusal != nullptr && check_size(refusal) != UBP_OK) return UBP_E_STRUCT_SIZE;
  return check_options(options, asked);
}

// Carries operations out, or adds them to the open transaction. Under the ApiLock.
ubp_status carry_out(std::span<const Operation> operations, Problem& problem) {
  if (transaction() != nullptr) {
    t_transaction->operations.insert(t_transaction->operations.end(), operations.begin(), operations.end());
    return UBP_OK;
  }
  if (auto denied = apply(operations)) {
    problem.status = UBP_E_SYSTEM;
    problem.message = std::move(*denied);
  }
  return problem.status;
}

// The end of every registration. own: its program; null: it has none. Under the ApiLock.
ubp_status enter(const std::vector<language::Item>& items, std::optional<std::uint32_t> module, const Asked& asked,
                 std::unique_ptr<OwnProgram> own, ubp_probe** probe, Problem& problem) {
  Request request = asked.request;
  ActionNeeds& needs = request.action.needs;
  if (needs.xmm && is_general_code(request.action.function)) needs.xmm = needs.all_fp = false;
  program::Program* const program = own != nullptr ? own->program.get() : nullptr;
  const auto ids = prepare(
      items, program, request, true, module, [](std::size_t) {}, problem);
  if (!ids) return problem.status;
  if (needs.walks) prepare_backtraces();
  const std::uint64_t handle = ids->front();
  keep_others(handle, {ids->begin() + 1, ids->end()});
  if (own != nullptr) keep(handle, std::move(own));
  std::vector<Operation> operations;
  for (const std::uint64_t id : *ids) {
    operations.push_back({Operation::kRegister, id});
    if ((asked.flags & UBP_PROBE_DISABLED) != 0) operations.push_back({Operation::kDisable, id});
  }
  const ubp_status status = carry_out(operations, problem);
  if (status == UBP_OK && probe != nullptr) *probe = handle_of(handle);
  return status;
}

ubp_status register_items(std::vector<language::Item> items, const Asked& asked, ubp_probe** probe,
                          ubp_refusal* refusal, std::unique_ptr<OwnProgram> own, const void* address = nullptr) {
  if (transaction() != nullptr && t_transaction->has_failed) return UBP_E_TRANSACTION;
  return failed(guarded([&]() -> ubp_status {
    if ((asked.flags & UBP_PROBE_PENDING) != 0) {
      for (language::Item& item : items) item.pending = !item.exclude;
    }
    const ApiLock lock;
    if (lock.status() != UBP_OK) return lock.status();
    Problem problem;
    std::optional<std::uint32_t> module;
    if (address != nullptr) {
      const auto at = reinterpret_cast<std::uint64_t>(address);
      module = interface().registry.module_at(at);
      if (!module) {
        tell(refusal,
             {UBP_E_NOT_FOUND, {0, 0}, at, 0, "", "", fmt::format("no loaded module has code at 0x{:x}", at), ""});
        return UBP_E_NOT_FOUND;
      }
      const symbols::Module& where = interface().registry.module(*module);
      items.front().target = language::AddressTarget{at - where.bias, at - where.bias + 1};
      items.front().text = fmt::format("{}:0x{:x}", where.name, at - where.bias);
    }
    const ubp_status status = enter(items, module, asked, std::move(own), probe, problem);
    if (status != UBP_OK) tell(refusal, problem);
    return status;
  }));
}

ubp_status register_text(std::string_view spec, const Asked& asked, ubp_probe** probe, ubp_refusal* refusal) {
  return failed(guarded([&]() -> ubp_status {
    ReadText read = read_text(kTextName, spec, {{}, program::settings_of_environment()}, nullptr);
    if (!read.is_good) {
      tell(refusal, problem_of(read.diagnostics.front(), kTextName, read.text));
      return UBP_E_SPEC;
    }
    const auto is_bare = [](const language::Item& item) { return item.probe == language::kBare && !item.exclude; };
    const bool is_wanted = asked.request.action.kind != ActionKind::kCount;
    if (is_wanted && std::none_of(read.items.begin(), read.items.end(), is_bare)) {
      constexpr char kNoBare[] = "a consumer and UBP_PROBE_RECORD are for bare targets, and there is none";
      tell(refusal, {UBP_E_INVALID, {0, 0}, 0, 0, "", "", kNoBare, ""});
      return UBP_E_INVALID;
    }
    std::unique_ptr<OwnProgram> own;
    if (read.program != nullptr) own = std::make_unique<OwnProgram>(read.text, std::move(read.program));
    for (const program::Diagnostic& warning : read.diagnostics) {
      const program::Sources sources{kTextName, read.text};
      say(Level::kWarning, fmt::format("{}: {}", sources.place(warning.span), warning.message));
    }
    return register_items(std::move(read.items), asked, probe, refusal, std::move(own));
  }));
}

language::Item spec_item(std::string module, const std::string& symbol) {
  language::Item item;
  item.position = item.target_position = {0, 0};
  item.text = module.empty() ? symbol : module + ":" + symbol;
  item.module = std::move(module);
  return item;
}

void add(ubp_probe_stats& to, const ubp_probe_stats& from) {
  to.hits += from.hits, to.recorded += from.recorded, to.filtered += from.filtered;
  to.missed += from.missed, to.dropped += from.dropped;
  to.probepoints += from.probepoints, to.probes += from.probes, to.refused += from.refused;
  to.pending += from.pending;
}

ubp_status change(ubp_probe* probe, Operation::Kind kind) {
  if (transaction() != nullptr && t_transaction->has_failed) return UBP_E_TRANSACTION;
  return failed(inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    std::vector<Operation> operations;
    for (const std::uint64_t id : registrations_of(id_of(probe))) operations.push_back({kind, id});
    Problem problem;
    return carry_out(operations, problem);
  }));
}

// Ends the transaction; its registrations go unless they are committed.
ubp_status end_transaction(bool commits) {
  if (transaction() == nullptr) return UBP_E_TRANSACTION;
  return inside([&]() -> ubp_status {
    const std::unique_ptr<Transaction> transaction(t_transaction);
    t_transaction = nullptr;
    if (commits && !transaction->has_failed) {
      return apply(transaction->operations) ? UBP_E_SYSTEM : UBP_OK;
    }
    std::vector<Operation> undo;
    for (const Operation& operation : transaction->operations) {
      if (operation.kind == Operation::kRegister) undo.push_back({Operation::kUnregister, operation.id});
    }
    apply(undo);  // nothing of them is armed: nothing is written
    return commits ? UBP_E_TRANSACTION : UBP_OK;
  });
}

}  // namespace

void set_flush(bool (*flush)()) { g_flush = flush; }

}  // namespace ubp::runtime

using namespace ubp::runtime;

ubp_status ubp_init(const ubp_config* config) {
  ProbepointsConfig probepoints;
  probepoints.probepoints = std::uint32_t{1} << 20;
  if (config != nullptr) {
    if (const ubp_status status = check_size(config)) return status;
    const bool is_good = config->slots <= 4096 && config->policy <= UBP_POLICY_ADAPTIVE &&
                         config->max_probepoints <= 1u << 24 && config->optimize <= UBP_OPTIMIZE_NEVER &&
                         config->reserved == 0 &&
                         (config->flags & ~std::uint32_t{UBP_CONFIG_LEAVE_BLOCKED_THREADS}) == 0;
    if (!is_good) return UBP_E_INVALID;
    probepoints.leaves_blocked_threads = (config->flags & UBP_CONFIG_LEAVE_BLOCKED_THREADS) != 0;
    if (config->slots != 0) probepoints.slots = config->slots;
    if (config->max_probepoints != 0) probepoints.probepoints = config->max_probepoints;
    constexpr ubp::xol::Policy kPolicies[] = {ubp::xol::Policy::kThread, ubp::xol::Policy::kThread,
                                              ubp::xol::Policy::kProbepoint, ubp::xol::Policy::kSteal,
                                              ubp::xol::Policy::kAdaptive};
    probepoints.policy = kPolicies[config->policy];
    constexpr Optimize kModes[] = {Optimize::kAuto, Optimize::kAuto, Optimize::kAlways, Optimize::kNever};
    probepoints.optimize = kModes[config->optimize];
  }
  return guarded([&] { return initialise(probepoints, true); });
}

ubp_status ubp_shutdown() {
  const auto shut_down = []() -> ubp_status {
    Interface& state = interface();
    if (!state.is_embedded) return UBP_OK;
    std::vector<Operation> operations;
    for (const std::uint64_t id : state.registry.ids(false)) operations.push_back({Operation::kUnregister, id});
    if (apply(operations) || state.registry.rest()) return UBP_E_SYSTEM;
    state.is_embedded = false;
    ++state.shutdowns;
    state.is_initialised = !state.registry.ids(true).empty();
    return UBP_OK;
  };
  return inside(shut_down, false);
}

int ubp_is_active() {
  return __atomic_load_n(&interface().is_initialised, __ATOMIC_RELAXED) ? 1 : 0;
}  // a glance: no lock

ubp_status ubp_register(const char* spec, const ubp_options* options, ubp_probe** probe, ubp_refusal* refusal) {
  Asked asked;
  if (const ubp_status status = check_arguments(spec != nullptr, options, refusal, asked)) return failed(status);
  return register_text(spec, asked, probe, refusal);
}

ubp_status ubp_register_address(const void* address, const ubp_options* options, ubp_probe** probe,
                                ubp_refusal* refusal) {
  Asked asked;
  if (const ubp_status status = check_arguments(address != nullptr, options, refusal, asked)) return failed(status);
  return failed(guarded([&] { return register_items({spec_item("", "")}, asked, probe, refusal, nullptr, address); }));
}

ubp_status ubp_register_symbol(const char* module, const char* symbol, uint64_t offset, const ubp_options* options,
                               ubp_probe** probe, ubp_refusal* refusal) {
  Asked asked;
  if (const ubp_status status = check_arguments(symbol != nullptr && *symbol != '\0', options, refusal, asked))
    return failed(status);
  return failed(guarded([&] {
    ubp::language::Item item = spec_item(module != nullptr ? module : "", symbol);
    item.target = ubp::language::SymbolTarget{symbol, true, offset};
    if (offset != 0) item.text += fmt::format("+0x{:x}", offset);
    return register_items({std::move(item)}, asked, probe, refusal, nullptr);
  }));
}

ubp_status ubp_unregister(ubp_probe* probe) { return change(probe, Operation::kUnregister); }
ubp_status ubp_enable(ubp_probe* probe) { return change(probe, Operation::kEnable); }
ubp_status ubp_disable(ubp_probe* probe) { return change(probe, Operation::kDisable); }

ubp_status ubp_probe_read(ubp_probe* probe, ubp_probe_stats* stats) {
  if (const ubp_status status = check_size(stats)) return status;
  return inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    const std::vector<std::uint64_t> ids = registrations_of(id_of(probe));
    interface().registry.read(ids.front(), *stats);
    for (const std::uint64_t id : std::span(ids).subspan(1)) {
      ubp_probe_stats its{};
      interface().registry.read(id, its);
      add(*stats, its);
    }
    return UBP_OK;
  });
}

ubp_status ubp_probe_refusal(ubp_probe* probe, size_t index, ubp_refusal* refusal) {
  if (const ubp_status status = check_size(refusal)) return status;
  return inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    for (const std::uint64_t id : registrations_of(id_of(probe))) {
      const std::size_t problems = interface().registry.problems(id);
      if (index < problems) {
        tell(refusal, *interface().registry.problem(id, index));
        return UBP_OK;
      }
      index -= problems;
    }
    return UBP_E_NOT_FOUND;
  });
}

ubp_status ubp_read(ubp_stats* stats) {
  if (const ubp_status status = check_size(stats)) return status;
  return inside([&]() -> ubp_status {
    interface().registry.read(*stats);
    return UBP_OK;
  });
}

ubp_status ubp_drain(ubp_record_visitor visit, void* data) {
  if (visit == nullptr) return UBP_E_INVALID;
  std::vector<ubp_record> records;
  const ubp_status status = inside([&]() -> ubp_status {
    records = interface().registry.drain();
    return UBP_OK;
  });
  for (const ubp_record& record : records) visit(&record, data);
  const SignalsHeld quiet;
  std::vector<ubp_record>().swap(records);  // what that calls is no hit
  return status;
}

ubp_status ubp_flush() {
  return guarded([]() -> ubp_status {
    {
      const ApiLock lock;
      if (lock.status() != UBP_OK) return lock.status();
    }
    return g_flush == nullptr || g_flush() ? UBP_OK : UBP_E_SYSTEM;
  });
}

ubp_status ubp_transaction_begin() {
  if (transaction() != nullptr) return UBP_E_TRANSACTION;
  return inside([]() -> ubp_status {
    t_transaction = new Transaction{{}, interface().shutdowns};
    return UBP_OK;
  });
}
ubp_status ubp_transaction_commit() { return end_transaction(true); }
ubp_status ubp_transaction_abort() { return end_transaction(false); }
