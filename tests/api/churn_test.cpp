// Probes come and go from four threads while four others run through them: every hit is accounted for, nothing
// deadlocks, nothing is left behind. 1,000,000 operations with UBP_TEST_LONG, 60,000 otherwise.
#include <dirent.h>
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <ubp.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "target.h"

namespace {

constexpr int kChurners = 4, kRunners = 4;
#ifdef __SANITIZE_THREAD__
constexpr long kOperations = 6000;
#elif defined(__SANITIZE_ADDRESS__)
constexpr long kOperations = 20000;
#else
constexpr long kOperations = 60000;
#endif

long operations() { return std::getenv("UBP_TEST_LONG") != nullptr ? 1000000 : kOperations; }

struct Totals {
  std::atomic<std::uint64_t> operations{0}, recorded{0}, missed{0}, runs{0}, wrong{0};
};
Totals g_totals;

ubp_probe_stats read(ubp_probe* probe) {
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  if (ubp_probe_read(probe, &stats) != UBP_OK || stats.hits != stats.recorded + stats.missed) ++g_totals.wrong;
  return stats;
}

// One churner's probes: some count, some have a consumer, some a whole glob.
class Churner {
 public:
  explicit Churner(unsigned seed) : random_(seed) {}

  void step() {
    Slot& slot = slots_[random_() % slots_.size()];
    const unsigned action = random_() % 4;
    if (slot.probe == nullptr) {
      add(slot);
    } else if (action == 0) {
      expect(ubp_disable(slot.probe));
    } else if (action == 1) {
      expect(ubp_enable(slot.probe));
    } else {
      remove(slot);
    }
    ++g_totals.operations;
  }
  void finish() {
    for (Slot& slot : slots_) {
      if (slot.probe != nullptr) remove(slot);
    }
  }

 private:
  struct Slot {
    ubp_probe* probe = nullptr;
    bool has_consumer = false;
    std::atomic<std::uint64_t> runs{0};
  };

  static void expect(ubp_status status) {
    if (status != UBP_OK) ++g_totals.wrong;
  }
  static void run(const ubp_context* context, void* data) {
    static_cast<Slot*>(data)->runs.fetch_add(1, std::memory_order_relaxed);
    if (ubp_context_argument(context, 0) > 1u << 20) ++g_totals.wrong;
  }
  void add(Slot& slot) {
    ubp_options options{};
    options.struct_size = sizeof options;
    slot.has_consumer = random_() % 2 == 0;
    slot.runs = 0;
    if (slot.has_consumer) options = {sizeof options, UBP_PROBE_NO_FP, 0, &run, &slot};
    if (random_() % 4 == 0) options.flags |= UBP_PROBE_DISABLED;
    static const char* const kSpecs[] = {"libfx_target:target_add", "libfx_target:target_e*; libfx_target:target_quiet",
                                         "insn:libfx_target:target_twice"};
    switch (random_() % 5) {
      case 0: expect(ubp_register_symbol("libfx_target", "target_eight", 0, &options, &slot.probe, nullptr)); break;
      case 1: expect(ubp_register_address(dlsym(RTLD_DEFAULT, "target_add"), &options, &slot.probe, nullptr)); break;
      default: expect(ubp_register(kSpecs[random_() % 3], &options, &slot.probe, nullptr)); break;
    }
  }
  void remove(Slot& slot) {
    expect(ubp_disable(slot.probe));
    const ubp_probe_stats stats = read(slot.probe);
    // insn: and globs name arguments that are none; the count is what matters.
    if (slot.has_consumer && stats.recorded != slot.runs) ++g_totals.wrong;
    g_totals.recorded += stats.recorded;
    g_totals.missed += stats.missed;
    g_totals.runs += slot.runs;
    expect(ubp_unregister(slot.probe));
    if (ubp_unregister(slot.probe) != UBP_E_STALE) ++g_totals.wrong;
    slot.probe = nullptr;
  }

  std::minstd_rand random_;
  std::array<Slot, 6> slots_{};
};

std::size_t entries(const char* folder) {
  std::size_t count = 0;
  DIR* const handle = opendir(folder);
  while (readdir(handle) != nullptr) ++count;
  closedir(handle);
  return count;
}

std::size_t lines(const char* path) {
  std::ifstream file(path);
  std::size_t count = 0;
  for (std::string line; std::getline(file, line);) ++count;
  return count;
}

long resident_kb() {
  std::ifstream file("/proc/self/statm");
  long size = 0, resident = 0;
  file >> size >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

// The threads of one test. They are there before the first probe is: the first registration has to hold them all. (And
// a thread sanitizer blocks every signal while it starts one, which no probed program may do behind libc's back.)
class Crowd {
 public:
  Crowd() {
    for (int i = 0; i < kRunners; ++i) threads_.emplace_back([this] { run(); });
    for (int i = 0; i < kChurners; ++i) threads_.emplace_back([this, i] { churn(static_cast<unsigned>(i)); });
  }
  ~Crowd() {
    wanted_ = -1;
    for (std::thread& thread : threads_) thread.join();
  }
  // Lets all of them work until the churners have made so many operations. Returns all calls that runners have made.
  std::uint64_t go(long operations) {
    idle_ = 0;
    churning_ = kChurners;
    wanted_ = operations / kChurners;
    ++round_;
    while (idle_ != kRunners + kChurners) std::this_thread::yield();
    return calls_;
  }

 private:
  // Waits for the next round; false: there is none.
  bool wait(int& round) {
    while (round == round_ && wanted_ >= 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    round = round_;
    return wanted_ >= 0;
  }
  void run() {
    for (int round = 0; wait(round); ++idle_) {
      std::uint64_t own = 0;
      for (; churning_ > 0; ++own) {
        const auto x = static_cast<long>(own % 1000);
        g_totals.wrong += target_add(x, 2) != x + 2;
        g_totals.wrong += target_eight(x, 1, 1, 1, 1, 1, 1, 1) != x + 35;
        g_totals.wrong += target_twice(x) != 2 * x;
        g_totals.wrong += target_quiet(x) != (x ^ 0x55);
      }
      calls_ += own;
    }
  }
  void churn(unsigned seed) {
    for (int round = 0; wait(round); ++idle_) {
      Churner churner(seed + 10 * static_cast<unsigned>(round));
      for (long step = 0; step < wanted_; ++step) churner.step();
      churner.finish();
      --churning_;
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<int> round_{0}, idle_{0}, churning_{0};
  std::atomic<long> wanted_{0};
  std::atomic<std::uint64_t> calls_{0};
};

}  // namespace

TEST_CASE("churn_register_unregister_1e6") {
  Crowd crowd;
  ubp_config config{};
  config.struct_size = sizeof config;
#ifdef __SANITIZE_THREAD__
  config.flags = UBP_CONFIG_LEAVE_BLOCKED_THREADS;  // its own thread's
#endif
  REQUIRE(ubp_init(&config) == UBP_OK);
  ubp_probe *always = nullptr, *twice = nullptr;  // these stay: exact
  REQUIRE(ubp_register("libfx_target:target_add", nullptr, &always, nullptr) == UBP_OK);
  REQUIRE(ubp_register("libfx_target:target_twice", nullptr, &twice, nullptr) == UBP_OK);
  crowd.go(operations() / 4);
  [[maybe_unused]] const long before_kb = resident_kb();
  const std::size_t mappings = lines("/proc/self/maps"), descriptors = entries("/proc/self/fd"),
                    threads = entries("/proc/self/task");
  const std::uint64_t calls = crowd.go(operations() * 3 / 4);
  CHECK(g_totals.wrong == 0);
  CHECK(g_totals.operations >= static_cast<std::uint64_t>(operations() / 4 * 4 - 16));
  CHECK(read(always).hits == 2 * calls);  // target_twice calls it too
  CHECK(read(twice).hits == calls);
  CHECK(g_totals.runs > 0);
  ubp_stats all{};
  all.struct_size = sizeof all;
  REQUIRE(ubp_read(&all) == UBP_OK);
  CHECK(all.recorded == g_totals.recorded + 3 * calls);
  CHECK(all.missed == g_totals.missed);
  CHECK(all.hits == all.recorded + all.missed);
  CHECK(all.probes == 2);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // which keep what was freed
  CHECK(resident_kb() - before_kb < 4096);
#endif
  CHECK(lines("/proc/self/maps") <= mappings + 12);  // malloc's arenas come and go
  CHECK(entries("/proc/self/fd") == descriptors);
  CHECK(entries("/proc/self/task") == threads);
  MESSAGE(g_totals.operations.load() << " operations, " << 4 * calls << " calls, " << all.recorded << " recorded hits");
  CHECK(ubp_shutdown() == UBP_OK);
}
