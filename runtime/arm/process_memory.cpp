// Laying out the trap path's memory. See process_memory.h.
#include "runtime/arm/process_memory.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <span>

#include "runtime/base/clock.h"
#include "runtime/patch/poke.h"
#include "runtime/trap/frame.h"
#include "xol/assert.h"
#include "xol/make_area.h"

namespace ubp::runtime {
namespace {

using trap::g_process;

constexpr std::uint32_t kMostTasks = 16384;
constexpr std::uint32_t kFewestTasks = 16;
constexpr std::uint64_t kPage = xol::kPageBytes;
constexpr std::uint64_t kLikelyAreas = 2;  // the executable's and the libraries'

std::uint64_t whole_pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// UBP's own signal stack. The kernel puts the frames of all signals that are pending there, one within the other,
// before the first handler's first instruction; then those of a hit, and its consumers.
std::uint64_t stack_bytes() {
  constexpr std::uint64_t kSignals = 64, kTrapPath = 1024, kConsumers = 32768, kAround = 2 * kPage;
#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif
  unsigned a = 0, image = 0, c = 0, d = 0;
  std::uint64_t frame = getauxval(AT_MINSIGSTKSZ);  // since Linux 5.14
  if (frame == 0) frame = 1024 + (__get_cpuid_count(0xd, 0, &a, &image, &c, &d) != 0 ? image : 512);
  return whole_pages(kPage + (kSignals + 2) * (frame + trap::kRedZone) + kTrapPath + kConsumers + kAround +
                     kDetourSaveBytes);
}

// RLIMIT_AS in bytes; all of it when there is none.
std::uint64_t address_space_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return ~std::uint64_t{0};
  return limit.rlim_cur;
}

// Whether an int3 executed now by this thread is the runtime's.
bool reaches_runtime() {
  trap::KernelSigaction act{};
  std::uint64_t mask = 0;
  sys::call4(SYS_rt_sigaction, SIGTRAP, 0, reinterpret_cast<long>(&act), sizeof mask);
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&mask), sizeof mask);
  return act.handler == reinterpret_cast<std::uint64_t>(&trap::ubp_trap_entry) && (mask >> (SIGTRAP - 1) & 1) == 0;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

// How many slots the threads share, in every area.
std::uint32_t shared_slots(const TaskMemoryPlan& plan) {
  constexpr std::uint32_t kBudget = 16384;  // policy adaptive: 1 MiB an area
  switch (plan.policy) {
    case xol::Policy::kProbepoint: return plan.points;
    case xol::Policy::kSteal: return plan.slots;
    case xol::Policy::kAdaptive: return kBudget;
    case xol::Policy::kThread: break;
  }
  return 0;
}

// How the tables of one area's shared slots are laid out.
struct SharedTables {
  std::uint64_t entries = 0, bytes = 0;

  SharedTables(xol::Policy policy, std::uint32_t slots) {
    if (policy != xol::Policy::kSteal) entries = std::bit_ceil(std::uint64_t{slots} * 2 + 1);
    const std::uint64_t pool = policy == xol::Policy::kSteal ? slots * sizeof(std::uint32_t) : 0;
    bytes = whole_pages(64 + entries * sizeof(std::uint64_t) + pool);
  }
  xol::SharedSlots at(std::uint8_t* memory, std::uint32_t slots) const {
    xol::SharedSlots shared;
    shared.next = reinterpret_cast<std::atomic<std::uint32_t>*>(memory);
    shared.index = reinterpret_cast<std::atomic<std::uint64_t>*>(memory + 64);
    shared.index_mask = entries - 1;
    shared.points = reinterpret_cast<std::atomic<std::uint32_t>*>(memory + 64 + entries * sizeof(std::uint64_t));
    shared.slots = slots;
    return shared;
  }
};

// Makes an area's shared slots and their tables accessible.
bool open_shared(const xol::Area& area, std::uint32_t number) {
  if (g_process.slots.layout.shared_bytes == 0) return true;
  const xol::SharedSlots& shared = g_process.slots.shared[number];
  const SharedTables tables(g_process.slots.policy, shared.slots);
  return mprotect(shared.next, tables.bytes, PROT_READ | PROT_WRITE) == 0 &&
         xol::open_pages(area, g_process.slots.layout.shared_offset, g_process.slots.layout.shared_bytes);
}

}  // namespace

std::optional<std::string> map_task_memory(const TaskMemoryPlan& plan) {
  const xol::CacheGeometry geometry = xol::CacheGeometry::for_slots(plan.slots);
  const std::uint64_t per_area = round_up(geometry.slots * sizeof(xol::SlotCache::Tag) + geometry.sets, 8);
  // Whole pages a task: they are made accessible when it claims them, so that nothing is committed, locked in memory
  // (mlockall) or touched for tasks that never come.
  const std::uint64_t state_bytes = whole_pages(sizeof(trap::TaskState) + per_area * xol::kMaxAreas);
  const std::uint64_t counter_bytes = whole_pages(trap::kCounterNames * plan.points * sizeof(std::uint64_t));
  const std::uint32_t shared = shared_slots(plan);
  const SharedTables tables(plan.policy, shared);
  const std::uint64_t all_tables = shared == 0 ? 0 : trap::kHeatEntries + xol::kMaxAreas * tables.bytes;
  g_process.tasks.own_stack_bytes = stack_bytes();
  for (std::uint32_t tasks = kMostTasks; tasks >= kFewestTasks; tasks /= 2) {
    const xol::AreaLayout layout = xol::AreaLayout::for_slots(plan.slots, tasks, shared);
    const std::uint64_t states = whole_pages(layout.blocks * state_bytes);
    const std::uint64_t counters = whole_pages(layout.blocks * counter_bytes);
    const std::uint64_t stacks = layout.blocks * g_process.tasks.own_stack_bytes;
    const std::uint64_t bytes = kPage + states + counters + stacks + all_tables;
    // Leave most of a limited address space (RLIMIT_AS) to the application.
    const std::uint64_t whole = bytes + 2 * layout.area_bytes * kLikelyAreas;
    if (whole > address_space_limit() / 8 && tasks > kFewestTasks) continue;
    // Out of a jump's reach of the code, where detours want to lie: the kernel would put it right below the libraries.
    constexpr std::uint64_t kFar = std::uint64_t{64} << 30;
    const std::uint64_t here = whole_pages(reinterpret_cast<std::uint64_t>(trap::ubp_calibration_point));
    void* const hint = here > kFar + bytes ? reinterpret_cast<void*>(here - kFar - bytes) : nullptr;
    void* const memory = mmap(hint, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) continue;
    mprotect(memory, kPage, PROT_READ | PROT_WRITE);
    if (madvise(memory, bytes, MADV_WIPEONFORK) != 0) {
      const int error = errno;
      munmap(memory, bytes);
      return std::string("madvise(MADV_WIPEONFORK), Linux 4.14 or later: ") + std::strerror(error);
    }
    madvise(memory, bytes, MADV_DONTDUMP);
    auto* const at = static_cast<std::uint8_t*>(memory);
    madvise(at + kPage + states + counters, stacks,
            MADV_KEEPONFORK);  // a consumer may fork, and its child returns from it
    UBP_ASSERT(geometry.slots == geometry.sets * geometry.ways && layout.blocks != 0);
    g_process.slots.geometry = geometry;
    g_process.slots.layout = layout;
    g_process.tasks.blocks = layout.blocks;
    auto* const words = reinterpret_cast<std::atomic<std::uint32_t>*>(at);
    g_process.tasks.fork_state = &words[0];
    g_process.tasks.high_water = &words[32];  // cache lines apart
    g_process.tasks.threads_seen = &words[64];
    g_process.tasks.taken_out = reinterpret_cast<std::atomic<std::uint64_t>*>(&words[96]);
    g_process.tasks.states = at + kPage;
    g_process.tasks.state_bytes = state_bytes;
    g_process.tasks.counters = at + kPage + states;
    g_process.tasks.counter_bytes = counter_bytes;
    g_process.tasks.counted = plan.points;
    g_process.tasks.stacks = reinterpret_cast<std::uint64_t>(at + kPage + states + counters);
    g_process.slots.policy = plan.policy;
    if (shared != 0) {
      g_process.slots.heat = at + kPage + states + counters + stacks;
      mprotect(g_process.slots.heat, trap::kHeatEntries, PROT_READ | PROT_WRITE);
      for (std::uint64_t area = 0; area < xol::kMaxAreas; ++area) {
        g_process.slots.shared[area] =
            tables.at(g_process.slots.heat + trap::kHeatEntries + area * tables.bytes, shared);
      }
    }
    g_process.tasks.fork_state->store(trap::kReady, std::memory_order_relaxed);  // no other thread looks before arming
    return std::nullopt;
  }
  return std::string("mmap: ") + std::strerror(errno);
}

std::optional<std::uint32_t> find_or_make_area(std::uint64_t low, std::uint64_t high) {
  for (std::uint32_t area = 0; area < g_process.slots.area_count; ++area) {
    if (xol::area_serves(g_process.slots.areas[area], g_process.slots.layout, low, high)) return area;
  }
  if (g_process.slots.area_count == xol::kMaxAreas) return std::nullopt;
  const auto area = xol::make_area(low, high, g_process.slots.layout);
  if (!area) return std::nullopt;
  // Tasks that have their block already find it accessible in a late area too; at load there are none.
  const bool is_late =
      g_process.tasks.high_water->load(std::memory_order_relaxed) != 0;  // a task that claims now opens its own
  if ((is_late && !xol::open_pages(*area, 0, g_process.slots.layout.area_bytes)) ||
      !open_shared(*area, g_process.slots.area_count)) {
    xol::unmap_area(*area, g_process.slots.layout);
    return std::nullopt;
  }
  g_process.slots.areas[g_process.slots.area_count] = *area;
  __atomic_store_n(&g_process.slots.area_count, g_process.slots.area_count + 1,
                   __ATOMIC_RELEASE);  // whoever counts it finds it whole
  return g_process.slots.area_count - 1;
}

namespace {

// Gives `members`, all of them of one area, their slots: bytes that are executable already are written through the text
// poke, fresh pages before they become executable. False: no room, out of reach, or denied.
bool make_slots_in(std::uint32_t area, std::span<xol::Displaced* const> members) {
  constexpr std::uint64_t kSpareBytes = std::uint64_t{1} << 20;  // for those that come later
  trap::PermanentSlots& slots = g_process.slots.permanent[area];
  const std::uint64_t bytes = members.size() * xol::kSlotBytes;
  if (slots.base == 0) {
    const std::uint64_t near = g_process.slots.areas[area].rx, whole = whole_pages(bytes) + kSpareBytes;
    const auto base = xol::reserve_near(near, near + g_process.slots.layout.area_bytes, whole);
    if (!base) return false;
    slots = {*base, whole, 0};
  }
  UBP_ASSERT(slots.used <= slots.bytes);
  if (slots.bytes - slots.used < bytes) return false;
  const std::uint64_t begin = slots.base + slots.used, end = begin + bytes;
  const auto reaches = [&](const xol::Displaced* point) {
    return xol::in_reach(begin, bytes, point->address, point->address);
  };
  if (!std::all_of(members.begin(), members.end(), reaches)) return false;
  const std::uint64_t fresh = slots.base + whole_pages(slots.used),
                      fresh_bytes = whole_pages(end - slots.base) - whole_pages(slots.used);
  auto* const fresh_pages = reinterpret_cast<void*>(fresh);
  if (fresh_bytes != 0 && mprotect(fresh_pages, fresh_bytes, PROT_READ | PROT_WRITE) != 0) return false;
  std::vector<patch::Byte> late;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const std::uint64_t at = begin + i * xol::kSlotBytes;
    if (at >= fresh) {
      xol::write_permanent_slot(reinterpret_cast<std::uint8_t*>(at), xol::SlotAddress{at}, *members[i]);
      continue;
    }
    std::array<std::uint8_t, xol::kSlotBytes> image{};
    xol::write_permanent_slot(image.data(), xol::SlotAddress{at}, *members[i]);
    for (std::size_t byte = 0; byte < image.size(); ++byte) late.push_back({at + byte, image[byte]});
  }
  if (fresh_bytes != 0 && mprotect(fresh_pages, fresh_bytes, PROT_READ | PROT_EXEC) != 0) return false;
  if (!late.empty() && patch::write_text(late)) return false;
  const auto first = static_cast<std::uint32_t>(slots.used / xol::kSlotBytes);
  for (std::uint32_t i = 0; i < members.size(); ++i) members[i]->system.permanent = first + i;
  slots.used += bytes;
  return true;
}

}  // namespace

bool make_permanent_slots(std::vector<xol::Displaced>& points) {
  std::vector<std::vector<xol::Displaced*>> members(g_process.slots.area_count);
  for (xol::Displaced& point : points) {
    // One that has been a probepoint before has its slot.
    const bool is_new = point.route == decoder::Route::kSystem && g_process.table.find(point.address) == kNotFound;
    if (is_new) members[point.area].push_back(&point);
  }
  bool missing = false;
  for (std::uint32_t area = 0; area < g_process.slots.area_count; ++area) {
    if (!members[area].empty()) missing |= !make_slots_in(area, members[area]);
  }
  return missing;
}

bool has_permanent_slot(const xol::Displaced& point) {
  return point.route != decoder::Route::kSystem || point.system.permanent != xol::kNoPermanentSlot;
}

void find_stack_gap() {
  constexpr std::uint64_t kLeastGap = std::uint64_t{128} << 20,
                          kMostGap = std::uint64_t{1} << 40;       // mm/util.c: mmap_base
  const std::uint64_t top = getauxval(AT_RANDOM) / kPage * kPage;  // that page is the stack's
  rlimit limit{};
  const bool limited = getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < kMostGap;
  const std::uint64_t gap = limited ? std::max<std::uint64_t>(limit.rlim_cur, kLeastGap) : kMostGap;
  g_process.stack_gap.low = top - std::min(gap, top);
  g_process.stack_gap.high.store(top, std::memory_order_relaxed);  // before the first hit
}

void adopt_loading_thread() {
  constexpr std::uint64_t kMostStack = std::uint64_t{8} << 20, kAbove = std::uint64_t{64} << 10;
  if (sys::gettid() != sys::getpid()) return;  // not the stack that RLIMIT_STACK speaks of: its first hit asks
  rlimit limit{};
  const bool limited = getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur < kMostStack;
  const auto here = reinterpret_cast<std::uint64_t>(&limit);
  trap::ubp_trap_adopt_main(here - (limited ? limit.rlim_cur : kMostStack), here + kAbove);
  g_process.tasks.threads_seen->store(0,
                                      std::memory_order_relaxed);  // it is seen when it hits something: read_counters()
}

void set_return_mode() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1u << 27, kOspke = 1u << 4;
  g_process.processor.fast_return = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & kOsxsave) != 0;
  g_process.processor.pkru_offset = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (c & kOspke) != 0 &&
      __get_cpuid_count(0xd, 9, &a, &b, &c, &d) != 0) {
    g_process.processor.pkru_offset = b;  // SDM volume 1, 13.5: the component's offset in the standard format
  }
}

xol::Displaced calibration_point() {
  decoder::Instruction nop;
  nop.length = 1;
  nop.route = decoder::Route::kEmulate;
  constexpr std::uint8_t kNop = 0x90;
  return {reinterpret_cast<std::uint64_t>(trap::ubp_calibration_point), nop, &kNop};
}

double measure_hit_ns() {
  if (!reaches_runtime()) return 0;
  // Every process pays for this at its end: as many groups as there is time for, and no fewer than a median needs.
  constexpr std::size_t kGroups = 21, kFewest = 5;
  constexpr std::int64_t kHits = 4, kEnoughNs = 50'000;
  std::array<std::int64_t, kGroups> groups{};
  std::size_t count = 0;
  for (std::int64_t spent = 0; count < kGroups && (count < kFewest || spent < kEnoughNs); ++count) {
    const std::int64_t before = monotonic_ns(), begin = monotonic_ns();
    for (std::int64_t hit = 0; hit < kHits; ++hit) trap::ubp_calibration_call();
    const std::int64_t end = monotonic_ns();
    groups[count] = (end - begin) - (begin - before);  // what it takes to read the clock is no hit's
    spent += end - before;
  }
  const auto median = groups.begin() + static_cast<std::ptrdiff_t>(count / 2);
  std::nth_element(groups.begin(), median, groups.begin() + static_cast<std::ptrdiff_t>(count));
  return static_cast<double>(std::max<std::int64_t>(*median, 0)) / static_cast<double>(kHits);
}

namespace {

// Which pages of memory were ever written: most counters of most threads never are, and reading them would touch them
// all.
class WrittenPages {
 public:
  WrittenPages() : map_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {}
  ~WrittenPages() {
    if (map_ >= 0) close(map_);
  }
  WrittenPages(const WrittenPages&) = delete;
  WrittenPages& operator=(const WrittenPages&) = delete;

  // Calls visit(first, end), both in [begin, end), for what of this private memory may hold other than zeros. Where the
  // kernel does not tell, that is all of it. Source: Documentation/admin-guide/mm/pagemap.rst.
  template <typename Visit>
  void for_each(std::uint64_t begin, std::uint64_t end, Visit visit) {
    constexpr std::uint64_t kPresentOrSwapped = std::uint64_t{3} << 62;
    const std::uint64_t low = begin / kPage * kPage;
    entries_.resize(whole_pages(end - low) / kPage);
    const std::size_t size = entries_.size() * sizeof entries_[0];
    const auto at = static_cast<off_t>(low / kPage * sizeof entries_[0]);
    const bool is_told = map_ >= 0 && pread(map_, entries_.data(), size, at) == static_cast<ssize_t>(size);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const std::uint64_t page = low + i * kPage;
      if (!is_told || (entries_[i] & kPresentOrSwapped) != 0) visit(std::max(page, begin), std::min(page + kPage, end));
    }
  }

 private:
  int map_;
  std::vector<std::uint64_t> entries_;
};

}  // namespace

std::vector<std::uint64_t> read_counters(trap::Counter name, std::uint32_t first, std::uint32_t count) {
  std::vector<std::uint64_t> sums(count, 0);
  WrittenPages written;
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block) {
    const std::uint64_t* const counters = g_process.tasks.counters_of(block) + g_process.tasks.offset_of(name) + first;
    const auto begin = reinterpret_cast<std::uint64_t>(counters),
               end = reinterpret_cast<std::uint64_t>(counters + count);
    written.for_each(begin, end, [&](std::uint64_t from, std::uint64_t to) {
      for (std::uint64_t at = (from - begin) / sizeof *counters; at < (to - begin) / sizeof *counters; ++at) {
        sums[at] += __atomic_load_n(&counters[at], __ATOMIC_RELAXED);  // its owner may still count
      }
    });
  }
  return sums;
}

std::vector<std::uint64_t> read_counters(trap::Counter name) { return read_counters(name, 0, g_process.table.count); }

std::uint64_t counter_room() { return g_process.tasks.blocks * g_process.tasks.counter_bytes; }

bool share_counters(int file, std::uint64_t offset) {
  trap::Tasks& tasks = g_process.tasks;
  const std::uint64_t used = tasks.used_blocks() * tasks.counter_bytes;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> counted;  // where, and how much
  const auto* const words = reinterpret_cast<const std::uint64_t*>(tasks.counters);
  WrittenPages written;
  written.for_each(reinterpret_cast<std::uint64_t>(words), reinterpret_cast<std::uint64_t>(words) + used,
                   [&](std::uint64_t from, std::uint64_t to) {
                     for (; from < to; from += sizeof *words) {
                       const std::uint64_t index = (from - reinterpret_cast<std::uint64_t>(words)) / sizeof *words;
                       if (words[index] != 0) counted.emplace_back(index, words[index]);
                     }
                   });
  const auto map = [&](std::uint64_t begin, std::uint64_t end, int protection) {
    return begin == end || mmap(tasks.counters + begin, end - begin, protection, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
                                file, static_cast<off_t>(offset + begin)) != MAP_FAILED;
  };
  if (!map(0, used, PROT_READ | PROT_WRITE)) return false;
  UBP_ASSERT(map(used, counter_room(), PROT_NONE));
  madvise(tasks.counters, counter_room(), MADV_DONTDUMP);
  for (const auto& [index, count] : counted) reinterpret_cast<std::uint64_t*>(tasks.counters)[index] += count;
  tasks.shares_counters = true;
  return true;
}

std::uint64_t read_own_traps() {
  std::uint64_t traps = 0;
  for (std::uint32_t block = 0; block < g_process.tasks.used_blocks(); ++block)
    traps += __atomic_load_n(&g_process.tasks.state(block)->own_traps, __ATOMIC_RELAXED);
  return traps;
}

void read_slot_stats(std::uint32_t own_points, report::XolStats& stats) {
  const std::uint32_t used = g_process.tasks.used_blocks();
  if (used == 0) return;
  // The thread that was adopted at load is seen when it has hit a probe.
  const std::uint64_t* const first = g_process.tasks.counters_of(0);
  if (std::any_of(first + own_points, first + g_process.table.count, [](std::uint64_t count) { return count != 0; }))
    ++stats.threads_seen;
  for (std::uint32_t block = 0; block < used; ++block) {
    const trap::TaskState* task = g_process.tasks.state(block);
    stats.hits += task->slot_hits;
    stats.misses += task->misses;
    stats.refills += task->refills;
    stats.evictions += task->evictions;
  }
  stats.threads_seen += g_process.tasks.threads_seen->load(std::memory_order_relaxed);        // a statistic
  stats.taken_out = g_process.tasks.taken_out->load(std::memory_order_relaxed);               // a statistic
  stats.uncounted_tasks = g_process.segment.uncounted_tasks.load(std::memory_order_relaxed);  // a statistic
  const bool by_thread =
      g_process.slots.policy == xol::Policy::kThread || g_process.slots.policy == xol::Policy::kAdaptive;
  stats.area_bytes =
      by_thread ? std::uint64_t{used} * g_process.slots.layout.block_bytes * g_process.slots.area_count : 0;
  for (std::uint32_t area = 0; area < g_process.slots.area_count; ++area) {
    const xol::SharedSlots& shared = g_process.slots.shared[area];
    const bool is_pool = g_process.slots.policy == xol::Policy::kSteal;
    const std::uint32_t slots = shared.slots == 0 || is_pool ? shared.slots
                                                             : std::min(shared.next->load(std::memory_order_relaxed),
                                                                        shared.slots);  // a statistic
    stats.area_bytes += g_process.slots.permanent[area].used + slots * xol::kSlotBytes;
  }
}

}  // namespace ubp::runtime
