// What a breakpoint costs at least: int3 into an empty SIGTRAP handler, the floor under any probe that traps.
//
//   build/examples/floor 1000000 2          # hits per thread, threads
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_THREADS = 256 };

static long hits = 1000000;

static void on_trap(int signal) { (void)signal; }

static void* run(void* unused) {
  for (long i = 0; i < hits; i++) __asm__ volatile("int3");
  return unused;
}

int main(int argc, char** argv) {
  if (argc > 1) hits = strtol(argv[1], NULL, 10);
  const int count = argc > 2 ? atoi(argv[2]) : 1;
  if (hits < 1 || count < 1 || count > MAX_THREADS) return 2;
  struct sigaction act = {.sa_handler = on_trap, .sa_flags = SA_NODEFER};
  sigaction(SIGTRAP, &act, NULL);
  pthread_t threads[MAX_THREADS];
  struct timespec begin, end;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
  for (int i = 0; i < count; i++) {
    if (pthread_create(&threads[i], NULL, run, NULL) != 0) return 1;
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
  const double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
  const double all = (double)hits * count;
  printf("%.0f hits of an empty handler: %.2f us of processor time each\n", all, seconds * 1e6 / all);
  return 0;
}
