// Consumers: what they see and change, what they miss, and signals meanwhile.
#include "fixture.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cfenv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

TEST_CASE("a consumer sees the hit: arguments, registers, flags, address, thread; vector state and errno survive it") {
  struct Seen {
    int calls = 0;
    std::uint64_t arguments[8], ip = 0, rdi = 0, rsp = 0;
    std::uint32_t thread = 0;
    ubp_probe* probe = nullptr;
    bool bad_register = false;
  } seen;
  const auto consumer = [](const ubp_context* context, void* data) {
    Seen& s = *static_cast<Seen*>(data);
    ++s.calls;
    for (unsigned i = 0; i < 8; ++i) s.arguments[i] = ubp_context_argument(context, i);
    s.ip = ubp_context_ip(context);
    s.rdi = ubp_context_register(context, UBP_RDI);
    s.rsp = ubp_context_register(context, UBP_RSP);
    s.thread = ubp_context_thread_id(context);
    s.probe = ubp_context_probe(context);
    s.bad_register =
        ubp_context_register(context, static_cast<ubp_register_id>(16)) == 0 && (ubp_context_flags(context) & 2) != 0;
    errno = 77;
    volatile double noise = std::sqrt(static_cast<double>(s.ip));
    noise = noise * 3;
    CHECK(ubp_context_set_register(context, UBP_RDI, 0) == UBP_E_REFUSED);
  };
  const Scoped eight(add("libfx_target:target_eight", consumer, &seen));
  errno = 5;
  CHECK(target_eight(1, 2, 3, 4, 5, 6, 7, 8) == 204);
  CHECK(errno == 5);
  CHECK(seen.calls == 1);
  for (unsigned i = 0; i < 8; ++i) CHECK(seen.arguments[i] == i + 1);
  CHECK(seen.ip == reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_eight")));
  CHECK(seen.rdi == 1);
  CHECK(seen.thread == static_cast<std::uint32_t>(gettid()));
  CHECK(seen.probe == eight.probe);
  CHECK(seen.bad_register);
  const std::uint64_t here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  CHECK(here - seen.rsp < 65536);
  const Scoped scale(add("libfx_target:target_scale", consumer, &seen));
  CHECK(target_scale(1.5, 2.25) == 3.875);
  CHECK(seen.calls == 2);
}

TEST_CASE("a consumer that asked for it changes registers") {
  const auto consumer = [](const ubp_context* context, void*) {
    CHECK(ubp_context_set_register(context, UBP_RDI, ubp_context_register(context, UBP_RDI) + 100) == UBP_OK);
    CHECK(ubp_context_set_register(context, UBP_RSP, 0) == UBP_E_INVALID);
    CHECK(ubp_context_set_register(context, static_cast<ubp_register_id>(99), 0) == UBP_E_INVALID);
  };
  const Scoped probe(add("libfx_target:target_add", consumer, nullptr, UBP_PROBE_MODIFY));
  CHECK(target_add(1, 2) == 103);
  CHECK(ubp_disable(probe.probe) == UBP_OK);
  CHECK(target_add(1, 2) == 3);
}

TEST_CASE("what a consumer calls itself is missed, by every probe, and runs no consumer") {
  static int calls;
  calls = 0;
  const auto consumer = [](const ubp_context*, void*) {
    ++calls;
    CHECK(target_twice(3) == 6);  // target_twice is this probe's own, target_add another's
  };
  const Scoped twice(add("libfx_target:target_twice", consumer));
  const Scoped counted(add("libfx_target:target_add"));
  for (int i = 0; i < 5; ++i) CHECK(target_twice(i) == 2 * i);
  CHECK(calls == 5);
  CHECK(read(twice.probe).recorded == 5);
  CHECK(read(twice.probe).missed == 5);
  CHECK(read(counted.probe).recorded == 5);
  CHECK(read(counted.probe).missed == 5);
}

TEST_CASE("several consumers at one address run in the order of their registration") {
  static std::string order;
  order.clear();
  const auto note = [](const ubp_context*, void* data) { order += static_cast<const char*>(data); };
  const Scoped a(add("libfx_target:target_add", note, const_cast<char*>("a")));
  {
    const Scoped b(add("libfx_target:target_add", note, const_cast<char*>("b")));
    const Scoped c(add("libfx_target:target_add"));
    target_add(1, 1);
    CHECK(read(c.probe).hits == 1);
  }
  target_add(1, 1);
  CHECK(order == "aba");
}

TEST_CASE("a consumer that joins one that asks for less finds everything saved, or is not there yet") {
  std::atomic<bool> ends{false};
  std::atomic<long> calls{0}, wrong{0};
  static std::atomic<long> joined, strange;
  joined = strange = 0;
  const Scoped first(add(
      "libfx_target:target_scale", [](const ubp_context*, void*) {}, nullptr,
      UBP_PROBE_NO_FP | UBP_PROBE_NO_REGISTERS));
  std::thread thread([&] {
    for (double x = 1; !ends; x += 1) {
      wrong += target_scale(x, 2.25) != x * 2.25 + 0.5;
      ++calls;
    }
  });
  const auto joins = [](const ubp_context* context, void*) {
    ++joined;
    strange += ubp_context_register(context, UBP_RSP) == 0;
    asm volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm1, %%xmm1" : : : "xmm0", "xmm1");
  };
  for (int turn = 0; turn < 400; ++turn) {
    const Scoped second(add("libfx_target:target_scale", joins));
    if (turn % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  ends = true;
  thread.join();
  CHECK(calls > 0);
  CHECK(joined > 0);
  CHECK(wrong == 0);
  CHECK(strange == 0);
}

TEST_CASE("inside a consumer every call is an error and changes nothing") {
  static std::vector<ubp_status> got;
  static ubp_probe* own;
  got.clear();
  const auto consumer = [](const ubp_context*, void*) {
    ubp_probe* probe = nullptr;
    auto stats = sized<ubp_probe_stats>();
    auto all = sized<ubp_stats>();
    for (const ubp_status status :
         {ubp_register("libfx_target:target_quiet", nullptr, &probe, nullptr), ubp_unregister(own), ubp_enable(own),
          ubp_disable(own), ubp_probe_read(own, &stats), ubp_read(&all), ubp_init(nullptr), ubp_shutdown(), ubp_flush(),
          ubp_transaction_begin()}) {
      got.push_back(status);
    }
  };
  const Scoped probe(add("libfx_target:target_add", consumer));
  own = probe.probe;
  CHECK(target_add(1, 2) == 3);
  CHECK(got.size() == 10);
  for (const ubp_status status : got) CHECK(status == UBP_E_IN_CONSUMER);
  CHECK(read(probe.probe).recorded == 1);
}

TEST_CASE("unregister waits for the consumer that runs") {
  static std::atomic<int> state;
  state = 0;
  const auto consumer = [](const ubp_context*, void*) {
    state = 1;
    while (state != 2) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    state = 3;
  };
  ubp_probe* const probe = add("libfx_target:target_add", consumer);
  std::thread thread([] { target_add(1, 1); });
  while (state != 1) std::this_thread::yield();
  state = 2;
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(state == 3);
  thread.join();
}

TEST_CASE("signals wait until the consumer returns, and then find the original context") {
  static volatile sig_atomic_t in_consumer, in_the_middle, handled;
  static std::uint64_t rip;
  in_consumer = 0;
  in_the_middle = 0;
  handled = 0;
  struct sigaction act {
  }, old{};
  act.sa_sigaction = [](int, siginfo_t*, void* context) {
    handled = handled + 1;
    if (in_consumer) in_the_middle = 1;
    rip = static_cast<std::uint64_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
  };
  act.sa_flags = SA_SIGINFO;
  sigaction(SIGUSR1, &act, &old);
  const auto consumer = [](const ubp_context*, void*) {
    in_consumer = 1;
    pthread_kill(pthread_self(), SIGUSR1);
    pthread_kill(pthread_self(), SIGUSR1);  // the first is on its way
    in_consumer = 0;
  };
  const Scoped probe(add("libfx_target:target_add", consumer));
  for (int i = 0; i < 100; ++i) CHECK(target_add(i, 1) == i + 1);
  CHECK(read(probe.probe).recorded == 100);
  CHECK(in_the_middle == 0);
  CHECK(handled == 200);
  CHECK(rip - reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_add")) < 16);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  CHECK(sigismember(&mask, SIGUSR1) == 0);
  CHECK(sigismember(&mask, SIGHUP) == 0);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE("a SIGTRAP of the program's own waits for the consumer, and no longer") {
  static volatile sig_atomic_t in_consumer, in_the_middle, handled, others;
  static bool is_second;  // behind another signal that waits already
  in_consumer = 0;
  in_the_middle = 0;
  handled = 0;
  others = 0;
  struct sigaction act {
  }, old{}, old_other{};
  act.sa_handler = [](int signal) {
    if (in_consumer) in_the_middle = 1;
    auto& count = signal == SIGTRAP ? handled : others;
    count = count + 1;
  };
  sigaction(SIGTRAP, &act, &old);
  sigaction(SIGUSR1, &act, &old_other);
  const auto consumer = [](const ubp_context*, void*) {
    in_consumer = 1;
    if (is_second) pthread_kill(pthread_self(), SIGUSR1);
    pthread_kill(pthread_self(), SIGTRAP);
    in_consumer = 0;
  };
  int wrong = 0;
  {
    const Scoped probe(add("libfx_target:target_add", consumer));
    for (const bool second : {false, true}) {
      is_second = second;
      for (int i = 0; i < 100; ++i) {
        const int before = handled;
        CHECK(target_add(i, 1) == i + 1);
        wrong += handled != before + 1;  // before anything else is hit
      }
    }
    CHECK(read(probe.probe).recorded == 200);
  }
  CHECK(wrong == 0);
  CHECK(in_the_middle == 0);
  CHECK(handled == 200);
  CHECK(others == 100);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  CHECK(sigismember(&mask, SIGTRAP) == 0);
  CHECK(sigismember(&mask, SIGHUP) == 0);
  sigaction(SIGTRAP, &old, nullptr);
  sigaction(SIGUSR1, &old_other, nullptr);
}

TEST_CASE("a consumer's hits at 10 kHz signals: each exactly once") {
  static std::atomic<long> runs, signals;
  runs = signals = 0;
  const Scoped probe(add("libfx_target:target_twice; libfx_target:target_twice+0; insn:libfx_target:target_add",
                         [](const ubp_context*, void*) { ++runs; }));
  const auto before = read(probe.probe);
  long calls = 0, wrong = 0;
  {
    const Alarm alarm([](int) { ++signals; }, 100000);
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
    while (std::chrono::steady_clock::now() < end) {
      ++calls;
      wrong += target_twice(calls) != 2 * calls;
    }
  }
  CHECK(wrong == 0);
  CHECK(signals > 100);
  const auto after = read(probe.probe);
  CHECK(static_cast<std::uint64_t>(runs.load()) == after.recorded);
  CHECK((after.recorded - before.recorded) % static_cast<std::uint64_t>(calls) == 0);
  CHECK(after.recorded > static_cast<std::uint64_t>(calls));
}

TEST_CASE("a consumer that ends the process ends it as it meant to") {
  const auto ends = [](ubp_consumer consumer) {
    const pid_t child = fork();
    if (child == 0) {
      signal(SIGABRT, SIG_DFL);  // the test framework's
      signal(SIGQUIT, SIG_DFL);  // ignored in a shell's background jobs
      add("libfx_target:target_add", consumer);
      target_add(1, 1);
      _exit(99);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
  };
  const int aborted = ends([](const ubp_context*, void*) { std::abort(); });
  CHECK((WIFSIGNALED(aborted) && WTERMSIG(aborted) == SIGABRT));
  const int left = ends([](const ubp_context*, void*) { _exit(7); });
  CHECK((WIFEXITED(left) && WEXITSTATUS(left) == 7));
  const int handled = ends([](const ubp_context*, void*) {
    signal(SIGSEGV, [](int) { _exit(9); });
    raise(SIGSEGV);  // sent, not a fault: not held back all the same
  });
  CHECK((WIFEXITED(handled) && WEXITSTATUS(handled) == 9));
  const int quit = ends([](const ubp_context*, void*) { raise(SIGQUIT); });
  CHECK((WIFSIGNALED(quit) && WTERMSIG(quit) == SIGQUIT));
}

TEST_CASE("a consumer may fork while another thread waits for it to end") {
  static std::atomic<int> state, result;
  state = result = 0;
  ubp_probe* const probe = add("libfx_target:target_add", [](const ubp_context*, void*) {
    if (state++ != 0) return;  // the child's second call
    while (state != 2) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const pid_t child = fork();
    if (child == 0) return;  // and goes on after it, below
    int status = 0;
    waitpid(child, &status, 0);
    result = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  });
  const pid_t parent = getpid();
  std::thread thread([parent] {
    const long sum = target_add(1, 1);
    if (getpid() != parent) _exit(sum == 2 && target_add(2, 2) == 4 ? 5 : 6);
  });
  while (state != 1) std::this_thread::yield();
  state = 2;
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(result == 5);
  thread.join();
}

TEST_CASE("a signal that waited for a consumer leaves the thread's mask alone afterwards") {
  static volatile int handled;
  handled = 0;
  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) { handled = handled + 1; };
  sigaction(SIGUSR1, &action, &old);
  const auto raises = [](const ubp_context*, void* data) {
    if (++*static_cast<int*>(data) == 10) kill(getpid(), SIGUSR1);
  };
  int runs = 0;
  const Scoped probe(add("libfx_target:target_add", raises, &runs));
  for (long i = 0; i < 20; ++i) target_add(i, 1);
  CHECK(handled == 1);
  sigset_t set, present;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  for (long i = 0; i < 20; ++i) target_add(i, 1);
  pthread_sigmask(SIG_SETMASK, nullptr, &present);
  CHECK(sigismember(&present, SIGUSR2) == 1);
  CHECK(sigismember(&present, SIGUSR1) == 0);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  sigaction(SIGUSR1, &old, nullptr);
  CHECK(runs == 40);
}

TEST_CASE("a consumer forks, deep in no stack: its child goes on") {
  static pid_t child;
  child = -1;
  const auto forks = [](const ubp_context*, void*) { child = fork(); };
  const Scoped probe(add("libfx_target:target_add", forks));
  CHECK(target_add(1, 2) == 3);  // a thread's first hit traps
  if (child == 0) _exit(7);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 7 << 8);
  for (int i = 0; i < 3; ++i) {
    const long sum = target_add(i, 2);
    if (child == 0) _exit(sum == i + 2 && target_scale(2, 3) == 6.5 ? 7 : 8);
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 7 << 8);
  }
}

TEST_CASE("a consumer's floating-point exceptions are its own, and the program's unmasked ones not its") {
  const auto divides = [](const ubp_context*, void* data) {
    volatile double one = 1, three = 3;
    *static_cast<volatile double*>(data) = one / three;  // inexact
  };
  for (const std::uint32_t flags : {0u, static_cast<std::uint32_t>(UBP_PROBE_SSE_ONLY)}) {
    CAPTURE(flags);
    volatile double result = 0;
    const Scoped probe(add("libfx_target:target_add", divides, const_cast<double*>(&result), flags));
    std::feclearexcept(FE_ALL_EXCEPT);
    for (long i = 0; i < 10; ++i) target_add(i, 1);
    CHECK(std::fetestexcept(FE_INEXACT) == 0);
    feenableexcept(FE_INEXACT);
    for (long i = 0; i < 10; ++i) target_add(i, 1);
    fedisableexcept(FE_ALL_EXCEPT);
    CHECK(result != 0);
  }
}
