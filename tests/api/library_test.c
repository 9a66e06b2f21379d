/* A program whose library uses UBP, and that does not know: the functions that libubp stands in front of are libc's
 * here, and what libubp itself calls has to find them all the same. Registers, counts beside threads and signals,
 * forks, and ends. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture_lib.h"

static int g_failed;

static void check(int good, const char* what) {
  if (good) return;
  printf("not so: %s\n", what);
  ++g_failed;
}

__attribute__((noipa)) long called(long x) { return x + 1; }

static void* calls(void* unused) {
  for (int i = 0; i < 10000; ++i) called(i);
  return unused;
}

static volatile sig_atomic_t g_handled;
static void on_signal(int signal) {
  (void)signal;
  called(0);
  ++g_handled;
}

int main(void) {
  if (!fixture_start("called; libc:getppid")) return 1;
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) check(pthread_create(&threads[i], NULL, calls, NULL) == 0, "a thread starts");
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
  check(fixture_hits() == 40000, "40,000 hits");
  struct sigaction act;
  memset(&act, 0, sizeof act);
  act.sa_handler = on_signal;
  sigset_t all;
  sigfillset(&all);
  sigaction(SIGUSR1, &act, NULL);
  sigprocmask(SIG_BLOCK, &all, NULL);
  raise(SIGUSR1);
  called(0);
  check(g_handled == 0, "what is blocked waits");
  sigprocmask(SIG_UNBLOCK, &all, NULL);
  check(g_handled == 1, "it is handled");
  check(fixture_hits() == 40002, "a hit with every signal blocked, and one in a handler");
  const pid_t child = fork();
  if (child == 0) {
    called(0);
    _exit(fixture_hits() == 1 || fixture_hits() > 40000 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  check(status == 0, "a forked child goes on counting");
  getppid();
  check(fixture_hits() == 40003, "a function of libc's");
  check(fixture_stop(), "it stops");
  called(0);
  check(signal(SIGTERM, SIG_IGN) == SIG_DFL, "dispositions are as they were");
  printf("%d failed\n", g_failed);
  return g_failed != 0;
}
