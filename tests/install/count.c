/* Strict C99: probes on a function of its own and on one of libc's. Ends with 0 when every count is exact. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ubp.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
#define CALLS 1000

static int failures = 0;

static void check(int is_good, const char* what, double got) {
  if (is_good) return;
  printf("count: %s: got %g\n", what, got);
  ++failures;
}

int step(int value);
int step(int value) { return value * 3 + 1; }

static void add_argument(const ubp_context* context, void* sum) {
  *(unsigned long*)sum += (unsigned long)ubp_context_argument(context, 0);
}

static double hits(ubp_probe* probe) {
  ubp_probe_stats stats = {0};
  stats.struct_size = sizeof stats;
  check(ubp_probe_read(probe, &stats) == UBP_OK, "ubp_probe_read", 0);
  return (double)stats.hits;
}

int main(void) {
  int (*volatile call)(int) = step; /* neither is inlined */
  long (*volatile absolute)(long) = labs;
  const char* const version = TEXT(UBP_VERSION_MAJOR) "." TEXT(UBP_VERSION_MINOR) "." TEXT(UBP_VERSION_PATCH);
  unsigned long sum = 0;
  long total = 0;
  ubp_probe *own = NULL, *libc = NULL;
  ubp_options options = {0};
  int i;
  options.struct_size = sizeof options;
  options.consumer = add_argument;
  options.data = &sum;
  check(strcmp(ubp_version(), version) == 0, "ubp_version() and the header's differ", 0);
  check(ubp_register("libc:labs", NULL, &libc, NULL) == UBP_E_NOT_ACTIVE, "ubp_register() before ubp_init()", 0);
  check(ubp_init(NULL) == UBP_OK, "ubp_init()", 0);
  check(ubp_register_symbol(NULL, "step", 0, &options, &own, NULL) == UBP_OK, "ubp_register_symbol()", 0);
  check(ubp_register("libc:labs", NULL, &libc, NULL) == UBP_OK, "ubp_register()", 0);
  for (i = 0; i < CALLS; ++i) total += call(i) + absolute(-i);
  check(total == 4L * CALLS * (CALLS - 1) / 2 + CALLS, "what the probed functions return", (double)total);
  check(hits(own) == CALLS, "hits of step", hits(own));
  check(hits(libc) == CALLS, "hits of labs", hits(libc));
  check(sum == (unsigned long)CALLS * (CALLS - 1) / 2, "the sum of the consumer's arguments", (double)sum);
  check(ubp_unregister(own) == UBP_OK, "ubp_unregister()", 0);
  call(0);
  check(sum == (unsigned long)CALLS * (CALLS - 1) / 2, "the consumer after ubp_unregister()", (double)sum);
  check(ubp_shutdown() == UBP_OK, "ubp_shutdown()", 0);
  check(ubp_is_active() == 0, "ubp_is_active() after ubp_shutdown()", 0);
  return failures != 0;
}
