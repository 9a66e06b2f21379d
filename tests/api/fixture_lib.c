/* A library that uses UBP by itself: the program that it is part of does not name libubp, which then comes behind libc.
 */
#include "fixture_lib.h"

#include <signal.h>
#include <stdio.h>
#include <ubp.h>

static ubp_probe* g_probe;

int fixture_start(const char* spec) {
  ubp_refusal refusal = {.struct_size = sizeof refusal};
  ubp_status status = ubp_init(NULL);
  if (status == UBP_OK) status = ubp_register(spec, NULL, &g_probe, &refusal);
  if (status != UBP_OK) fprintf(stderr, "%s: %s\n", ubp_status_string(status), refusal.message);
  return status == UBP_OK;
}

long fixture_hits(void) {
  ubp_probe_stats stats = {.struct_size = sizeof stats};
  return ubp_probe_read(g_probe, &stats) == UBP_OK ? (long)stats.hits : -1;
}

int fixture_stop(void) { return ubp_unregister(g_probe) == UBP_OK && ubp_shutdown() == UBP_OK; }
