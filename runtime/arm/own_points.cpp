// The runtime's own probepoints: the system calls that pass the gate or make threads, and the dynamic linker's hook.
// See probepoints.h.
#include <link.h>

#include <algorithm>

#include "runtime/arm/probepoints.h"
#include "runtime/arm/threads.h"
#include "runtime/plan/gate_sites.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/tls.h"

// The static library is one object whose code is in a section of this name (runtime/make_static).
extern "C" {
extern const char __start_ubp_text[] __attribute__((weak, visibility("hidden")));
extern const char __stop_ubp_text[] __attribute__((weak, visibility("hidden")));
}

namespace ubp::runtime {

using trap::g_process;

namespace {

// A sanitizer's runtime blocks every signal by system calls of its own, around libc's, while it starts a thread.
bool is_sanitizer(const symbols::Module& module) {
  return module.name.starts_with("lib") && module.name.find("san.so") != std::string::npos;
}

// The empty function that the dynamic linker calls when its list of modules has changed; its first instruction is
// emulated or nothing is hooked.
std::optional<xol::Displaced> hook_point(const plan::Modules& modules) {
  const std::uint64_t address = _r_debug.r_brk;
  const auto module = modules.module_at(address);
  if (!module) return std::nullopt;
  constexpr std::uint64_t kLongest = 15;
  const std::uint64_t elf_address = address - modules.all()[*module].bias;
  symbols::Readable readable;
  const auto code = plan::text_from(modules.all()[*module], elf_address, elf_address + kLongest, readable);
  if (code.empty()) return std::nullopt;
  const decoder::Instruction instruction = decoder::classify(code);
  if (instruction.route != decoder::Route::kEmulate) return std::nullopt;
  return xol::Displaced(address, instruction, code.data());
}

}  // namespace

// Those of what every program needs, libc's first. Returns whether there is a libc.
bool Probepoints::make_own(const plan::Modules& modules) {
  std::vector<xol::Displaced> own;
  bool has_libc = false;
  for (const bool is_libc : {true, false}) {
    for (std::uint32_t module = 0; module < modules.all().size(); ++module) {
      const symbols::Module& where = modules.all()[module];
      if (is_libc ? where.name != "libc.so.6" : !where.is_executable && !is_sanitizer(where)) continue;
      has_libc |= is_libc;
      find_own(module, modules, own);
    }
  }
  make_permanent_slots(own);
  for (const xol::Displaced& point : own) {
    if (can_watch(point)) own_.push_back(table_->add(point));
  }
  if (const auto hook = hook_point(modules)) hook_ = table_->add(*hook);
  return has_libc;
}

void Probepoints::miss_own(std::uint64_t address) {
  unwatched_.push_back(address);
  g_process.misses_gate = true;
}

// Whether the system call has got its slot.
bool Probepoints::can_watch(const xol::Displaced& point) {
  const bool can = has_permanent_slot(point);
  if (!can) miss_own(point.address);
  return can;
}

// Finds the module's system calls that have to pass the gate, and those that make threads.
void Probepoints::find_own(std::uint32_t module, const plan::Modules& modules, std::vector<xol::Displaced>& own) {
  gated_.insert(module);
  const symbols::Module& where = modules.all()[module];
  const symbols::FunctionTable* const table = modules.known_table_of(module);  // it is not read for this alone
  const auto function_at = [&](std::uint64_t address) -> std::optional<symbols::Extent> {
    const symbols::Function* const function = table != nullptr ? table->containing(address) : nullptr;
    return function != nullptr ? std::optional(symbols::Extent{function->address, function->end}) : std::nullopt;
  };
  plan::GateSites sites = plan::find_gate_sites(where, function_at);
  if (sites.sets_fs) trap::ubp_moves_fs.store(true, std::memory_order_relaxed);  // its callers see to the jumps
  sites.points.insert(sites.points.end(), sites.clones.begin(), sites.clones.end());
  const auto area = find_or_make_area(where.low(), where.high());
  for (const xol::Displaced& site : sites.points) {
    const auto is_it = [&](const xol::Displaced& other) { return other.address == site.address; };
    if (modules.is_own_text(site.address) || std::any_of(own.begin(), own.end(), is_it)) continue;
    if (!area || own_.size() + own.size() + 2 > kOwnPoints) {
      miss_own(site.address);
      continue;
    }
    own.push_back(site);
    own.back().area = *area & 0xf;
    own.back().is_gate = true;
  }
}

// Before a module's first probepoint is armed.
void Probepoints::gate_modules_of(const std::vector<xol::Displaced>& points, const plan::Modules& modules) {
  std::vector<xol::Displaced> own;
  std::uint64_t low = 0, high = 0;  // of the module at hand: points are sorted
  const bool did_move = sys::is_set(trap::ubp_moves_fs);
  for (const xol::Displaced& point : points) {
    if (point.address - low < high - low) continue;
    const std::uint32_t number = modules.module_at(point.address).value_or(0);
    low = modules.all()[number].low();
    high = modules.all()[number].high();
    if (!gated_.contains(number)) find_own(number, modules, own);
  }
  if (!did_move && sys::is_set(trap::ubp_moves_fs)) leave_jump_tier();
  if (own.empty()) return;
  make_permanent_slots(own);
  table_->make_room(own.size());
  for (const xol::Displaced& point : own) {
    if (!can_watch(point)) continue;
    own_.push_back(table_->add(point));
    ++late_own_;
  }
  __atomic_store_n(&g_process.table.count, table_->view().count, __ATOMIC_RELAXED);  // as in add()
}

std::optional<std::string> Probepoints::arm_own() {
  const bool wants_hook = watches_modules_ && hook_;
  if (own_armed_ && !wants_hook && own_used_ == own_.size()) return std::nullopt;
  // No other thread may be where libc blocks every signal while the gate is put in: it would meet it inside.
  ParkedThreads parked;
  if (!own_armed_) {
    if (auto problem = parked.park(leaves_blocked_threads_)) return problem;
    if (sys::is_set(g_process.tasks.shares_tls)) leave_jump_tier();  // detours keep what they spill in the TLS
    if (!signals::take_over()) {
      return signals::is_taken_by_another() ? "another copy of UBP has SIGTRAP"
                                            : "the kernel refuses a SIGTRAP handler";
    }
    signals::set_guards(&trap::is_guarded, true);
    own_used_ = 0;
  }
  std::vector<std::uint32_t> added(own_.begin() + static_cast<std::ptrdiff_t>(own_used_), own_.end());
  if (wants_hook) {
    table_->mark_hook(*hook_);
    added.push_back(*hook_);
  }
  std::vector<std::uint32_t> indexes = added;
  count_users(added, 1);
  if (auto denied = write(indexes)) {
    count_users(added, -1);
    return denied;
  }
  own_armed_ = true;
  if (wants_hook) {
    own_.push_back(*hook_);
    hook_.reset();
  }
  own_used_ = own_.size();
  return std::nullopt;
}

std::optional<std::string> Probepoints::disarm_own() {
  if (!own_armed_) return std::nullopt;
  const std::vector<std::uint32_t> used(own_.begin(), own_.begin() + static_cast<std::ptrdiff_t>(own_used_));
  std::vector<std::uint32_t> indexes = used;
  count_users(used, -1);
  auto denied = write(indexes);
  if (denied) count_users(used, 1);
  own_armed_ = denied.has_value();
  g_process.misses_gate = true;  // what happens to masks from now on
  if (!denied)
    signals::set_guards(&trap::ends_process,
                        false);  // without the gate, what the program asks for is not translated everywhere
  was_disarmed_ = true;
  return denied;
}

std::vector<plan::CodeRange> Probepoints::own_text() {
  plan::CodeRange trap{};
  trap::ubp_trap_text(&trap.begin, &trap.end);
  return {trap, {reinterpret_cast<std::uint64_t>(__start_ubp_text), reinterpret_cast<std::uint64_t>(__stop_ubp_text)}};
}

bool Probepoints::is_in_program() { return __start_ubp_text != nullptr; }

}  // namespace ubp::runtime
