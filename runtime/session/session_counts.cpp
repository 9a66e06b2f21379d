// What the processes of a session have counted. See session.h.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "runtime/session/session.h"
#include "runtime/trap/task_state.h"

namespace ubp::program {
namespace {

constexpr std::uint64_t kRunsBytes = std::uint64_t{1} << 20;
constexpr std::size_t kMostRuns = kRunsBytes / sizeof(CountedRun);

// Sums counters over a process's tasks.
class Counters {
 public:
  Counters(int file, const CountedProcess& process) : file_(file), process_(process) {
    const std::uint64_t end = process.counters_offset + process.blocks * process.block_bytes;
    for (std::uint64_t at = process.counters_offset; at < end;) {
      const off_t data = lseek(file, static_cast<off_t>(at), SEEK_DATA);  // most blocks have never had a page
      if (data < 0 || static_cast<std::uint64_t>(data) >= end) break;
      const std::uint64_t block = (static_cast<std::uint64_t>(data) - process.counters_offset) / process.block_bytes;
      blocks_.push_back(process.counters_offset + block * process.block_bytes);
      at = blocks_.back() + process.block_bytes;
    }
  }

  // Of `count` counters of a name.
  std::uint64_t sum(trap::Counter name, std::uint32_t first, std::uint32_t count) {
    std::uint64_t sum = 0;
    room_.resize(count);
    for (const std::uint64_t block : blocks_) {
      const std::uint64_t at = block + (static_cast<std::uint64_t>(name) * process_.stride + first) * sizeof sum;
      const ssize_t got = pread(file_, room_.data(), count * sizeof sum, static_cast<off_t>(at));
      for (ssize_t i = 0; i < got / static_cast<ssize_t>(sizeof sum); ++i) sum += room_[static_cast<std::size_t>(i)];
    }
    return sum;
  }

 private:
  int file_;
  const CountedProcess& process_;
  std::vector<std::uint64_t> blocks_;  // where they begin
  std::vector<std::uint64_t> room_;
};

// A process's runs, as they stood at one time; empty: there are none, or it was stopped while it wrote them.
std::vector<CountedRun> runs_of(int file, const CountedProcess& process) {
  std::vector<CountedRun> runs;
  for (int tries = 0; tries < 100; ++tries) {
    const std::uint32_t before = __atomic_load_n(&process.sequence, __ATOMIC_ACQUIRE);  // pairs with write_runs()
    runs.resize(std::min<std::size_t>(__atomic_load_n(&process.runs, __ATOMIC_RELAXED), kMostRuns));
    const auto bytes = static_cast<ssize_t>(runs.size() * sizeof runs[0]);
    const bool is_whole =
        pread(file, runs.data(), static_cast<std::size_t>(bytes), static_cast<off_t>(process.runs_offset)) == bytes;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (is_whole && before % 2 == 0 && __atomic_load_n(&process.sequence, __ATOMIC_RELAXED) == before) return runs;
  }
  return {};
}

}  // namespace

void Session::count_here(std::uint32_t blocks, std::uint64_t block_bytes, std::uint64_t stride,
                         const std::function<bool(int file, std::uint64_t offset)>& map) {
  SessionHeader& its = header();
  const std::uint64_t bytes = kRunsBytes + blocks * block_bytes;
  if (bytes > its.counted_bytes) return;
  const std::uint64_t begin = __atomic_fetch_add(&its.counted_used, bytes, __ATOMIC_RELAXED);  // a number
  if (begin > its.counted_bytes - bytes) return;
  CountedProcess* place = nullptr;
  for (CountedProcess& other : its.counted) {
    std::uint32_t nobody = 0;
    if (__atomic_compare_exchange_n(&other.id, &nobody, static_cast<std::uint32_t>(getpid()), false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {  // what it says is published by write_runs()
      place = &other;
      break;
    }
  }
  if (place == nullptr) return;
  const int file = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  place->blocks = blocks;
  place->runs_offset = its.counted_offset + begin;
  place->counters_offset = place->runs_offset + kRunsBytes;
  place->block_bytes = block_bytes;
  place->stride = stride;
  void* const runs = mmap(nullptr, kRunsBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file,
                          static_cast<off_t>(place->runs_offset));
  if (runs != MAP_FAILED && map(file, place->counters_offset)) {
    runs_ = static_cast<CountedRun*>(runs);
    counted_ = place;
  }
  close(file);
}

void Session::write_runs(const std::vector<CountedRun>& runs) const {
  if (counted_ == nullptr || counted_->id != static_cast<std::uint32_t>(getpid())) return;  // or a forked child
  const std::size_t count = std::min(runs.size(), kMostRuns);
  __atomic_fetch_add(&counted_->sequence, 1, __ATOMIC_ACQ_REL);
  std::copy_n(runs.begin(), count, runs_);
  __atomic_store_n(&counted_->runs, static_cast<std::uint32_t>(count), __ATOMIC_RELAXED);
  __atomic_fetch_add(&counted_->sequence, 1, __ATOMIC_RELEASE);  // pairs with runs_of()
}

void Session::note_report() const {
  if (counted_ != nullptr && counted_->id == static_cast<std::uint32_t>(getpid())) counted_->has_reported = 1;
}

std::vector<SessionCount> Session::counts() const {
  using trap::Counter;
  std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, SessionCount> all;
  for (std::uint32_t number = 0; number < SessionHeader::kMostProcesses; ++number) {
    const CountedProcess& process = header().counted[number];
    if (process.id == 0) break;
    const std::vector<CountedRun> runs = runs_of(file_, process);
    if (runs.empty()) continue;
    Counters counters(file_, process);
    for (const CountedRun& run : runs) {
      const auto sum = [&](Counter name) { return counters.sum(name, run.first, run.count); };
      const bool is_reported = __atomic_load_n(&process.has_reported, __ATOMIC_RELAXED) != 0;  // a flag on its own
      SessionCount& count =
          all.try_emplace({run.line, run.column, number},
                          SessionCount{run.line, run.column, run.is_bare != 0, process.id, is_reported, 0, 0, 0, 0})
              .first->second;
      count.missed += sum(Counter::kMissed);
      if (run.kind == CountedRun::kPoints) count.recorded += sum(Counter::kTrapped) + sum(Counter::kJumped);
      if (run.kind != CountedRun::kAction) continue;
      const std::uint64_t filtered = sum(Counter::kFiltered), dropped = sum(Counter::kDropped);
      count.recorded += sum(Counter::kPerformed) - filtered - dropped;
      count.filtered += filtered + sum(Counter::kSkipped);
      count.dropped += dropped;
    }
  }
  std::vector<SessionCount> counts;
  counts.reserve(all.size());
  for (const auto& [place, count] : all) counts.push_back(count);
  return counts;
}

}  // namespace ubp::program
