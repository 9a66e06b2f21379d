// See place.h.
#include "runtime/session/place.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <ctime>
#include <new>

#include "runtime/helpers/read_map.h"
#include "runtime/stack/module_log.h"
#include "xol/sys.h"

namespace ubp::program {
namespace {

constexpr std::uint64_t kChunks = 1024;    // 64 MiB of events
constexpr std::uint64_t kSpareNodes = 64;  // that threads hold while they insert
constexpr std::uint64_t kMostShards = 32, kSharedShards = 4, kMostCellBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kLine = 128;  // what processors fetch together

// Hands out one piece of memory behind the other; without memory, it only counts.
class Pieces {
 public:
  explicit Pieces(std::uint8_t* memory) : memory_(memory) {}
  template <typename T>
  T* take(std::uint64_t count) {
    const std::uint64_t begin = (bytes_ + kLine - 1) & ~(kLine - 1);
    bytes_ = begin + count * sizeof(T);
    return memory_ != nullptr ? reinterpret_cast<T*>(memory_ + begin) : nullptr;
  }
  void begin_page() { bytes_ = (bytes_ + sys::kPageBytes - 1) & ~(sys::kPageBytes - 1); }
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint8_t* memory_;
  std::uint64_t bytes_ = 0;
};

std::uint64_t cells_for(const Map& map) {
  switch (map.value.aggregate) {
    case Aggregate::kNone: return 0;
    case Aggregate::kCount:
    case Aggregate::kSum: return 1;
    case Aggregate::kHistogram: return histogram_cells(map.power);
    case Aggregate::kLinear: return linear_cells(map.low, map.high, map.step);
    case Aggregate::kSeries:
      return static_cast<std::uint64_t>(map.high) * series_pairs(static_cast<Series>(map.power)) * kPairWords;
    default: return 2;
  }
}

MapView view_of(const Map& map, Pieces& pieces) {
  MapView view{};
  view.key_words = map.key.words();
  view.value_words = map.value.words();
  view.capacity = view.key_words != 0 ? map.capacity : 1;
  view.node_count = view.capacity + kSpareNodes;
  view.node_bytes = (sizeof(MapNode) + view.key_words * sizeof(std::uint64_t) + 15) & ~std::uint64_t{15};
  view.aggregate = map.value.aggregate;
  view.is_signed = map.value.is_signed;
  view.power = map.power;
  view.low = map.low;
  view.high = map.high;
  view.step = map.step;
  view.header = pieces.take<MapHeader>(1);
  if (view.key_words != 0) {
    const std::uint64_t buckets = std::bit_ceil(2 * view.capacity);
    view.bucket_mask = buckets - 1;
    view.buckets = pieces.take<std::uint64_t>(buckets);
  }
  view.nodes = pieces.take<std::uint8_t>(view.node_count * view.node_bytes);
  view.cell_count = cells_for(map);
  const bool evicts = map.evicts && view.key_words != 0;
  if (evicts) view.used = pieces.take<std::uint64_t>(view.node_count);
  if (evicts && view.cell_count != 0) view.value_words = view.cell_count;
  if (map.value.is_wide() || (evicts && view.cell_count != 0))
    view.values = pieces.take<std::uint64_t>(view.node_count * (view.value_words + 1));
  if (evicts || view.cell_count == 0) return view;
  const std::uint64_t words =
      (view.node_count * view.cell_count * sizeof(std::uint64_t) + kLine - 1) / kLine * kLine / 8;
  const std::uint64_t shards = std::clamp<std::uint64_t>(kMostCellBytes / (words * 8), 1, kMostShards);
  view.shard_words = words;
  view.shard_mask = std::bit_floor(shards) - 1;
  view.shared_mask = map.is_cleared || view.shard_mask < kSharedShards ? view.shard_mask : kSharedShards - 1;
  view.cells = pieces.take<std::uint64_t>(words * (view.shard_mask + 1));
  return view;
}

void place(const Analysis& analysis, Pieces& pieces, Machine& machine, std::vector<MapView>& maps) {
  machine.sites = pieces.take<std::uint64_t>(analysis.sites.size());
  machine.tree_event = analysis.tree_event;
  machine.tree_depth = analysis.tree_depth;
  machine.lost = pieces.take<std::uint64_t>(1);
  machine.next_chunk = pieces.take<std::uint64_t>(1);
  for (const Map& map : analysis.maps) maps.push_back(view_of(map, pieces));
  machine.chunk_count = analysis.events.empty() ? 0 : kChunks;
  machine.chunks = pieces.take<std::uint8_t>(machine.chunk_count * Chunk::kBytes);
  if (analysis.uses_stacks) {
    machine.stacks.used = pieces.take<std::uint64_t>(1);
    machine.stacks.lost = pieces.take<std::uint64_t>(1);
    machine.stacks.slots = pieces.take<std::uint64_t>(stack::kSlots);
    machine.stacks.words = pieces.take<std::uint64_t>(stack::kStackWords);
  }
  if (analysis.stack_text == nullptr) return;
  pieces.begin_page();
  machine.modules = pieces.take<stack::ModuleLog>(1);
  pieces.begin_page();
}

std::uint64_t boot_ns() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// Zeros, which a forked child finds as zeros again.
void* reserve(std::size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  if (madvise(memory, bytes, MADV_WIPEONFORK) == 0) return memory;
  munmap(memory, bytes);
  throw std::bad_alloc();
}

// What is kept by tasks, of this process alone: their chunks, and their shards of each map.
constexpr std::size_t kTaskRows = kMostTasks + 1;
constexpr std::size_t kChunkRows = (kTaskRows * sizeof(std::uint32_t) + kLine - 1) & ~(kLine - 1);
std::size_t task_bytes(const Analysis& analysis) {
  return kChunkRows + analysis.maps.size() * kTaskRows * sizeof(std::uint64_t*);
}

}  // namespace

std::uint64_t Place::bytes(const Analysis& analysis) {
  Pieces counted(nullptr);
  Machine machine;
  std::vector<MapView> maps;
  place(analysis, counted, machine, maps);
  return counted.bytes();
}

Place::Place(const Analysis& analysis) : bytes_(bytes(analysis)), task_bytes_(task_bytes(analysis)) {
  by_task_ = reserve(task_bytes_);
  try {
    memory_ = reserve(bytes_);
  } catch (...) {
    munmap(by_task_, task_bytes_);
    throw;
  }
  put(analysis, &control_, static_cast<std::uint8_t*>(memory_));
  // Events come one behind the other, and the first write to a page costs more than a hundred of them.
  const auto begin = reinterpret_cast<std::uint64_t>(machine_.chunks) & ~(sys::kPageBytes - 1);
  if (machine_.chunk_count != 0)
    madvise(reinterpret_cast<void*>(begin), machine_.chunk_count * Chunk::kBytes, MADV_HUGEPAGE);
  // A forked child has its parent's modules.
  if (machine_.modules != nullptr) madvise(machine_.modules, sizeof *machine_.modules, MADV_KEEPONFORK);
}

Place::Place(const Analysis& analysis, Control* control, std::uint8_t* memory) : task_bytes_(task_bytes(analysis)) {
  by_task_ = reserve(task_bytes_);
  put(analysis, control, memory);
}

void Place::put(const Analysis& analysis, Control* control, std::uint8_t* memory) {
  Pieces pieces(memory);
  place(analysis, pieces, machine_, maps_);
  auto* const rows = static_cast<std::uint8_t*>(by_task_);
  machine_.task_chunks = reinterpret_cast<std::uint32_t*>(rows);
  auto* own_cells = reinterpret_cast<std::uint64_t**>(rows + kChunkRows);
  for (MapView& map : maps_) {
    const bool has_own = map.cell_count != 0 && map.shared_mask != map.shard_mask;
    map.own_cells = has_own ? own_cells : nullptr;
    own_cells += kTaskRows;
  }
  machine_.control = control;
  machine_.start_ns = boot_ns();
  machine_.random = machine_.start_ns;
  machine_.process = static_cast<std::uint32_t>(getpid());
}

Place::~Place() {
  munmap(by_task_, task_bytes_);
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

}  // namespace ubp::program
