// How long threads wait for a mutex, measured by the program itself: threads hammer one mutex, and probes on libc's
// lock functions and on the critical section see every acquisition. Ends with status 1 when a count is off by one.
//
//   contention [THREADS [SECONDS [spoil]]]        4 threads and 1 second; spoil: counts wrongly, to show that it is
//                                                 noticed
//
// A hit costs more than an uncontended lock does, and two of the three lie between lock and unlock. So what is said of
// waits is true of the program as it runs under the probes; "without probes" says what they cost.
#include <pthread.h>
#include <x86intrin.h>
#include <ubp.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

// One thread's: written by it and by the consumers of its hits. A cache line of its own, or they would contend here.
struct alignas(64) Account {
  std::uint64_t acquisitions = 0;                     // as the program counts them
  std::uint64_t locks = 0, unlocks = 0, entries = 0;  // as the probes do
  std::uint64_t found_taken = 0, sleeps = 0;  // locked when it was asked for; the kernel put the thread to sleep
  std::uint64_t asked = 0, entered = 0;       // time stamps
  std::uint64_t waited = 0, longest_wait = 0, held = 0;  // in ticks
};

pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
std::uint64_t g_shared = 0;                                       // what it protects
std::atomic<std::uint64_t> g_other_locks{0}, g_other_unlocks{0};  // calls for other mutexes, such as libc's own
std::atomic<bool> g_is_over{false};
thread_local Account* t_account = nullptr;

bool is_ours(const ubp::Hit& hit) { return t_account != nullptr && hit.argument<const void*>(0) == &g_mutex; }

void on_lock(const ubp::Hit& hit) {
  if (!is_ours(hit)) {
    ++g_other_locks;
    return;
  }
  ++t_account->locks;
  t_account->found_taken += __atomic_load_n(&g_mutex.__data.__lock, __ATOMIC_RELAXED) != 0;
  t_account->asked = __rdtsc();
}

void on_sleep(const ubp::Hit& hit) { t_account->sleeps += is_ours(hit) ? 1 : 0; }

void on_entry(const ubp::Hit&) {
  Account& account = *t_account;
  account.entered = __rdtsc();
  const std::uint64_t wait = account.entered - account.asked;
  ++account.entries;
  account.waited += wait;
  if (wait > account.longest_wait) account.longest_wait = wait;
}

void on_unlock(const ubp::Hit& hit) {
  if (!is_ours(hit)) {
    ++g_other_unlocks;
    return;
  }
  ++t_account->unlocks;
  t_account->held += __rdtsc() - t_account->entered;
}

}  // namespace

extern "C" __attribute__((noipa)) void critical_section(std::uint64_t* shared) { ++*shared; }

namespace {

void acquire() {
  pthread_mutex_lock(&g_mutex);
  critical_section(&g_shared);
  pthread_mutex_unlock(&g_mutex);
  ++t_account->acquisitions;
}

// Nanoseconds for one acquisition by one thread that has the mutex to itself.
double cost_alone(Account& account, int times) {
  t_account = &account;
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < times; ++i) acquire();
  const std::chrono::duration<double, std::nano> took = Clock::now() - begin;
  t_account = nullptr;
  return took.count() / times;
}

// All threads at once. Returns acquisitions a second.
double hammer(std::vector<Account>& accounts, double seconds) {
  const std::uint64_t before = g_shared;
  g_is_over = false;
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (Account& account : accounts) {
    threads.emplace_back([&account] {
      t_account = &account;
      while (!g_is_over.load(std::memory_order_relaxed)) acquire();
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  g_is_over = true;
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(g_shared - before) / std::chrono::duration<double>(Clock::now() - begin).count();
}

// Microseconds of a tick of the time stamp counter.
double tick_us() {
  const Clock::time_point begin = Clock::now();
  const std::uint64_t ticks = __rdtsc();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::chrono::duration<double, std::micro> took = Clock::now() - begin;
  return took.count() / static_cast<double>(__rdtsc() - ticks);
}

bool equal(const char* what, std::uint64_t a, std::uint64_t b) {
  if (a != b)
    std::printf("%s: %llu, not %llu\n", what, static_cast<unsigned long long>(a), static_cast<unsigned long long>(b));
  return a == b;
}

void print_account(const char* name, const Account& a, double tick, bool sees_sleeps) {
  const double count = static_cast<double>(a.entries > 0 ? a.entries : 1);
  char sleeps[24] = "?";
  if (sees_sleeps) std::snprintf(sleeps, sizeof sleeps, "%llu", static_cast<unsigned long long>(a.sleeps));
  std::printf("%6s %13llu %10.1f %% %9s %9.2f us %9.0f us %9.2f us\n", name,
              static_cast<unsigned long long>(a.acquisitions), 100 * static_cast<double>(a.found_taken) / count, sleeps,
              static_cast<double>(a.waited) / count * tick, static_cast<double>(a.longest_wait) * tick,
              static_cast<double>(a.held) / count * tick);
}

}  // namespace

int main(int argc, char** argv) {
  const int thread_count = argc > 1 ? std::atoi(argv[1]) : 4;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 1;
  const bool spoils = argc > 3 && std::strcmp(argv[3], "spoil") == 0;
  if (thread_count < 1 || thread_count > 1000 || !(seconds > 0 && seconds < 3600) || argc > 4 ||
      (argc == 4 && !spoils)) {
    std::fprintf(stderr, "usage: contention [THREADS [SECONDS [spoil]]]\n");
    return 2;
  }
  constexpr int kTimes = 5000;
  std::vector<Account> unprobed(static_cast<std::size_t>(thread_count)),
      accounts(static_cast<std::size_t>(thread_count));
  Account alone, alone_unprobed;
  const double tick = tick_us();
  const double bare_ns = cost_alone(alone_unprobed, kTimes);
  const double bare_rate = hammer(unprobed, seconds / 4);

  const auto session = ubp::Session::start();
  if (!session) return std::fprintf(stderr, "%s\n", session.error().text().c_str()), 1;
  auto transaction = ubp::Transaction::begin();
  const auto lock = ubp::Probe::create("libc:pthread_mutex_lock", &on_lock);
  const auto entry = ubp::Probe::create("critical_section", &on_entry);
  const auto unlock = ubp::Probe::create("libc:pthread_mutex_unlock", &on_unlock);
  // Not exported: seen where libc's debug symbols are installed.
  const auto sleep = ubp::Probe::create("libc:__lll_lock_wait", &on_sleep, UBP_PROBE_IGNORE_MISSING);
  for (const auto* probe : {&lock, &entry, &unlock, &sleep}) {
    if (!*probe) return std::fprintf(stderr, "%s\n", probe->error().text().c_str()), 1;
  }
  if (!transaction || transaction->commit() != UBP_OK) return std::fprintf(stderr, "the probes cannot be armed\n"), 1;

  const std::uint64_t before = g_shared;
  const double probed_ns = cost_alone(alone, kTimes);
  const double rate = hammer(accounts, seconds);
  accounts[0].acquisitions += spoils ? 1 : 0;
  const ubp_probe_stats locks = lock->stats().value(), entries = entry->stats().value(),
                        unlocks = unlock->stats().value();

  std::printf("%d threads, one mutex\n", thread_count);
  std::printf("without probes: %.0f acquisitions a second, %.0f ns each for one thread alone\n", bare_rate, bare_ns);
  std::printf(
      "with probes: %.0f acquisitions a second, %.0f ns each for one thread alone: %.0f ns for each of 3 hits\n\n",
      rate, probed_ns, (probed_ns - bare_ns) / 3);
  std::printf("%6s %13s %12s %9s %12s %12s %12s\n", "thread", "acquisitions", "found taken", "slept", "mean wait",
              "longest", "held");
  const bool sees_sleeps = sleep->stats()->probepoints > 0;
  Account sum;
  bool is_exact = true;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    const Account& account = accounts[i];
    print_account(std::to_string(i).c_str(), account, tick, sees_sleeps);
    is_exact &= equal("calls of pthread_mutex_lock", account.locks, account.acquisitions);
    is_exact &= equal("calls of critical_section", account.entries, account.acquisitions);
    is_exact &= equal("calls of pthread_mutex_unlock", account.unlocks, account.acquisitions);
    sum.acquisitions += account.acquisitions;
    sum.entries += account.entries;
    sum.found_taken += account.found_taken;
    sum.sleeps += account.sleeps;
    sum.waited += account.waited;
    sum.held += account.held;
    if (account.longest_wait > sum.longest_wait) sum.longest_wait = account.longest_wait;
  }
  print_account("all", sum, tick, sees_sleeps);
  if (!sees_sleeps)
    std::printf("slept: libc's __lll_lock_wait has no name here; its debug symbols (libc6-dbg) have it\n");

  const std::uint64_t all = sum.acquisitions + alone.acquisitions;
  is_exact &= equal("the counter behind the mutex", g_shared - before, all);
  is_exact &= equal("hits of critical_section", entries.hits, all);
  is_exact &= equal("hits of pthread_mutex_lock", locks.hits, all + g_other_locks);
  is_exact &= equal("hits of pthread_mutex_unlock", unlocks.hits, all + g_other_unlocks);
  is_exact &= equal("hits missed", locks.missed + entries.missed + unlocks.missed, 0);
  std::printf("\n%llu acquisitions, %llu hits: %s\n", static_cast<unsigned long long>(all),
              static_cast<unsigned long long>(locks.hits + entries.hits + unlocks.hits),
              is_exact ? "the counts add up exactly" : "THE COUNTS DO NOT ADD UP");
  return is_exact ? 0 : 1;
}
