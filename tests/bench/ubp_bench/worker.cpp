// The worker: threads that call probed functions for a while.
#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <random>
#include <thread>

#include "bench.h"
#include "runtime/include/ubp.h"

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

// A function of the libubp.so that is preloaded.
template <typename Function>
Function* preloaded(const char* name) {
  auto* const function = reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, name));
  if (function == nullptr) std::exit(3);
  return function;
}

thread_local volatile std::uint64_t t_argument;

// A probe of bench_long: a consumer that does nothing, or reads an argument; or records.
void add_consumer(std::uint32_t flags) {
  ubp_options options{};
  options.struct_size = sizeof options;
  options.flags = flags;
  static auto* const argument = preloaded<decltype(ubp_context_argument)>("ubp_context_argument");
  const ubp_consumer reads = [](const ubp_context* hit, void*) { t_argument = argument(hit, 0); };
  options.consumer = (flags & UBP_PROBE_RECORD) != 0         ? nullptr
                     : (flags & UBP_PROBE_NO_REGISTERS) != 0 ? reinterpret_cast<ubp_consumer>(&bench_consumer)
                                                             : reads;
  if (preloaded<decltype(ubp_init)>("ubp_init")(nullptr) != UBP_OK) std::exit(3);
  if (preloaded<decltype(ubp_register)>("ubp_register")("bench_long", &options, nullptr, nullptr) != UBP_OK)
    std::exit(3);
}

double thread_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Calls a function from so many frames of this one's below the caller.
constexpr std::uint64_t kDeepCalls = 256;
[[gnu::noinline]] long call_deep(long (*function)(long), int depth) {
  long sum = 0;
  if (depth > 0) return call_deep(function, depth - 1) + depth;
  for (std::uint64_t i = 0; i < kDeepCalls; ++i) sum += function(static_cast<long>(i));
  return sum;
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
    for (std::size_t i = 0; i < order.size(); ++i)
      order[i] = static_cast<std::uint16_t>(i % static_cast<std::size_t>(count));
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
  // count: the flags. Where they ask for records, these are drained in between, outside the time that counts.
  const bool records = mode == "consumer" && (count & UBP_PROBE_RECORD) != 0;
  if (mode == "consumer") add_consumer(static_cast<std::uint32_t>(count));
  auto* const drain = records ? preloaded<decltype(ubp_drain)>("ubp_drain") : nullptr;
  std::atomic<std::uint64_t> drained_ns{0};
  const bool turns = mode.starts_with("turns"), makes_detours = mode.starts_with("turns_"),
             counts = mode.ends_with("_count");
  if (makes_detours && !make_turn_detours(count, mode.starts_with("turns_far"), counts)) return 4;
  if (mode == "empty") install(&on_trap);
  if (mode == "empty_fast") install(&bench_empty_fast);
  long (*const function)(long) = mode == "emulated"     ? &bench_emulated
                                 : mode == "nop5"       ? &bench_nop5
                                 : mode == "long"       ? &bench_long
                                 : mode == "floor"      ? &bench_floor
                                 : mode == "floor_far"  ? &bench_floor_far
                                 : mode == "floor_call" ? &bench_floor_call
                                 : mode == "consumer"   ? &bench_long
                                 : mode == "keys"       ? &bench_long
                                 : mode == "text"       ? &bench_long
                                 : mode == "stack"      ? &bench_long
                                 : mode == "events"     ? &bench_long
                                 : mode == "syscall"    ? &bench_syscall
                                                        : &bench_slot;
  std::atomic<bool> go{false}, stop{false};
  std::atomic<int> ready{0};
  std::vector<std::uint64_t> calls(static_cast<std::size_t>(threads));
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      const auto order = sequence(pattern, mode == "consumer" ? 1 : count, static_cast<unsigned>(t) + 1);
      std::uint64_t own = 0, bad = 0, counters[kFloorCounter + 8] = {};
      bench_counters = counters;
      if (turns) {  // the first pass is not for what it costs
        bad += !call_turns(count, 0);
        own += static_cast<std::uint64_t>(count);
      }
      ++ready;
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      if (mode == "empty" || mode == "empty_fast") {
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) asm volatile("int3");
          own += 16;
        }
      } else if (turns) {
        const int passes = std::max(1, 64 / count);
        while (!stop.load(std::memory_order_relaxed)) {
          for (int pass = 0; pass < passes; ++pass) bad += !call_turns(count, pass);
          own += static_cast<std::uint64_t>(passes * count);
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
      } else if (mode == "keys") {  // count: how many arguments there are
        long argument = 0;
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) {
            function(argument);
            argument = argument + 1 < count ? argument + 1 : 0;
          }
          own += 16;
        }
      } else if (mode == "text") {
        static const char text[] = "a text of 20 letters";
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) function(reinterpret_cast<long>(text));
          own += 16;
        }
      } else if (mode == "stack") {
        while (!stop.load(std::memory_order_relaxed)) {
          call_deep(function, 8);
          own += kDeepCalls;
        }
      } else if (mode == "events") {  // fewer than the memory for them holds
        constexpr std::uint64_t kMostEvents = 1'200'000;
        while (!stop.load(std::memory_order_relaxed) && own < kMostEvents / static_cast<std::uint64_t>(threads)) {
          for (int i = 0; i < 16; ++i) function(i);
          own += 16;
        }
      } else {
        constexpr std::uint64_t kRing = 49152;  // a task's ring holds more
        while (!stop.load(std::memory_order_relaxed)) {
          for (int i = 0; i < 16; ++i) function(i);
          own += 16;
          if (drain == nullptr || own % kRing != 0) continue;
          const double start = thread_ns();
          drain([](const ubp_record*, void*) {}, nullptr);
          drained_ns += static_cast<std::uint64_t>(thread_ns() - start);
        }
      }
      if (makes_detours) bad += counted_turns() != (counts ? own : 0);
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
  std::printf("%.0f %.0f %llu", elapsed, processor_ns() - processor_begin - static_cast<double>(drained_ns.load()),
              static_cast<unsigned long long>(wrong.load()));
  for (const std::uint64_t own : calls) std::printf(" %llu", static_cast<unsigned long long>(own));
  std::printf("\n");
  return 0;
}

}  // namespace ubp::bench
