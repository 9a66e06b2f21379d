// A program to try probes on: two threads that together call step() a known number of times.
//
//   LD_PRELOAD=build/libubp.so UBP_PROBES=step build/examples/count 1000     # hits of step: 2000
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 2 };

static long calls_per_thread = 100000;

// noipa: the compiler neither inlines step nor makes a changed copy of it, so every call runs through its entry.
__attribute__((noipa)) long step(long sum, long i) { return sum + i; }

static void* run(void* result) {
  long sum = 0;
  for (long i = 0; i < calls_per_thread; i++) sum = step(sum, i);
  *(long*)result = sum;
  return NULL;
}

int main(int argc, char** argv) {
  if (argc > 1) calls_per_thread = strtol(argv[1], NULL, 10);
  pthread_t threads[THREADS];
  long sums[THREADS];
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, run, &sums[i]) != 0) return 1;
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  printf("%d threads called step %ld times each; sums %ld and %ld\n", THREADS, calls_per_thread, sums[0], sums[1]);
  return 0;
}
