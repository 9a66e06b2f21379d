/* A program with an allocator of its own, which a signal interrupts: its handler registers the first probe of all, one
 * in a module whose symbols nobody has read, and one that is refused. libubp asks the allocator for nothing. Linked
 * with libubp.so, and with libubp.a. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ubp.h>

static char g_heap[1 << 20] __attribute__((aligned(16)));
static size_t g_used;
static volatile sig_atomic_t g_is_inside, g_raises, g_nested;

void* malloc(size_t size) {
  if (g_is_inside) ++g_nested;
  g_is_inside = 1;
  if (g_raises) raise(SIGUSR1);
  size = (size + 15) & ~(size_t)15;
  if (size > sizeof g_heap - g_used) abort();
  g_used += size;
  g_is_inside = 0;
  return g_heap + g_used - size;
}
void free(void* memory) {
  if (memory != NULL && g_is_inside) ++g_nested;
}
void* calloc(size_t count, size_t size) { return malloc(count * size); }
void* realloc(void* memory, size_t size) {
  void* const moved = malloc(size);
  return memory != NULL ? memcpy(moved, memory, size) : moved;
}

__attribute__((noipa)) long called(long x) { return x + 1; }

static ubp_status g_first, g_other, g_refused;
static ubp_probe* g_probe;

static void on_signal(int signal) {
  ubp_probe *other = NULL, *refused = NULL;
  (void)signal;
  g_first = ubp_register("called", NULL, &g_probe, NULL);
  g_other = ubp_register("libc:getppid", NULL, &other, NULL);
  g_refused = ubp_register("libc:no_such_function", NULL, &refused, NULL);
  if (g_other == UBP_OK) g_other = ubp_unregister(other);
}

int main(void) {
  ubp_probe_stats stats = {.struct_size = sizeof stats};
  const ubp_status init = ubp_init(NULL);
  signal(SIGUSR1, on_signal);
  g_raises = 1;
  void* const memory = malloc(16);
  g_raises = 0;
  for (int i = 0; i < 1000; ++i) called(i);
  const ubp_status read = ubp_probe_read(g_probe, &stats);
  const ubp_status end = ubp_shutdown();
  printf("init %d first %d other %d refused %d read %d end %d hits %lu nested %d\n", init, g_first, g_other, g_refused,
         read, end, (unsigned long)stats.hits, (int)g_nested);
  free(memory);
  return init == UBP_OK && g_first == UBP_OK && g_other == UBP_OK && g_refused == UBP_E_NOT_FOUND && read == UBP_OK &&
                 end == UBP_OK && stats.hits == 1000 && g_nested == 0
             ? 0
             : 1;
}
