/* Preloaded into other projects' tests: an embedding that counts what COUNT_SPEC names and, in every call of what
 * CONSUME_SPEC names, runs a consumer; at exit both counts go to COUNT_FILE. */
#include <stdio.h>
#include <stdlib.h>
#include <ubp.h>

static ubp_probe *counted, *consumed;
static unsigned long long runs;

static void consumer(const ubp_context* context, void* data) {
  (void)context;
  __atomic_fetch_add((unsigned long long*)data, 1, __ATOMIC_RELAXED);
}

static void require(ubp_status status, const ubp_refusal* refusal) {
  if (status == UBP_OK) return;
  fprintf(stderr, "counting: %s: %s\n", ubp_status_string(status), refusal->message);
  _Exit(99);
}

__attribute__((constructor)) static void start(void) {
  ubp_refusal refusal = {sizeof refusal};
  ubp_options options = {sizeof options, UBP_PROBE_NO_FP, 0, consumer, &runs};
  require(ubp_init(NULL), &refusal);
  require(ubp_register(getenv("COUNT_SPEC"), NULL, &counted, &refusal), &refusal);
  require(ubp_register(getenv("CONSUME_SPEC"), &options, &consumed, &refusal), &refusal);
}

__attribute__((destructor)) static void stop(void) {
  ubp_probe_stats all = {sizeof all}, some = {sizeof some};
  FILE* file;
  if (ubp_probe_read(counted, &all) != UBP_OK || ubp_probe_read(consumed, &some) != UBP_OK) return;
  file = fopen(getenv("COUNT_FILE"), "w");
  if (file == NULL) return;
  fprintf(file, "%llu %llu %llu\n", (unsigned long long)all.hits, (unsigned long long)some.recorded, runs);
  fclose(file);
}
