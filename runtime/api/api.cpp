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
#include "runtime/base/cancellation.h"
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

std::uint64_t id_of(const ubp_probe* probe) { return reinterpret_cast<std::uint64_t>(probe); }

// Structures of this version or a later one: what the caller does not have is not written.
template <typename T>
ubp_status check_size(const T* structure) {
  if (structure == nullptr) return UBP_E_INVALID;
  return structure->struct_size < sizeof(T) ? UBP_E_STRUCT_SIZE : UBP_OK;
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

// Runs body, which returns a status. No exception leaves: the callers are C.
template <typename Body>
ubp_status guarded(const Body& body) {
  const SignalsHeld quiet;
  const Uncancelled uncancelled;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return UBP_E_NO_MEMORY;
  } catch (const std::exception& error) {
    say(Level::kError, error.what());
    return UBP_E_SYSTEM;
  }
}

// The same, under the ApiLock.
template <typename Body>
ubp_status inside(const Body& body, bool needs_init = true) {
  return guarded([&]() -> ubp_status {
    const ApiLock lock(needs_init);
    return lock.status() == UBP_OK ? body() : lock.status();
  });
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
  action.needs.xmm = (options.flags & UBP_PROBE_NO_FP) == 0;
  action.needs.all_fp = (options.flags & (UBP_PROBE_NO_FP | UBP_PROBE_SSE_ONLY)) == 0;
  return action;
}

ubp_status check_options(const ubp_options* options, Asked& asked) {
  if (options == nullptr) return UBP_OK;
  if (const ubp_status status = check_size(options)) return status;
  constexpr std::uint32_t kKnown = UBP_PROBE_DISABLED | UBP_PROBE_MODIFY | UBP_PROBE_NO_FP | UBP_PROBE_PENDING |
                                   UBP_PROBE_IGNORE_MISSING | UBP_PROBE_SSE_ONLY | UBP_PROBE_NO_REGISTERS |
                                   UBP_PROBE_RECORD;
  constexpr std::uint32_t kOfConsumers =
      UBP_PROBE_MODIFY | UBP_PROBE_NO_FP | UBP_PROBE_SSE_ONLY | UBP_PROBE_NO_REGISTERS;
  const bool records = (options->flags & UBP_PROBE_RECORD) != 0;
  if ((options->flags & ~kKnown) != 0 || options->reserved != 0) return UBP_E_INVALID;
  if (options->consumer == nullptr && (options->flags & kOfConsumers) != 0) return UBP_E_INVALID;
  const bool contradicts = (options->flags & UBP_PROBE_MODIFY) != 0 && (options->flags & UBP_PROBE_NO_REGISTERS) != 0;
  if (contradicts || (records && options->consumer != nullptr)) return UBP_E_INVALID;
  asked.request.action = action_of(*options);
  asked.request.forgives_missing = (options->flags & UBP_PROBE_IGNORE_MISSING) != 0;
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
  if (auto denied = interface().registry.apply(operations)) {
    problem.status = UBP_E_SYSTEM;
    problem.message = std::move(*denied);
  }
  return problem.status;
}

// The end of every registration. Under the ApiLock.
ubp_status enter(std::vector<language::Item> items, std::optional<std::uint32_t> module, const Asked& asked,
                 ubp_probe** probe, Problem& problem) {
  Request request = asked.request;
  ActionNeeds& needs = request.action.needs;
  if (needs.xmm && is_general_code(request.action.function)) needs.xmm = needs.all_fp = false;
  const auto id = interface().registry.prepare(
      std::move(items), module, request, [](std::size_t) {}, problem);
  if (!id) return problem.status;
  std::vector<Operation> operations{{Operation::kRegister, *id}};
  if ((asked.flags & UBP_PROBE_DISABLED) != 0) operations.push_back({Operation::kDisable, *id});
  const ubp_status status = carry_out(operations, problem);
  if (status == UBP_OK && probe != nullptr) *probe = reinterpret_cast<ubp_probe*>(*id);
  return status;
}

ubp_status register_items(std::vector<language::Item> items, const Asked& asked, ubp_probe** probe,
                          ubp_refusal* refusal, const void* address = nullptr) {
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
    const ubp_status status = enter(std::move(items), module, asked, probe, problem);
    if (status != UBP_OK) tell(refusal, problem);
    return status;
  }));
}

ubp_status register_text(std::string_view spec, const Asked& asked, ubp_probe** probe, ubp_refusal* refusal) {
  return failed(guarded([&]() -> ubp_status {
    auto parsed = language::parse(spec);
    Problem problem{UBP_E_SPEC, {1, 1}, 0, 0, "", "", "no probe given; nothing is probed", "try 'libc:malloc'"};
    if (const auto* error = std::get_if<language::Error>(&parsed)) {
      problem.position = error->position;
      problem.message = error->message;
      problem.hint.clear();
    }
    auto* const items = std::get_if<std::vector<language::Item>>(&parsed);
    if (items == nullptr || items->empty()) {
      tell(refusal, problem);
      return UBP_E_SPEC;
    }
    return register_items(std::move(*items), asked, probe, refusal);
  }));
}

language::Item spec_item(std::string module, const std::string& symbol) {
  language::Item item;
  item.position = item.target_position = {0, 0};
  item.text = module.empty() ? symbol : module + ":" + symbol;
  item.module = std::move(module);
  return item;
}

ubp_status change(ubp_probe* probe, Operation::Kind kind) {
  if (transaction() != nullptr && t_transaction->has_failed) return UBP_E_TRANSACTION;
  return failed(inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    const Operation operation{kind, id_of(probe)};
    Problem problem;
    return carry_out({&operation, 1}, problem);
  }));
}

// Ends the transaction; its registrations go unless they are committed.
ubp_status end_transaction(bool commits) {
  if (transaction() == nullptr) return UBP_E_TRANSACTION;
  return inside([&]() -> ubp_status {
    const std::unique_ptr<Transaction> transaction(t_transaction);
    t_transaction = nullptr;
    if (commits && !transaction->has_failed) {
      return interface().registry.apply(transaction->operations) ? UBP_E_SYSTEM : UBP_OK;
    }
    std::vector<Operation> undo;
    for (const Operation& operation : transaction->operations) {
      if (operation.kind == Operation::kRegister) undo.push_back({Operation::kUnregister, operation.id});
    }
    interface().registry.apply(undo);  // nothing of them is armed: nothing is written
    return commits ? UBP_E_TRANSACTION : UBP_OK;
  });
}

}  // namespace

bool lacks_module(std::string_view message) { return message.starts_with(plan::kNoModule); }

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
    if (state.registry.apply(operations) || state.registry.rest()) return UBP_E_SYSTEM;
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
  return failed(guarded([&] { return register_items({spec_item("", "")}, asked, probe, refusal, address); }));
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
    return register_items({std::move(item)}, asked, probe, refusal);
  }));
}

ubp_status ubp_unregister(ubp_probe* probe) { return change(probe, Operation::kUnregister); }
ubp_status ubp_enable(ubp_probe* probe) { return change(probe, Operation::kEnable); }
ubp_status ubp_disable(ubp_probe* probe) { return change(probe, Operation::kDisable); }

ubp_status ubp_probe_read(ubp_probe* probe, ubp_probe_stats* stats) {
  if (const ubp_status status = check_size(stats)) return status;
  return inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    interface().registry.read(id_of(probe), *stats);
    return UBP_OK;
  });
}

ubp_status ubp_probe_refusal(ubp_probe* probe, size_t index, ubp_refusal* refusal) {
  if (const ubp_status status = check_size(refusal)) return status;
  return inside([&]() -> ubp_status {
    if (!interface().registry.is_known(id_of(probe))) return UBP_E_STALE;
    const auto problem = interface().registry.problem(id_of(probe), index);
    if (!problem) return UBP_E_NOT_FOUND;
    tell(refusal, *problem);
    return UBP_OK;
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
