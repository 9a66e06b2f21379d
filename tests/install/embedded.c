// One runtime for the whole process, wherever UBP is. Ends with 0 when all is as it should be.
//
//   embedded program|library NAME...   the definitions of these libc functions are the program's, libubp.so's
//   embedded other                     a preloaded libubp.so owns the process; ends by _exit
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ubp.h>
#include <unistd.h>

#define CALLS 1000

static int failures = 0;

static void check(int is_good, const char* what, const char* detail) {
  if (is_good) return;
  printf("embedded: %s: %s\n", what, detail);
  ++failures;
}

int step(int value);
__attribute__((noinline)) int step(int value) {
  __asm__ volatile("");
  return value + 1;
}

static void* module_of(const void* address) {
  Dl_info info;
  return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}

static ubp_refusal refusal = {.struct_size = sizeof refusal};

static unsigned long hits(ubp_probe* probe) {
  ubp_probe_stats stats = {.struct_size = sizeof stats};
  check(ubp_probe_read(probe, &stats) == UBP_OK, "ubp_probe_read", "failed");
  if (ubp_probe_refusal(probe, 0, &refusal) == UBP_OK) check(0, "refused", refusal.symbol);
  check(stats.refused == 0, "refused", "more than 0");
  return stats.hits;
}

static volatile sig_atomic_t traps = 0;
static void on_trap(int signal) {
  (void)signal;
  ++traps;
}

// SIGTRAP is the program's to set, block and raise, and the probes go on.
static void check_signals(ubp_probe* probe) {
  struct sigaction action = {.sa_handler = on_trap}, before;
  sigset_t set;
  const unsigned long hits_before = hits(probe);
  sigaction(SIGTRAP, &action, NULL);
  sigaction(SIGTRAP, NULL, &before);
  check(before.sa_handler == on_trap, "the handler of SIGTRAP", "is not read back");
  sigemptyset(&set);
  sigaddset(&set, SIGTRAP);
  sigprocmask(SIG_BLOCK, &set, NULL);
  raise(SIGTRAP);
  for (int i = 0; i < CALLS; ++i) step(i);
  check(traps == 0, "SIGTRAP", "came while it was blocked");
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  check(traps == 1, "SIGTRAP", "did not come when it was unblocked");
  check(hits(probe) - hits_before == CALLS, "step", "has not its hits while SIGTRAP was blocked");
}

static void check_refused(ubp_status status, const char* what) {
  check(status == UBP_E_REFUSED, what, "is not refused");
  check(strncmp(refusal.message, "runtime:", 8) == 0, what, refusal.message);
}

static void run(int is_in_program, char** names) {
  void* const where = module_of(is_in_program ? (void*)&step : dlsym(RTLD_DEFAULT, "ubp_init"));
  ubp_probe *probe = NULL, *all = NULL;
  for (; *names != NULL; ++names) {
    check(where != NULL && module_of(dlsym(RTLD_DEFAULT, *names)) == where, *names,
          "is not UBP's for the whole process");
  }
  check(ubp_init(NULL) == UBP_OK, "ubp_init", "failed");
  check(ubp_register_address((void*)&step, NULL, &probe, &refusal) == UBP_OK, "step", refusal.message);
  for (int i = 0; i < CALLS; ++i) step(i);
  check(hits(probe) == CALLS, "step", "has not its hits");
  check_signals(probe);

  // Nothing of the runtime's own: what it is named by is refused, what a glob finds is left out.
  check_refused(ubp_register_address(dlsym(RTLD_DEFAULT, "sigprocmask"), NULL, NULL, &refusal), "sigprocmask");
  if (is_in_program) {
    check_refused(ubp_register_address((void*)&ubp_init, NULL, NULL, &refusal), "&ubp_init");
    check_refused(ubp_register("ubp_init", NULL, NULL, &refusal), "ubp_init");
    check(ubp_register("ubp_*", NULL, NULL, &refusal) == UBP_E_NOT_FOUND, "ubp_*", "is found");
  }
  check(ubp_register("*", NULL, &all, &refusal) == UBP_OK, "*", refusal.message);
  step(0);
  check(hits(all) >= 1, "*", "has no hits");
  check(ubp_shutdown() == UBP_OK, "ubp_shutdown", "failed");
}

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "other") == 0) {
    check(ubp_init(NULL) == UBP_E_OTHER_RUNTIME, "ubp_init", "does not see the other runtime");
    check(ubp_is_active() == 0, "ubp_is_active", "is true");
    check(ubp_register("step", NULL, NULL, NULL) == UBP_E_NOT_ACTIVE, "ubp_register", "works");
    for (int i = 0; i < CALLS; ++i) step(i);
    fflush(stdout);
    _exit(failures != 0);
  }
  check(count > 2, "arguments", "are missing");
  if (count > 2) run(strcmp(arguments[1], "program") == 0, arguments + 2);
  return failures != 0;
}
