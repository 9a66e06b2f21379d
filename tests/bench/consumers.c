/* What a hit costs by what its consumer declares: build/tests/api/consumers. Nanoseconds of processor time over the
 * unprobed call, the least of 1000 runs of 50,000 calls; every count is checked. */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <ubp.h>

#include "../api/target.h"

enum { kRuns = 1000, kRing = 50000 }; /* calls in a run: less than a ring holds */

__attribute__((target("general-regs-only"))) static void nothing(const ubp_context* hit, void* data) {
  (void)hit;
  (void)data;
}
__attribute__((target("general-regs-only"))) static void keeps(const ubp_context* hit, void* data) {
  *(uint64_t*)data = ubp_context_argument(hit, 1);
}

/* Touches vector registers, and says nothing. */
static void averages(const ubp_context* hit, void* data) {
  *(uint64_t*)data = (uint64_t)((double)ubp_context_argument(hit, 1) * 1.0);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static uint64_t g_records;
static void count_record(const ubp_record* record, void* data) {
  (void)record;
  ++*(uint64_t*)data;
}

static double call_ns(int drains) {
  double least = 1e9;
  long sum = 0;
  for (int run = 0; run < kRuns; ++run) {
    const double start = seconds();
    for (long i = 0; i < kRing; ++i) sum += target_add(1, i);
    const double ns = (seconds() - start) / kRing * 1e9;
    if (ns < least) least = ns;
    if (drains) ubp_drain(count_record, &g_records);
  }
  return sum == 1 ? 0 : least;
}

int main(void) {
  static const struct {
    const char* name;
    ubp_consumer consumer;
    uint32_t flags;
  } kKinds[] = {
      {"counted only", NULL, 0},
      {"NO_FP, NO_REGISTERS", nothing, UBP_PROBE_NO_FP | UBP_PROBE_NO_REGISTERS},
      {"NO_FP", keeps, UBP_PROBE_NO_FP},
      {"NO_FP, MODIFY", keeps, UBP_PROBE_NO_FP | UBP_PROBE_MODIFY},
      {"SSE_ONLY", keeps, UBP_PROBE_SSE_ONLY},
      {"nothing declared", averages, 0},
      {"the same, touches none", keeps, 0},
      {"timestamped record", NULL, UBP_PROBE_RECORD},
  };
  int wrong = 0;
  ubp_init(NULL);
  for (unsigned i = 0; i < sizeof kKinds / sizeof *kKinds; ++i) {
    uint64_t data = 0;
    ubp_options options = {.struct_size = sizeof options, .flags = kKinds[i].flags, .data = &data};
    ubp_probe_stats stats = {.struct_size = sizeof stats};
    ubp_stats all = {.struct_size = sizeof all};
    ubp_probe* probe;
    options.consumer = kKinds[i].consumer;
    const double plain = call_ns(0);
    if (ubp_register("libfx_target:target_add", &options, &probe, NULL) != UBP_OK) return 1;
    ubp_read(&all);
    const double probed = call_ns((options.flags & UBP_PROBE_RECORD) != 0);
    ubp_probe_read(probe, &stats);
    const uint64_t calls = (uint64_t)kRuns * kRing;
    wrong += stats.hits != calls || (options.consumer != NULL && options.consumer != nothing && data != kRing - 1);
    wrong += (options.flags & UBP_PROBE_RECORD) != 0 &&
             (g_records != calls || stats.recorded != calls || stats.dropped != 0);
    printf("%-22s %7.2f ns%s\n", kKinds[i].name, probed - plain, all.optimised_probepoints == 0 ? " (by traps)" : "");
    ubp_unregister(probe);
  }
  printf("%d wrong\n", wrong);
  return wrong;
}
