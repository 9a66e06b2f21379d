// The slot cache alone: what the trap path does between finding the probepoint and leaving, without any trap.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "bench.h"
#include "decoder/classify.h"
#include "runtime/core/process_memory.h"
#include "runtime/trap/slots.h"

namespace ubp::bench {
namespace {

constexpr int kSlots = 64;

std::vector<xol::Displaced>& points() {
  static std::vector<xol::Displaced> made = [] {
    std::vector<xol::Displaced> list;
    core::map_task_memory({kSlots, 4 * kSlots});
    const auto low = reinterpret_cast<std::uint64_t>(bench_points[0]);
    const auto area = core::find_or_make_area(low, low + kPoints * 32);
    for (int i = 0; i < 4 * kSlots; ++i) {
      const auto* code = reinterpret_cast<const std::uint8_t*>(bench_points[i]);
      list.emplace_back(reinterpret_cast<std::uint64_t>(code), decoder::classify({code, 15}), code);
      list.back().area = area.value() & 0xf;
    }
    trap::g_process.pid = sys::getpid();
    return list;
  }();
  return made;
}

}  // namespace

double slot_ns(bool refill, int threads) {
  const auto& all = points();
  constexpr int kRounds = 200000;
  const std::uint32_t cycle = refill ? 4 * kSlots : kSlots / 2;
  std::vector<double> ns(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  std::atomic<int> ready{0};
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      trap::TaskState* task = trap::claim_state({sys::gettid(), true});
      std::uint64_t sum = 0;
      for (std::uint32_t i = 0; i < cycle; ++i) sum += trap::thread_slot(task, i, all[i]);
      ++ready;
      while (ready.load() < threads) {
      }
      const auto begin = std::chrono::steady_clock::now();
      for (int round = 0; round < kRounds / static_cast<int>(cycle); ++round) {
        for (std::uint32_t i = 0; i < cycle; ++i) {
          sum += trap::thread_slot(task, i, all[i]);
          asm volatile("" : "+r"(sum)::"memory");
        }
      }
      const double elapsed = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
      ns[static_cast<std::size_t>(t)] = elapsed / (kRounds / static_cast<int>(cycle)) / cycle;
    });
  }
  for (std::thread& thread : running) thread.join();
  double sum = 0;
  for (const double own : ns) sum += own;
  return sum / threads;
}

}  // namespace ubp::bench
