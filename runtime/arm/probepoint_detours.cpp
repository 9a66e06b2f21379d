// Which probepoints get detours: new ones, those that go stale, and those that become hot. See probepoints.h.
#include <algorithm>
#include <stdexcept>

#include "decoder/walk.h"
#include "runtime/arm/probepoints.h"
#include "runtime/arm/threads.h"
#include "runtime/consumers/consumers.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using trap::g_process;

// Takes out the jumps whose windows are about to hold a probepoint: an int3 there would be taken for its own.
void Probepoints::clear_windows(const std::vector<xol::Displaced>& points) {
  if (detours_.jumps() == 0) return;
  std::vector<std::uint32_t> jumps;
  for (const xol::Displaced& point : points) detours_.jumps_over(point.address, jumps);
  sort_by_address(jumps);
  if (auto denied = detours_.remove(jumps, is_only_thread())) throw std::runtime_error(*denied);
  cleared_.insert(cleared_.end(), jumps.begin(), jumps.end());
}

// Of the new probepoints, and again of those whose detours do not know one of them.
void Probepoints::prepare_detours(plan::Plan& plan, const Runs& runs, const plan::Modules& modules,
                                  std::uint32_t first_new, const Consumer* consumer) {
  if (detours_.mode() == Optimize::kNever) return;
  std::vector<Wanted> wanted;
  std::uint32_t last = ~0U;
  for (const plan::Probe& probe : plan.probes()) {
    if (probe.point < plan.first_point() || probe.point == last) continue;
    last = probe.point;
    const std::uint32_t index = index_of(runs, probe.point);
    if (is_own(index)) continue;
    if (detours_.wants(probe.offset)) {
      const auto module = static_cast<std::uint32_t>(probe.module);
      wanted.push_back({index, module, probe.offset, &modules.table_of(module).functions()[probe.function], false});
    } else {
      detours_.keep_int3(index);
    }
  }
  // Functions' exits are as hot as their entries.
  const auto before = [](const plan::Probe& probe, std::uint32_t point) { return probe.point < point; };
  for (const plan::Exit& exit : plan.exits()) {
    const auto same = std::lower_bound(plan.probes().begin(), plan.probes().end(), exit.number, before);
    const std::uint32_t index = index_of(runs, exit.number);
    if (is_own(index) || (same != plan.probes().end() && same->point == exit.number)) continue;
    const auto its = detours_.wants(0) ? wanted_at(index, modules) : std::nullopt;
    if (its) {
      wanted.push_back(*its);
    } else {
      detours_.keep_int3(index);
    }
  }
  note_approaches(plan, runs, first_new);
  for (const plan::Exit& exit : plan.exits()) {
    const std::uint32_t index = exit.approach ? index_of(runs, exit.approach_number) : kNotFound;
    const auto its = index != kNotFound && is_approach(index) ? wanted_at(index, modules) : std::nullopt;
    if (its) wanted.push_back(*its);
  }
  std::vector<std::uint32_t> stale;
  for (std::uint32_t index = first_new; detours_.has_any() && index < g_process.table.count; ++index) {
    detours_.take_stale(g_process.table.points[index].address, stale);
  }
  for (const std::uint32_t index : stale) {
    if (const auto again = wanted_at(index, modules)) wanted.push_back(*again);
  }
  if (consumer != nullptr) {
    for (const plan::Probe& probe : plan.probes()) detours_.expect_consumers(index_of(runs, probe.point));
    for (const plan::Exit& exit : plan.exits()) detours_.expect_consumers(index_of(runs, exit.number));
  }
  make_wanted(wanted, modules, consumer);
  detours_.forget_expected();
}

// The plan's probepoints that are new, and nothing else than approaches; what was one may now be more.
void Probepoints::note_approaches(plan::Plan& plan, const Runs& runs, std::uint32_t first_new) {
  for (const plan::Exit& exit : plan.exits()) {
    const std::uint32_t index = exit.approach ? index_of(runs, exit.approach_number) : kNotFound;
    if (index != kNotFound && index >= first_new && !is_own(index)) approaches_.insert(index);
  }
  if (approaches_.empty()) return;
  const auto is_more = [&](std::uint32_t point) {
    const std::uint32_t index = index_of(runs, point);
    if (approaches_.erase(index) != 0 && (users_[index] & kArmed) != 0) ++armed_points_;
  };
  for (const plan::Probe& probe : plan.probes()) {
    if (probe.point >= plan.first_point()) is_more(probe.point);
  }
  for (const plan::Exit& exit : plan.exits()) is_more(exit.number);
}

std::optional<Probepoints::Wanted> Probepoints::wanted_at(std::uint32_t index, const plan::Modules& modules) const {
  const std::uint64_t address = g_process.table.points[index].address;
  const auto module = modules.module_at(address);
  if (!module) return std::nullopt;
  const std::uint64_t elf_address = address - modules.all()[*module].bias;
  const symbols::Function* const function = modules.table_of(*module).containing(elf_address);
  if (function == nullptr) return std::nullopt;
  return Wanted{index, *module, static_cast<std::uint32_t>(elf_address - function->address), function,
                is_approach(index)};
}

void Probepoints::promote(std::uint32_t index, const plan::Modules& modules) {
  constexpr std::uint64_t kWarm = 32, kFurthest = 4096;  // hits; bytes
  const auto wants = [&](std::uint32_t point) {
    return detours_.reason(point) == JumpState::kNotEntry && (users_[point] & kArmed) != 0;
  };
  if (!wants(index)) return;
  const auto hot = wanted_at(index, modules);
  if (!hot) return;
  std::vector<Wanted> wanted;
  const std::uint64_t address = g_process.table.points[index].address,
                      begin = address - std::min<std::uint64_t>(hot->offset, kFurthest);
  for (std::uint64_t at = begin; at < address + kFurthest && at - begin < hot->function->end - hot->function->address;
       ++at) {
    const std::uint32_t point = g_process.table.find(at);
    if (point == kNotFound || is_own(point) || is_approach(point) || !wants(point)) continue;
    std::uint64_t count = 0;
    for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) {
      count += __atomic_load_n(&g_process.tasks.counters_of(block)[point], __ATOMIC_RELAXED);  // its owner counts on
    }
    if (count >= kWarm)
      wanted.push_back(
          {point, hot->module, static_cast<std::uint32_t>(hot->offset + (at - address)), hot->function, false});
  }
  make_wanted(wanted, modules, nullptr);
  for (const Wanted& one : wanted) cleared_.push_back(one.index);
  commit({}, false);  // denied: they stay as they are
}

namespace {

// Where the functions right before one jump into it, behind its first byte, as those of a family that share their code
// do: libc's mempcpy goes on behind the first instruction of memmove.
std::vector<std::uint32_t> led_into(const plan::Modules& modules, std::uint32_t module,
                                    const symbols::Function* function, symbols::Readable& readable) {
  constexpr std::uint64_t kReach = 128, kMostBytes = kMostJumpBytes + decoder::kMaxInstructionBytes;
  const symbols::Function* const first = modules.table_of(module).functions().data();
  const symbols::Function* before = function;
  while (before != first && function->address - before->address < kReach) --before;
  const std::uint64_t begin = std::max(before->address, function->address - std::min(function->address, kReach));
  const plan::Code near = modules.code_from(module, begin, function->address, readable);
  if (near.size() != function->address - begin) return {};
  std::vector<std::uint32_t> targets;
  for (const decoder::JumpInto& jump : decoder::jumps_behind_entry(near, kMostBytes)) {
    const std::uint64_t address = begin + jump.at;
    const symbols::Function* const from = modules.table_of(module).containing(address);
    if (from == nullptr || from->address >= function->address) continue;
    const plan::Code code = modules.code_from(module, from->address, function->address, readable);
    const decoder::Walk walk = decoder::walk_function(code, 0);
    const auto is_it = [&](const decoder::Decoded& decoded) { return decoded.offset == address - from->address; };
    if (std::any_of(walk.reached.begin(), walk.reached.end(), is_it)) targets.push_back(jump.target);
  }
  return targets;
}

DetouredFunction detoured_at(const plan::Modules& modules, std::uint32_t module_index,
                             const symbols::Function* function, symbols::Readable& readable) {
  const symbols::Module& module = modules.all()[module_index];
  const std::vector<symbols::Function>& functions = modules.table_of(module_index).functions();
  const symbols::Function *next = function, *const end = functions.data() + functions.size();
  while (next != end && next->address <= function->address) ++next;
  const std::uint64_t own =
      (function->size != 0 ? function->address + function->size : function->end) - function->address;
  const std::uint64_t code_end =
      modules.next_rseq(module_index, function->address, next == end ? function->end : next->address);
  const auto elsewhere = [&modules, &readable, module_index, entry = function->address](std::int64_t at, auto into) {
    const std::uint64_t address = entry + static_cast<std::uint64_t>(at);
    const plan::Code code = modules.code_from(module_index, address, address + into.size(), readable);
    return static_cast<std::size_t>(std::ranges::copy(code, into.begin()).out - into.begin());
  };
  return {modules.code_from(module_index, function->address, code_end, readable), own, function->address + module.bias,
          elsewhere, led_into(modules, module_index, function, readable)};
}

}  // namespace

void Probepoints::make_wanted(std::vector<Wanted>& wanted, const plan::Modules& modules, const Consumer* consumer) {
  const auto before = [](const Wanted& a, const Wanted& b) {
    return g_process.table.points[a.index].address < g_process.table.points[b.index].address;
  };
  if (!std::is_sorted(wanted.begin(), wanted.end(), before)) std::sort(wanted.begin(), wanted.end(), before);
  symbols::Readable readable;
  for (auto first = wanted.begin(), behind = first; first != wanted.end(); first = behind) {
    behind = std::find_if(first, wanted.end(), [&](const Wanted& its) { return its.function != first->function; });
    DetouredFunction detoured = detoured_at(modules, first->module, first->function, readable);
    for (auto its = first; its != behind; ++its) {
      if (!its->is_approach) detours_.make(its->index, detoured, its->offset);
    }
    for (auto its = behind; its-- != first;) {
      const bool has_consumers = consumer != nullptr || g_process.table.points[its->index].has_consumers;
      if (has_consumers && !its->is_approach)
        detours_.make_for_consumers(its->index, detoured, its->offset, Consumers::needs(its->index, consumer));
    }
    for (auto its = first; its != behind; ++its) {
      if (its->is_approach) detours_.make_approach(its->index, detoured, its->offset);
    }
  }
  detours_.flush();
}

}  // namespace ubp::runtime
