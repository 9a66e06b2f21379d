// Making detours: what they execute, where they lie, and their bytes. See detours.h.
#include "runtime/jump/detours.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "runtime/consumers/consumer_list.h"
#include "runtime/jump/floating.h"
#include "runtime/patch/poke.h"
#include "runtime/trap/segment.h"

namespace ubp::runtime {

using decoder::kJumpBytes;
using decoder::kMostPrefixes;
using trap::Counter;
using trap::g_process;

namespace {

constexpr std::uint64_t kAutoBudget = std::uint64_t{64} << 20, kBudget = std::uint64_t{1} << 30;

bool reserve_chunk(std::uint64_t base) {
  void* const wanted = reinterpret_cast<void*>(base);
  void* const got = mmap(wanted, kChunkBytes, PROT_READ | PROT_EXEC,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == wanted) {
    madvise(got, kChunkBytes, MADV_DONTDUMP);  // no core needs them
    madvise(got, kChunkBytes, MADV_NOHUGEPAGE);
    return true;
  }
  if (got != MAP_FAILED) munmap(got, kChunkBytes);  // a kernel before 4.17 takes the address as a hint
  return false;
}

std::int32_t thread_offset(const void* address) {
  const auto thread = reinterpret_cast<std::uint64_t>(__builtin_thread_pointer());
  return static_cast<std::int32_t>(reinterpret_cast<std::uint64_t>(address) - thread);
}

constexpr std::uint64_t kLow = std::uint64_t{1} << 31;  // programs that are no PIE lie below

// The highest bytes of a displacement that lead to where detours may lie, best first. A program at the bottom of the
// address space keeps the room for its heap; above libraries is the stack.
std::span<const std::uint8_t> directions(std::uint64_t origin) {
  static constexpr std::uint8_t kDown[] = {0xcc, 0xc4, 0xd4, 0xdc, 0xe8}, kUp[] = {0x60, 0x50, 0x40, 0x30, 0x20};
  return origin < kLow ? std::span<const std::uint8_t>(kUp) : std::span<const std::uint8_t>(kDown);
}
// Whether one that a boundary asks for leads there too.
bool is_direction(std::uint64_t origin, std::uint8_t highest) {
  constexpr std::uint64_t kHigh = std::uint64_t{0x7e} << 40;
  constexpr std::uint8_t kNearestUp = 0x0f, kFurthestUp = 0x7e, kFurthestDown = 0x90;  // jcc rel32 begins with 0x0f
  if (highest >= kFurthestDown) return origin >= kLow;
  return highest >= kNearestUp && highest <= kFurthestUp && origin < kHigh;
}

bool has_points(std::uint64_t begin, std::uint64_t end) {
  while (begin < end && g_process.table.find(begin) == kNotFound) ++begin;
  return begin < end;
}

JumpState tier_of(decoder::WindowProblem problem) {
  switch (problem) {
    case decoder::WindowProblem::kNone: return JumpState::kReady;
    case decoder::WindowProblem::kTooShort: return JumpState::kTooShort;
    case decoder::WindowProblem::kInstruction: return JumpState::kInstruction;
    case decoder::WindowProblem::kTarget: return JumpState::kTarget;
  }
  return JumpState::kInstruction;
}

}  // namespace

Detours::Detours() : space_(reserve_chunk) {}

void Detours::start(Optimize optimize, std::size_t capacity, Callbacks callbacks) {
  optimize_ = optimize;
  if (optimize == Optimize::kNever) return;
  void* const infos = mmap(nullptr, capacity * sizeof(void*), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (infos == MAP_FAILED) throw std::bad_alloc();
  g_process.detours.infos = static_cast<const DetourInfo**>(infos);
  budget_ = optimize == Optimize::kAuto ? kAutoBudget : kBudget;
  callbacks_ = std::move(callbacks);
  const std::uint64_t segment =
      g_process.segment.unread + g_process.tasks.offset_of(Counter::kJumped) * sizeof(std::uint64_t);
  const trap::Thread& thread = trap::t_thread;
  const DetourStorage storage{thread_offset(&thread.state),       thread_offset(&thread.spilled.rcx),
                              thread_offset(&thread.spilled.rax), thread_offset(&thread.spilled.rdx),
                              static_cast<std::int32_t>(segment), thread_offset(&thread.spilled.status)};
  writer_ = std::make_unique<DetourWriter>(storage);
}

void Detours::set(std::uint32_t index, JumpState state) {
  if (states_.size() <= index) states_.resize(index + 1, JumpState::kUnseen);
  states_[index] = state;
}

void Detours::stage(std::uint64_t address, std::span<const std::uint8_t> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t page = address & ~(kPage - 1), offset = address - page;
    const auto [found, is_new] = pages_.try_emplace(page);
    const bool is_fresh = written_.insert(page).second;  // then it is all zeros, and not worth a page fault
    if (is_new && !is_fresh) std::memcpy(found->second.data(), reinterpret_cast<const void*>(page), kPage);
    const std::size_t size = std::min<std::size_t>(bytes.size(), kPage - offset);
    std::copy_n(bytes.begin(), size, found->second.begin() + static_cast<std::ptrdiff_t>(offset));
    bytes = bytes.subspan(size);
    address += size;
  }
}

namespace {

// What the detour of a jump is to execute and count: the window, which ends at `cut` or behind, then what follows as
// far as it pays. chain_of: where a probepoint's detour, in the window or behind it, is to be led to; null: nowhere.
template <typename IsConsumed, typename ChainOf>
DetourPlan plan_detour(const DetouredFunction& function, std::uint32_t offset, const decoder::Straight& straight,
                       std::uint32_t jump_bytes, std::uint32_t cut, const IsConsumed& is_consumed,
                       const ChainOf& chain_of) {
  const std::uint64_t origin = function.entry + offset;
  DetourPlan plan;
  std::size_t wanted = 0;  // parts that are needed, or worth having
  for (const decoder::Straight::Part& part : straight.parts) {
    const bool is_window = part.offset < cut;
    if (!is_window && (cut < jump_bytes || part.offset + part.instruction.length > kMostDetourLength)) break;
    const std::uint32_t point = g_process.table.find(origin + part.offset);
    const bool is_point = point != kNotFound;
    const DetourInfo* const chain = is_point && part.offset != 0 ? chain_of(point, part.offset < jump_bytes) : nullptr;
    if (chain != nullptr) {
      plan.parts.push_back({static_cast<std::uint8_t>(part.offset), part.instruction, false, false, 0, chain});
      wanted = plan.parts.size();
      continue;  // what aligns the next instruction may be in the window still
    }
    if (!is_window && is_point && is_consumed(point)) break;
    const bool by_segment = is_point && trap::counts_by_segment() &&
                            decoder::has_dead_flags(function.code, offset + part.offset, function.elsewhere);
    plan.parts.push_back({static_cast<std::uint8_t>(part.offset), part.instruction, is_point, by_segment,
                          static_cast<std::uint32_t>(point * sizeof(std::uint64_t))});
    if (is_window || is_point || part.instruction.ends_block) wanted = plan.parts.size();
  }
  plan.parts.resize(wanted);
  plan.length = plan.parts.back().offset + plan.parts.back().instruction.length;
  return plan;
}

// Where the window of a jump may end, best first: before a call, which is best left where it is; behind the jump, if
// what is there can all be moved; and before any instruction that is kept.
std::vector<std::uint32_t> cuts(const decoder::Straight& straight, std::uint32_t jump_bytes, bool can_cover) {
  std::vector<std::uint32_t> found;
  for (const decoder::Straight::Part& part : straight.parts) {
    if (part.instruction.is_call && part.offset != 0 && part.offset < jump_bytes) found.push_back(part.offset);
  }
  if (can_cover) found.push_back(jump_bytes);
  if (!straight.parts.empty() && straight.length < jump_bytes) found.push_back(straight.length);
  for (auto part = straight.parts.rbegin(); part != straight.parts.rend(); ++part) {
    if (part->offset != 0 && part->offset < jump_bytes && !part->instruction.is_call) found.push_back(part->offset);
  }
  return found;
}

}  // namespace

bool Detours::is_consumed(std::uint32_t index) const {
  return g_process.table.points[index].has_consumers || (index < expected_.size() && expected_[index]);
}

// Where a detour is to lead to for the consumers of a probepoint that it meets; null: nowhere. Its int3 may have to be
// taken out (ubp_trap_without_state) if it needs a slot, and not be part of a jump's window then.
const DetourInfo* Detours::chain_of(std::uint32_t index, bool is_in_window) const {
  if (!is_consumed(index)) return nullptr;
  if (is_in_window && g_process.table.points[index].route != decoder::Route::kEmulate) return nullptr;
  const auto expected = expected_needs_.find(index);
  const bool is_expected = expected != expected_needs_.end();
  return best_of(index, is_expected ? expected->second : callbacks_.needs(index),
                 [](const ForConsumers& made) { return made.ends_block; });
}

// Whether it would be made otherwise now, and better, for what has consumers and what has not.
bool Detours::is_outdated(const DetourInfo& info) const {
  for (std::uint32_t part = 1; part < info.count; ++part) {
    if (!info.is_counted(part) && !info.is_chained(part)) continue;
    const std::uint32_t point = g_process.table.find(info.origin + info.starts[part]);
    const DetourInfo* const chain = point != kNotFound ? chain_of(point, info.starts[part] < info.jump_bytes) : nullptr;
    if (chain != (info.is_chained(part) ? info.chain : nullptr)) return true;
  }
  return false;
}

JumpState Detours::place(std::uint32_t index, DetouredFunction& function, std::uint32_t offset,
                         const DetourConsumers* consumers) {
  const std::uint64_t origin = function.entry + offset;
  if (offset >= function.code.bytes.size())
    return JumpState::kTooShort;  // behind a restartable sequence the code is not read
  const auto code = function.code.bytes.subspan(offset);
  JumpState problem = JumpState::kReady;  // the first one met
  const auto note = [&](JumpState tier) { problem = problem == JumpState::kReady ? tier : problem; };
  for (std::uint32_t prefixes = 0; prefixes <= kMostPrefixes; ++prefixes) {
    const std::uint32_t jump_bytes = kJumpBytes + prefixes;
    const decoder::Straight straight = decoder::follow(function.code, offset, kMostParts, jump_bytes);
    const decoder::WindowProblem window = decoder::window_problem(function.code, offset, straight, jump_bytes);
    const bool can_cover = window == decoder::WindowProblem::kNone;
    if (!can_cover) note(tier_of(window));
    for (const std::uint32_t cut : cuts(straight, jump_bytes, can_cover)) {
      if (cut < jump_bytes && (code.size() < jump_bytes || has_points(origin + cut, origin + jump_bytes))) continue;
      if (function.targets.lead_into(offset + 1, offset + std::min(cut, straight.length))) {
        note(JumpState::kTarget);
        continue;
      }
      const DetourPlan plan = plan_detour(
          function, offset, straight, jump_bytes, cut, [this](std::uint32_t point) { return is_consumed(point); },
          [this](std::uint32_t point, bool is_in_window) { return chain_of(point, is_in_window); });
      Pattern pattern;
      if (!boundary_pattern(plan, prefixes, cut, code, pattern)) continue;
      const DetourSize size = writer_->size_of(plan, consumers);
      if (size.head + size.code > kMostDetourBytes) continue;  // nobody would find it from its end
      if (const auto entry = find_place(origin, jump_bytes, plan, size, pattern, code)) {
        make_at(*entry, index, origin, jump_bytes, plan, size, code, consumers);
        function.latest = index;
        function.window_end = offset + jump_bytes;
        function.covered_end = offset + plan.length;
        return JumpState::kReady;
      }
    }
  }
  return problem == JumpState::kReady ? JumpState::kNoAddress : problem;
}

namespace {

// Whether another detour may lead to one of the instruction there: nothing comes behind it.
bool ends_block(const DetouredFunction& function, std::uint32_t offset) {
  const decoder::Straight straight = decoder::follow(function.code, offset, 1, 1);
  return !straight.parts.empty() && straight.parts.front().instruction.ends_block;
}

}  // namespace

// One without a jump, of an instruction that ends its block.
void Detours::place_alone(std::uint32_t index, const DetouredFunction& function, std::uint32_t offset,
                          const DetourConsumers& consumers) {
  const decoder::Straight straight = decoder::follow(function.code, offset, 1, 1);
  const auto code = function.code.bytes.subspan(offset);
  DetourPlan plan;
  plan.parts.push_back({0, straight.parts.front().instruction, true, false,
                        static_cast<std::uint32_t>(index * sizeof(std::uint64_t)), nullptr});
  plan.length = straight.length;
  const DetourSize size = writer_->size_of(plan, &consumers);
  if (size.head + size.code > kMostDetourBytes) return;
  const std::uint64_t origin = function.entry + offset;
  if (const auto entry = find_place(origin, kJumpBytes, plan, size, {}, code))
    make_at(*entry, index, origin, 0, plan, size, code, &consumers);
}

void Detours::make_at(std::uint64_t entry, std::uint32_t index, std::uint64_t origin, std::uint32_t jump_bytes,
                      const DetourPlan& plan, DetourSize size, std::span<const std::uint8_t> code,
                      const DetourConsumers* consumers) {
  DetourInfo& info = infos_.emplace_back();
  info.entry = entry;
  info.origin = origin;
  info.point = index;
  info.jump_bytes = static_cast<std::uint8_t>(jump_bytes);
  std::vector<std::uint8_t> image(size.head + size.code);
  writer_->write(image, info, plan, code, consumers);
  stage(info.head(), image);
  made_.push_back(&info);
}

std::optional<std::uint64_t> Detours::find_place(std::uint64_t origin, std::uint32_t jump_bytes, const DetourPlan& plan,
                                                 DetourSize size, Pattern pattern, std::span<const std::uint8_t> code) {
  constexpr std::uint32_t kHighest = 0xff000000;
  const auto try_highest = [&](std::uint8_t direction) -> std::optional<std::uint64_t> {
    const std::uint32_t highest = std::uint32_t{direction} << 24;
    const Pattern fixed{pattern.mask | kHighest, (pattern.value & ~kHighest) | highest};
    const auto entry =
        space_.place(origin + jump_bytes, fixed, size, {origin, origin + std::max(jump_bytes, plan.length)});
    return entry && reaches(plan, origin, *entry, code) ? entry : std::nullopt;
  };
  if ((pattern.mask & kHighest) != 0) {
    const auto highest = static_cast<std::uint8_t>(pattern.value >> 24);
    return is_direction(origin, highest) ? try_highest(highest) : std::nullopt;
  }
  for (const std::uint8_t direction : directions(origin)) {
    if (const auto entry = try_highest(direction)) return entry;
  }
  return std::nullopt;
}

void Detours::keep_int3(std::uint32_t index) {
  if (state(index) == JumpState::kUnseen) set(index, JumpState::kNotEntry);
}

void Detours::make(std::uint32_t index, DetouredFunction& function, std::uint32_t offset) {
  if (state(index) != JumpState::kUnseen && state(index) != JumpState::kNotEntry) return;
  const bool is_covered = offset < function.window_end ||
                          (offset < function.covered_end && !function.targets.lead_into(offset, offset + 1));
  if (is_covered) {
    set(index, JumpState::kCovered);
    covered_by_[index] = function.latest;
    newly_covered_.push_back(index);
  } else if (is_stopped_) {
    set(index, JumpState::kUnsupported);
  } else if (used_bytes() >= budget_) {
    set(index, JumpState::kBudget);
  } else {
    set(index, place(index, function, offset, nullptr));
  }
  constexpr std::size_t kMostPages = 1024;
  if (pages_.size() >= kMostPages) flush();
}

void Detours::make_approach(std::uint32_t index, DetouredFunction& function, std::uint32_t offset) {
  const bool may_be_made = state(index) == JumpState::kUnseen || state(index) == JumpState::kNotEntry;
  if (!may_be_made || is_stopped_ || used_bytes() >= budget_) return;
  const std::size_t made = made_.size();
  place(index, function, offset, nullptr);
  const bool leads = made_.size() != made && made_.back()->chain != nullptr;
  set(index, leads ? JumpState::kReady : JumpState::kNotEntry);
}

void Detours::make_for_consumers(std::uint32_t index, DetouredFunction& function, std::uint32_t offset,
                                 const ActionNeeds& needs) {
  expected_needs_.insert_or_assign(index, needs);
  const auto [first, last] = for_consumers_.equal_range(index);
  const bool has_one = std::any_of(first, last, [&](const auto& made) {
    return made.second.needs.has_same_block(needs) && made.second.needs.covers(needs) &&
           !is_outdated(*made.second.info);
  });
  if (has_one || is_stopped_ || used_bytes() >= budget_ || state(index) == JumpState::kUnseen) return;
  DetourConsumers consumers;
  consumers.needs = needs;
  consumers.list = reinterpret_cast<std::uint64_t>(&g_consumers[index]);
  const auto from_jumped = [&](Counter name) {
    const std::uint64_t between = g_process.tasks.offset_of(name) - g_process.tasks.offset_of(Counter::kJumped);
    return static_cast<std::uint32_t>((between + needs.counter) * sizeof(std::uint64_t));
  };
  consumers.dropped = from_jumped(Counter::kDropped);
  consumers.skipped = from_jumped(Counter::kSkipped);
  consumers.performed = from_jumped(Counter::kPerformed);
  consumers.is_inside = offset != 0;
  consumers.error = static_cast<std::int32_t>(g_errno_offset);
  consumers.cancel = g_cancel_offset;
  if (needs.all_fp) {
    const std::optional<Floating> floating = find_floating();
    if (!floating) return;
    consumers.floating = *floating;
  }
  const std::size_t made = made_.size();
  place(index, function, offset, &consumers);
  const bool is_last = ends_block(function, offset);
  if (made_.size() == made && is_last) place_alone(index, function, offset, consumers);
  if (made_.size() == made) return;
  for_consumers_.emplace(index, ForConsumers{needs, made_.back(), is_last});
}

void Detours::flush() {
  bool is_denied = false;
  std::vector<patch::Page> pages;
  for (const auto& [address, page] : pages_) pages.push_back({address, page.data()});
  is_denied = patch::write_pages(pages).has_value();
  for (const DetourInfo* info : made_) {
    if (is_denied) {
      states_[info->point] = JumpState::kUnsupported;
      continue;
    }
    space_.publish(g_process.detours, info->head());
    const DetourInfo* const present = g_process.detours.of(info->point);
    const bool is_own = present != nullptr && present->point == info->point;
    if (is_own) {
      auto* const other = const_cast<DetourInfo*>(present);
      const_cast<DetourInfo*>(info)->previous = other->previous != nullptr ? other->previous : other;
      __atomic_store_n(&other->previous, info, __ATOMIC_RELEASE);  // pairs with next_from()
    }
    if (info->shape->is_for_consumers) {
      counting_.try_emplace(info->point, present);
      if (info->jump_bytes != 0 || present != nullptr) continue;
    }
    if (const auto other = counting_.find(info->point); other != counting_.end()) other->second = info;
    __atomic_store_n(&g_process.detours.infos[info->point], info, __ATOMIC_RELEASE);  // pairs with DetourView::of
  }
  for (const std::uint32_t index : newly_covered_) {
    const DetourInfo* const info = g_process.detours.of(covered_by_.at(index));
    __atomic_store_n(&g_process.detours.infos[index], info, __ATOMIC_RELEASE);  // likewise
  }
  newly_covered_.clear();
  pages_.clear();
  made_.clear();
  is_stopped_ |= is_denied;
}

}  // namespace ubp::runtime
