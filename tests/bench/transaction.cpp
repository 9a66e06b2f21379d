// 100,000 probes registered one by one in one transaction, while four threads run what is probed: what it takes, and
// how often all threads were synchronised. Every probe's count is checked afterwards.
//
//   build/tests/bench/transaction
#include <ubp.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>
#include <vector>

extern "C" long many_0(long x);  // libfx_many.so

namespace {

constexpr int kProbes = 100000, kThreads = 4;
using Function = long (*)(long);

Function function(int number) {
  return reinterpret_cast<Function>(reinterpret_cast<const char*>(&many_0) + std::ptrdiff_t{16} * number);
}

void require(ubp_status status, const char* what) {
  if (status == UBP_OK) return;
  std::printf("%s: %s\n", what, ubp_status_string(status));
  std::exit(1);
}

double us_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

ubp_stats read() {
  ubp_stats stats{};
  stats.struct_size = sizeof stats;
  require(ubp_read(&stats), "ubp_read");
  return stats;
}

long resident_kb() {
  std::ifstream file("/proc/self/statm");
  long size = 0, resident = 0;
  file >> size >> resident;
  return resident * 4;
}

}  // namespace

int main() {
  std::atomic<bool> stop{false};
  std::atomic<long> wrong{0}, calls{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      unsigned next = static_cast<unsigned>(t) * 7919;
      long own = 0;
      for (; !stop.load(std::memory_order_relaxed); ++own) {
        next = (next * 1103515245 + 12345) & 0x7fffffff;
        wrong += function(static_cast<int>(next % kProbes))(own) != own + 1;
      }
      calls += own;
    });
  }
  require(ubp_init(nullptr), "ubp_init");
  ubp_probe* first = nullptr;
  require(ubp_register_address(reinterpret_cast<const void*>(function(0)), nullptr, &first, nullptr),
          "the first probe");
  const std::uint64_t syncs = read().synchronisations;
  const long before_kb = resident_kb();
  std::vector<ubp_probe*> probes(kProbes);
  auto start = std::chrono::steady_clock::now();
  require(ubp_transaction_begin(), "begin");
  for (int i = 0; i < kProbes; ++i) {
    require(ubp_register_address(reinterpret_cast<const void*>(function(i)), nullptr,
                                 &probes[static_cast<std::size_t>(i)], nullptr),
            "register");
  }
  const double registered = us_since(start);
  auto commit = std::chrono::steady_clock::now();
  require(ubp_transaction_commit(), "commit");
  const double committed = us_since(commit);
  std::printf(
      "%d probes under %d running threads: %.2f us a probe (registering %.2f, commit %.1f ms), %llu synchronisation(s), %.0f bytes a probe\n",
      kProbes, kThreads, (registered + committed) / kProbes, registered / kProbes, committed / 1000,
      static_cast<unsigned long long>(read().synchronisations - syncs),
      static_cast<double>(resident_kb() - before_kb) * 1024 / kProbes);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::vector<std::uint64_t> before(kProbes);
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  const auto hits = [&](int i) {
    require(ubp_probe_read(probes[static_cast<std::size_t>(i)], &stats), "ubp_probe_read");
    return stats.hits;
  };
  std::uint64_t all = 0;
  for (int i = 0; i < kProbes; ++i) all += before[static_cast<std::size_t>(i)] = hits(i);
  for (int i = 0; i < kProbes; ++i) wrong += function(i)(i) != i + 1L;
  for (int i = 0; i < kProbes; ++i) wrong += hits(i) != before[static_cast<std::size_t>(i)] + 1;
  start = std::chrono::steady_clock::now();
  require(ubp_transaction_begin(), "begin");
  for (ubp_probe* probe : probes) require(ubp_unregister(probe), "unregister");
  require(ubp_transaction_commit(), "commit");
  std::printf("unregistered in one: %.2f us a probe\n", us_since(start) / kProbes);
  for (int i = 0; i < kProbes; ++i) wrong += function(i)(i) != i + 1L;
  std::printf("%ld calls, %llu hits while they ran, %ld wrong\n", calls.load(), static_cast<unsigned long long>(all),
              wrong.load());
  return wrong == 0 ? 0 : 1;
}
