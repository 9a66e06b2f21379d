/* UBP inside a program, in C99: count the calls of two functions, and read the counts.
 *
 *   cc -std=c99 embed.c $(pkg-config --cflags --libs ubp)
 */
#include <stdio.h>
#include <stdlib.h>
#include <ubp.h>

/* noipa: no call of it is inlined or optimised away. */
__attribute__((noipa)) static long work(long i) { return i * i; }

int main(void) {
  ubp_probe* probe;
  ubp_refusal refusal = {.struct_size = sizeof refusal};
  ubp_status status = ubp_init(NULL);
  if (status == UBP_OK) status = ubp_register("work; libc:getenv", NULL, &probe, &refusal);
  if (status != UBP_OK) {
    fprintf(stderr, "%s: %s %s\n", ubp_status_string(status), refusal.message, refusal.hint);
    return 1;
  }

  long sum = 0;
  for (long i = 1; i <= 1000; i++) sum += work(i);
  getenv("HOME");

  ubp_probe_stats stats = {.struct_size = sizeof stats};
  ubp_probe_read(probe, &stats);
  printf("sum %ld; %llu hits at %llu addresses\n", sum, (unsigned long long)stats.hits,
         (unsigned long long)stats.probepoints);
  return ubp_shutdown() == UBP_OK ? 0 : 1;
}
