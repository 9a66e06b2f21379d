// The slot policies alone: what the trap path does between finding the probepoint and leaving, without any trap.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

#include "bench.h"
#include "decoder/classify.h"
#include "runtime/arm/process_memory.h"
#include "runtime/preload/options.h"
#include "runtime/trap/slots.h"

namespace ubp::bench {
namespace {

constexpr std::uint32_t kSlots = 64, kMostPoints = 4 * kSlots;

xol::Policy policy_of(const std::string& name) {
  for (const xol::Policy policy : {xol::Policy::kProbepoint, xol::Policy::kSteal, xol::Policy::kAdaptive}) {
    if (name == xol::policy_name(policy)) return policy;
  }
  return xol::Policy::kThread;
}

std::vector<xol::Displaced> prepare(const std::string& policy) {
  std::vector<xol::Displaced> points;
  runtime::map_task_memory({kSlots, kMostPoints, policy_of(policy)});
  const auto low = reinterpret_cast<std::uint64_t>(bench_points[0]);
  const auto area = runtime::find_or_make_area(low, low + kPoints * 32);
  for (std::uint32_t i = 0; i < kMostPoints; ++i) {
    const auto* code = reinterpret_cast<const std::uint8_t*>(bench_points[i]);
    points.emplace_back(reinterpret_cast<std::uint64_t>(code), decoder::classify({code, 15}), code);
    points.back().area = area.value() & 0xf;
  }
  trap::g_process.tasks.pid = sys::getpid();
  return points;
}

}  // namespace

double slot_ns(const std::string& policy, int cycle, int threads) {
  const std::vector<xol::Displaced> points = prepare(policy);
  const auto count = static_cast<std::uint32_t>(cycle);
  const int rounds = std::max(1, 200000 / cycle);
  std::vector<double> ns(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  std::atomic<int> ready{0};
  for (int t = 0; t < threads; ++t) {
    running.emplace_back([&, t] {
      trap::TaskState* task = trap::claim_state({sys::gettid(), true});
      std::uint64_t sum = 0;
      const auto pass = [&] {
        for (std::uint32_t i = 0; i < count; ++i) {
          std::uint64_t slot = trap::thread_slot(task, i, points[i]);
          if (slot == 0) slot = trap::shared_slot(task, i, points[i]);
          sum += slot;
          asm volatile("" : "+r"(sum)::"memory");
        }
      };
      for (int warm = 0; warm < 8; ++warm) pass();
      ++ready;
      while (ready.load() < threads) {
      }
      const auto begin = std::chrono::steady_clock::now();
      for (int round = 0; round < rounds; ++round) pass();
      const double elapsed = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
      task->held.store(0);  // policy steal: whoever still runs may need the slot
      ns[static_cast<std::size_t>(t)] = elapsed / rounds / cycle;
    });
  }
  for (std::thread& thread : running) thread.join();
  return std::accumulate(ns.begin(), ns.end(), 0.0) / threads;
}

}  // namespace ubp::bench
