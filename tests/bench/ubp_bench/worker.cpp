// The worker: threads that call probed functions for a while.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>

#include "bench.h"

extern "C" void bench_empty_fast(int, siginfo_t*, void*);

namespace ubp::bench {
namespace {

using Clock = std::chrono::steady_clock;

void on_trap(int, siginfo_t*, void*) {}

void install(void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;  // as the runtime's
  sigaction(SIGTRAP, &action, nullptr);
}

double processor_ns() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Which of `count` points a thread calls next. Tables made before the clock starts.
std::vector<std::uint16_t> sequence(const std::string& pattern, int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::uint16_t> order(1 << 15);
  if (pattern == "zipf") {
    std::vector<double> weights;
    for (int i = 0; i < count; ++i) weights.push_back(1.0 / (i + 1));
    std::discrete_distribution<int> pick(weights.begin(), weights.end());
    for (auto& next : order) next = static_cast<std::uint16_t>(pick(random));
  } else if (pattern == "random") {
    for (auto& next : order) next = static_cast<std::uint16_t>(random() % static_cast<unsigned>(count));
  } else if (pattern == "phase") {  // an eighth of the points at a time, another one after every eighth of the table
    const int window = std::max(1, count / 8);
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto phase = static_cast<int>(i * 8 / order.size());
      order[i] = static_cast<std::uint16_t>((phase * window + static_cast<int>(i) % window) % count);
    }
  } else {  // uniform: one after the other
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::uint16_t>(i % static_cast<std::size_t>(count));
  }
  return order;
}

}  // namespace

int work(const std::vector<std::string>& arguments) {
  const std::string mode = arguments.at(0);
  const int threads = std::atoi(arguments.at(1).c_str()), ms = std::atoi(arguments.at(2).c_str());
  const int count = arguments.size() > 3 ? std::atoi(arguments[3].c_str()) : 1;
  const std::string pattern = arguments.size() > 4 ? arguments[4] : "uniform";
  if (mode == "slots") {  // pattern: the policy; in the form that the other modes print
    constexpr std::uint64_t kCalls = 1000000;
    const double ns = slot_ns(pattern, count, threads);
    std::printf("%.0f %.0f 0", ns * kCalls, ns * kCalls * threads);
    for (int t = 0; t < threads; ++t) std::printf(" %llu", static_cast<unsigned long long>(kCalls));
    std::printf("\n");
    return 0;
  }
  if (mode == "empty") install(&on_trap);
  if (mode == "empty_fast") install(&bench_empty_fast);
  long (*const function)(long) = mode == "emulated"    ? &bench_emulated
                                 : mode == "nop5"      ? &bench_nop5
                                 : mode == "long"      ? &bench_long
                                 : mode == "floor"     ? &bench_floor
                                 : mode == "floor_far" ? &bench_floor_far
                                 : mode == "syscall"   ? &bench_syscall
                                                       : &bench_slot;
  std::atomic<bool> go{false}, stop{false};
  std::atomic<int> ready{0};
  std::vector<std::uint64_t> calls(static_cast<std::size_t>(threads));
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      const auto order = sequence(pattern, count, static_cast<unsigned>(t) + 1);
      std::uint64_t own = 0, bad = 0, counters[kFloorCounter + 8] = {};
      bench_counters = counters;
      ++ready;
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      if (mode == "empty" || mode == "empty_fast") {
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) asm volatile("int3");
          own += 16;
        }
      } else if (mode == "points") {
        std::size_t at = static_cast<std::size_t>(t) * 977 % order.size();
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i, ++own) {
            const std::uint16_t point = order[at];
            bad += bench_points[point](static_cast<long>(own)) != static_cast<long>(own) + point;
            if (++at == order.size()) at = 0;
          }
        }
      } else {
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) function(i);
          own += 16;
        }
      }
      if (mode.starts_with("floor")) bad += counters[kFloorCounter] != own;
      calls[static_cast<std::size_t>(t)] = own;
      wrong += bad;
    });
  }
  while (ready.load() != threads) std::this_thread::yield();
  const auto begin = Clock::now();
  const double processor_begin = processor_ns();
  go.store(true, std::memory_order_release);
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  stop.store(true);
  for (std::thread& thread : all) thread.join();
  const double elapsed = std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
  std::printf("%.0f %.0f %llu", elapsed, processor_ns() - processor_begin, static_cast<unsigned long long>(wrong.load()));
  for (const std::uint64_t own : calls) std::printf(" %llu", static_cast<unsigned long long>(own));
  std::printf("\n");
  return 0;
}

}  // namespace ubp::bench
