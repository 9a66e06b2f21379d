// What the tests of the C interface share.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <ubp.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <ctime>

#include "target.h"

extern ubp_probe* g_early;   // target_quiet, registered before main
ubp_config configuration();  // of this run: UBP_TEST_POLICY

template <typename T>
T sized() {
  T structure{};
  structure.struct_size = sizeof structure;
  return structure;
}

// How a child ends that does this, as wait() tells it; it is killed after so many seconds.
template <typename Body>
int end_of_child(unsigned seconds, const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds);
    _exit(body());
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

inline ubp_probe_stats read(ubp_probe* probe) {
  auto stats = sized<ubp_probe_stats>();
  REQUIRE(ubp_probe_read(probe, &stats) == UBP_OK);
  CHECK(stats.hits == stats.recorded + stats.filtered + stats.missed + stats.dropped);
  return stats;
}

inline ubp_probe* add(const char* spec, ubp_consumer consumer = nullptr, void* data = nullptr,
                      std::uint32_t flags = 0) {
  auto options = sized<ubp_options>();
  options.consumer = consumer;
  options.data = data;
  options.flags = flags;
  auto refusal = sized<ubp_refusal>();
  ubp_probe* probe = nullptr;
  const ubp_status status = ubp_register(spec, &options, &probe, &refusal);
  INFO(refusal.message);
  REQUIRE(status == UBP_OK);
  return probe;
}

// SIGALRM every `period_ns`, to `handler`, until it goes.
class Alarm {
 public:
  Alarm(void (*handler)(int), long period_ns) {
    struct sigaction act {};
    act.sa_handler = handler;
    sigaction(SIGALRM, &act, &old_);
    struct sigevent event {};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGALRM;
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0);
    const itimerspec every{{0, period_ns}, {0, period_ns}};
    timer_settime(timer_, 0, &every, nullptr);
  }
  ~Alarm() {
    timer_delete(timer_);
    sigaction(SIGALRM, &old_, nullptr);
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

 private:
  struct sigaction old_ {};
  timer_t timer_{};
};

// Removes its probe at the end of a test.
struct Scoped {
  ubp_probe* probe;
  explicit Scoped(ubp_probe* p) : probe(p) {}
  ~Scoped() { ubp_unregister(probe); }
};
