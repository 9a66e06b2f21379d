// Making and changing what is patched. See probepoints.h.
#include "runtime/arm/probepoints.h"

#include <linux/membarrier.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/arm/threads.h"
#include "runtime/consumers/consumers.h"
#include "runtime/patch/poke.h"
#include "runtime/symbols/goroutines.h"
#include "runtime/trap/segment.h"
#include "runtime/trap/tls.h"
#include "xol/assert.h"

namespace ubp::runtime {

using trap::g_process;

namespace {

std::optional<std::string> permanent_slots_denied(const xol::Displaced& point) {
  if (has_permanent_slot(point)) return std::nullopt;
  return plan::reason_text(plan::Reason::kOutOfReach, decoder::Refusal::kNone, "permanent slots");
}

}  // namespace

std::optional<std::string> Probepoints::start(const ProbepointsConfig& config, plan::Modules& modules) {
  const std::size_t capacity = config.probepoints + kOwnPoints;
  leaves_blocked_threads_ = config.leaves_blocked_threads;
  most_points_ = config.probepoints;
  first_consumer_counter_ = static_cast<std::uint32_t>(capacity);
  if (const auto denied = map_task_memory({config.slots, first_consumer_counter_ + config.consumers, config.policy})) {
    return fmt::format("cannot get memory for per-thread counters: {}", *denied);
  }
  table_ = new Table(capacity);
  bool sees_threads = config.optimize != Optimize::kNever && is_only_thread();  // all that are made
  const bool has_libc = make_own(modules);
  sees_threads &= unwatched_.empty();
  g_process.has_gate = has_libc && !own_.empty();
  table_->add(calibration_point());
  own_end_ = table_->view().count;
  g_process.own_points = own_end_;
  void* const users = mmap(nullptr, capacity * sizeof *users_, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (users == MAP_FAILED) throw std::bad_alloc();
  users_ = static_cast<std::uint16_t*>(users);
  g_process.table = table_->view();
  modules.set_armed(g_process.table, g_process.detours);
  g_process.tasks.pid = static_cast<std::uint32_t>(getpid());
  constexpr unsigned long kFsgsbase = 2;  // HWCAP2_FSGSBASE, asm/hwcap2.h
  g_process.processor.has_fsgsbase = (getauxval(AT_HWCAP2) & kFsgsbase) != 0;
  g_process.tasks.loading_tls = trap::fs_base();
  set_return_mode();
  trap::ubp_trap_text(&g_process.text.low, &g_process.text.high);
  g_process.tasks.keeps_stacks = std::any_of(modules.all().begin(), modules.all().end(), symbols::has_go_code);
  const bool may_jump =
      !g_process.tasks.keeps_stacks && !sys::is_set(trap::ubp_moves_fs);  // Go takes its signals from the kernel itself
  if (config.counts_by_segment && sees_threads && has_libc && may_jump) enter_segment();
  adopt_loading_thread();
  find_stack_gap();
  detours_.start(config.optimize, capacity,
                 {[this] { synchronise(); }, [this](std::uint32_t index) { return (users_[index] & kArmed) != 0; },
                  [](std::uint32_t index) { return Consumers::needs(index, nullptr); }});
  register_membarrier();
  if (!may_jump) detours_.stop();
  return std::nullopt;
}

// Lets detours count by %gs, where nobody else uses it. Returns whether it did.
bool Probepoints::enter_segment() {
  std::uint64_t base = 0;
  if (sys::failed(sys::call4(SYS_arch_prctl, trap::kGetGs, reinterpret_cast<long>(&base))) || base != 0) return false;
  void* const unread = mmap(nullptr, g_process.tasks.counter_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
  if (unread == MAP_FAILED) return false;
  madvise(unread, g_process.tasks.counter_bytes, MADV_DONTDUMP);
  g_process.segment.unread = reinterpret_cast<std::uint64_t>(unread);
  __atomic_store_n(&g_process.segment.is_used, true, __ATOMIC_RELEASE);  // pairs with trap::counts_by_segment
  return true;
}

bool Probepoints::has_unseen_threads() const {
  if (!was_disarmed_ || own_armed_ || !trap::counts_by_segment()) return false;
  return !is_only_thread() || !trap::is_state(trap::t_thread.state);
}

// Threads that are inside such detours count there still: their %gs stays.
void Probepoints::leave_segment(const plan::Modules& modules) {
  if (!is_started() || !__atomic_exchange_n(&g_process.segment.is_used, false, __ATOMIC_ACQ_REL))
    return;  // as in enter_segment()
  std::vector<std::uint32_t> indexes, jumps;
  for (std::uint32_t index = own_end_; index < g_process.table.count; ++index) {
    if (detours_.counts_by_segment(index)) indexes.push_back(index);
  }
  drop_lost(indexes);
  sort_by_address(indexes);
  std::copy_if(indexes.begin(), indexes.end(), std::back_inserter(jumps),
               [&](std::uint32_t index) { return detours_.is_jump(index); });
  if (detours_.remove(jumps, is_only_thread())) return leave_jump_tier();
  std::vector<Wanted> wanted;
  for (const std::uint32_t index : indexes) {
    detours_.discard(index);
    if (const auto again = wanted_at(index, modules)) wanted.push_back(*again);
  }
  make_wanted(wanted, modules, nullptr);
  cleared_.insert(cleared_.end(), indexes.begin(), indexes.end());
  commit({}, true);  // denied: they stay int3s
}

// Without it no jump can be written: no thread can be made to see the steps in order.
void Probepoints::register_membarrier() {
  has_membarrier_ = sys::call4(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0) == 0;
  if (!has_membarrier_) detours_.stop();
}

void Probepoints::leave_jump_tier() {
  detours_.stop();
  std::vector<std::uint32_t> jumps;
  for (std::uint32_t index = own_end_; detours_.jumps() != 0 && index < g_process.table.count; ++index) {
    if (detours_.is_jump(index)) jumps.push_back(index);
  }
  drop_lost(jumps);
  sort_by_address(jumps);
  detours_.remove(jumps, false);  // denied: there is no other way
}

void Probepoints::set_up_child() {
  if (is_started()) register_membarrier();
}

Runs Probepoints::add(plan::Plan& plan, const plan::Modules& modules, const Consumer* consumer) {
  gate_modules_of(plan.points(), modules);
  // Each module's probepoints get the area that serves the module, or are refused.
  std::vector<xol::Displaced>& points = plan.points();
  std::map<std::uint32_t, std::optional<std::uint32_t>> areas;
  std::uint64_t low = 0, high = 0;  // of the module at hand: points are sorted
  std::optional<std::uint32_t> area;
  bool missing = false;
  for (xol::Displaced& point : points) {
    if (point.address - low >= high - low) {
      const std::uint32_t number = modules.module_at(point.address).value_or(0);
      const symbols::Module& module = modules.all()[number];
      low = module.low();
      high = module.high();
      area = areas.try_emplace(number, find_or_make_area(module.low(), module.high())).first->second;
    }
    missing |= !area;
    if (area) point.area = *area & 0xf;
  }
  if (missing) {
    plan.refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
      const auto at = modules.module_at(points[index].address);
      if (at && areas[*at]) return std::nullopt;
      return plan::reason_text(plan::Reason::kOutOfReach, decoder::Refusal::kNone, "");
    });
  }
  // One that is in the table has its slot.
  if (make_permanent_slots(points)) {
    plan.refuse_points([&](std::uint32_t index) {
      return g_process.table.find(points[index].address) == kNotFound ? permanent_slots_denied(points[index])
                                                                      : std::nullopt;
    });
  }
  if (points.size() > room()) {
    // Who has jumped elsewhere returns there. So entries are left out before any exit; where not even the exits have
    // room, all are.
    std::vector<bool> is_exit(points.size());
    for (const plan::Exit& exit : plan.exits()) is_exit[exit.number - plan.first_point()] = true;
    const auto exits = static_cast<std::size_t>(std::count(is_exit.begin(), is_exit.end(), true));
    const bool has_exits = exits <= room();
    std::size_t entries = has_exits ? room() - exits : 0;
    plan.refuse_points([&](std::uint32_t index) -> std::optional<std::string> {
      if (is_exit[index] ? has_exits : entries != 0) {
        entries -= is_exit[index] ? 0 : 1;
        return std::nullopt;
      }
      return plan::reason_text(plan::Reason::kNoRoom, decoder::Refusal::kNone, "");
    });
  }
  clear_windows(points);
  table_->make_room(points.size());
  const std::uint32_t first_new = table_->view().count;
  Runs runs;
  for (std::uint32_t point = 0; point < points.size(); ++point) {
    const std::uint32_t index = table_->add(points[point]);
    const bool follows = !runs.empty() && runs.back().first_index + runs.back().count == index;
    if (follows) {
      ++runs.back().count;
    } else {
      runs.push_back({plan.first_point() + point, index, 1});
    }
  }
  // Nothing else of the view changes once it is published. Pairs with nothing: the int3s that matter come later.
  __atomic_store_n(&g_process.table.count, table_->view().count, __ATOMIC_RELAXED);
  prepare_detours(plan, runs, modules, first_new, consumer);
  return runs;
}

void Probepoints::sort_by_address(std::vector<std::uint32_t>& indexes) const {
  const auto before = [](std::uint32_t a, std::uint32_t b) {
    return g_process.table.points[a].address < g_process.table.points[b].address;
  };
  if (!std::is_sorted(indexes.begin(), indexes.end(), before)) std::sort(indexes.begin(), indexes.end(), before);
  indexes.erase(std::unique(indexes.begin(), indexes.end()), indexes.end());
}

void Probepoints::count_users(std::span<const std::uint32_t> indexes, int change) {
  for (const std::uint32_t index : indexes) {
    UBP_ASSERT(index < g_process.table.count && (change > 0 || (users_[index] & kMostUsers) != 0));
    users_[index] = static_cast<std::uint16_t>(users_[index] + change);
  }
}

std::optional<std::string> Probepoints::commit(const Edit& edit, bool may_be_alone) {
  if (own_armed_) {  // what was gated since
    if (auto denied = arm_own()) return denied;
  }
  const patch::OwnMemory memory;  // opened once for what is looked at and what is written
  if (const std::vector<std::uint32_t> lost = find_lost(edit.uses, memory); !lost.empty()) {
    const std::uint64_t address = g_process.table.points[lost.front()].address;
    lose(lost);
    return fmt::format("the program has unmapped or replaced the code at {:#x} since it was probed", address);
  }
  for (std::size_t counted = 0; counted < edit.uses.size(); ++counted) {
    std::uint16_t& users = users_[edit.uses[counted]];
    if ((users & kMostUsers) == kMostUsers) {  // one transaction may hold as many as there can be
      count_users(std::span(edit.uses).first(counted), -1);
      return fmt::format("more than {} probes at one address", kMostUsers);
    }
    ++users;
  }
  count_users(edit.leaves, -1);
  std::vector<std::uint32_t> indexes = edit.leaves;
  drop_lost(indexes, memory);
  indexes.insert(indexes.end(), edit.uses.begin(), edit.uses.end());
  const std::uint32_t before = armed_points_;
  sort_by_address(indexes);
  // Out come the jumps that are no longer wanted, and those over what changes; in again what can be.
  std::vector<std::uint32_t> jumps;
  for (const std::uint32_t index : indexes) {
    if (detours_.jumps() == 0) break;
    const bool stays = (users_[index] & kMostUsers) != 0 && detours_.is_chosen(index);
    if (!stays && detours_.is_jump(index)) jumps.push_back(index);
    detours_.jumps_over(g_process.table.points[index].address, jumps);
    detours_.jumps_within(index, jumps);
  }
  for (const std::uint32_t index : cleared_) detours_.jumps_within(index, jumps);
  sort_by_address(jumps);
  const bool is_alone = may_be_alone && detours_.mode() != Optimize::kNever && is_only_thread();
  auto denied = detours_.remove(jumps, is_alone);
  jumps.insert(jumps.end(), indexes.begin(), indexes.end());
  jumps.insert(jumps.end(), cleared_.begin(), cleared_.end());
  cleared_.clear();
  for (std::size_t i = 0, count = jumps.size(); i < count; ++i) detours_.points_within(jumps[i], jumps);
  sort_by_address(jumps);
  std::erase_if(jumps,
                [&](std::uint32_t index) { return (users_[index] & kMostUsers) == 0 || !detours_.is_ready(index); });
  const auto has_no_int3 = [&](std::uint32_t index) { return is_approach(index) && (users_[index] & kArmed) == 0; };
  if (!approaches_.empty()) {
    const std::unordered_set<std::uint32_t> changes(edit.uses.begin(), edit.uses.end());
    std::erase_if(jumps, [&](std::uint32_t index) { return has_no_int3(index) && !changes.contains(index); });
  }
  detours_.drop_overlapping(jumps);
  if (!approaches_.empty()) {
    const std::unordered_set<std::uint32_t> jumping(jumps.begin(), jumps.end());
    std::erase_if(indexes, [&](std::uint32_t index) { return has_no_int3(index) && !jumping.contains(index); });
  }
  if (!denied) denied = write(indexes, is_alone ? jumps : std::span<const std::uint32_t>(), memory);
  if (!denied) {
    const bool has_jumps = !detours_.insert(jumps, is_alone);  // denied: they stay int3s, and the report says so
    if (has_jumps || !is_alone) return std::nullopt;
    std::vector<patch::Byte> bytes;
    bytes.reserve(jumps.size());
    for (const std::uint32_t index : jumps) bytes.push_back({g_process.table.points[index].address, 0xcc});
    denied = patch::write_text(bytes, memory);
    if (!denied) return std::nullopt;
  }
  armed_points_ = before;
  count_users(edit.uses, -1);
  count_users(edit.leaves, 1);
  return denied;
}

// Writes int3 where there are users and the original byte where there are none, as far as that is not so already.
// jumps: sorted by address; theirs are about to be written over.
std::optional<std::string> Probepoints::write(std::vector<std::uint32_t>& indexes, std::span<const std::uint32_t> jumps,
                                              const patch::OwnMemory& memory) {
  const auto is_right = [&](std::uint32_t index) {
    const bool is_armed = (users_[index] & kArmed) != 0, is_used = (users_[index] & kMostUsers) != 0;
    return is_armed == is_used || g_process.table.points[index].address == 0;
  };
  std::erase_if(indexes, is_right);
  if (indexes.empty()) return std::nullopt;
  sort_by_address(indexes);
  std::vector<patch::Byte> bytes;
  bytes.reserve(indexes.size());
  auto jump = jumps.begin();
  for (const std::uint32_t index : indexes) {
    const xol::Displaced& point = g_process.table.points[index];
    while (jump != jumps.end() && g_process.table.points[*jump].address < point.address) ++jump;
    if (jump != jumps.end() && *jump == index) continue;
    bytes.push_back({point.address, (users_[index] & kArmed) == 0 ? std::uint8_t{0xcc} : point.first_byte});
  }
  if (auto denied = bytes.empty() ? std::nullopt : patch::write_text(bytes, memory)) return denied;
  for (const std::uint32_t index : indexes) {
    users_[index] = static_cast<std::uint16_t>((users_[index] ^ kArmed) | kWasArmed);
    if (!is_own(index) && !is_approach(index)) armed_points_ += (users_[index] & kArmed) != 0 ? 1 : -1;
  }
  synchronise();
  return std::nullopt;
}

// From here on no thread runs what it had fetched before. Source: membarrier(2), SYNC_CORE; SDM volume 3, 8.1.3.
void Probepoints::synchronise() {
  if (!has_membarrier_) return;
  sys::call4(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0);
  ++synchronisations_;
}

void Probepoints::retire_module(std::uint32_t module, const symbols::Module& where) {
  std::vector<Retired>& retired = retired_[module];
  for (std::uint32_t index = own_end_; index < g_process.table.count; ++index) {
    const std::uint64_t address = g_process.table.points[index].address;
    if (address < where.low() || address >= where.high()) continue;
    retired.push_back({index, address});
    table_->retire(index);
    detours_.forget(index);
    if ((users_[index] & kArmed) != 0 && !is_own(index) && !is_approach(index)) --armed_points_;
    users_[index] &= static_cast<std::uint16_t>(~kArmed);
  }
}

std::optional<std::string> Probepoints::revive_module(std::uint32_t module) {
  std::vector<std::uint32_t> indexes;
  for (const Retired& retired : retired_[module]) {
    table_->revive(retired.index, retired.address);
    if (!is_approach(retired.index)) indexes.push_back(retired.index);
  }
  retired_.erase(module);
  return write(indexes);
}

}  // namespace ubp::runtime
