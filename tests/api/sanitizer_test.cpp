// A program under a sanitizer, libubp.so beside it: threads that are started while libc's own functions are probed. The
// sanitizer's runtime blocks every signal by system calls of its own around libc's pthread_create.
#include <ubp.h>

#include <cstdio>
#include <thread>
#include <vector>

extern "C" __attribute__((noinline)) void step(long* count) {
  asm volatile("" : : "r"(count) : "memory");
  ++*count;
}

namespace {

constexpr int kRounds = 50, kThreads = 4, kSteps = 100;

std::uint64_t hits(ubp_probe* probe) {
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  return ubp_probe_read(probe, &stats) == UBP_OK ? stats.hits : ~0ull;
}

}  // namespace

int main() {
  ubp_probe *steps = nullptr, *starts = nullptr, *all = nullptr;
  if (ubp_init(nullptr) != UBP_OK || ubp_register("step", nullptr, &steps, nullptr) != UBP_OK ||
      ubp_register("libc:pthread_create", nullptr, &starts, nullptr) != UBP_OK ||
      ubp_register("libc:pthread_*; libc:malloc; libc:mmap; libc:clone*", nullptr, &all, nullptr) != UBP_OK) {
    std::puts("a probe cannot be registered");
    return 1;
  }
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([] {
        long count = 0;
        for (int k = 0; k < kSteps; ++k) step(&count);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  constexpr std::uint64_t kStarted =
      std::uint64_t{kRounds} * kThreads;  // and perhaps one thread of the sanitizer's own
  const bool is_exact = hits(steps) == kStarted * kSteps && hits(starts) - kStarted <= 1;
  if (!is_exact)
    std::printf("%llu steps, %llu threads\n", (unsigned long long)hits(steps), (unsigned long long)hits(starts));
  return is_exact ? 0 : 1;
}
