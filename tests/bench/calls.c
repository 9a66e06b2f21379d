/* What a call of a function costs that does next to nothing, under whatever probes it: build/tests/api/calls [DEPTH].
 * Nanoseconds of processor time a call, the least of 200 runs of 20,000 calls; DEPTH more frames are above it. For
 * example: ubp run -q -e 'call:called { @ = hist(elapsed) }' -- build/tests/api/calls */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { kRuns = 200, kCalls = 20000 };

/* As long as a function that does something: room for jumps at its entry and at its return. */
__attribute__((noipa)) long called(long x) {
  __asm__ volatile(".fill 12, 1, 0x90");
  return x + 1;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double least_ns(void) {
  double least = 1e9;
  for (int run = 0; run < kRuns; ++run) {
    long sum = 0;
    const double start = seconds();
    for (long i = 0; i < kCalls; ++i) sum += called(i);
    const double ns = (seconds() - start) / kCalls * 1e9;
    if (sum == 0) abort();
    if (ns < least) least = ns;
  }
  return least;
}

__attribute__((noipa)) static double deep(int depth) {
  const double ns = depth > 0 ? deep(depth - 1) : least_ns();
  __asm__ volatile(""); /* no jump, but a frame */
  return ns;
}

int main(int argc, char** argv) {
  printf("%.1f ns\n", deep(argc > 1 ? atoi(argv[1]) : 0));
  return 0;
}
