// The C interface, in a program that links it: what probes count, what consumers see and change, what misuse gets.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <dlfcn.h>
#include <sys/wait.h>
#include <ubp.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "target.h"

namespace {

ubp_status g_before_main = UBP_E_INVALID;
ubp_probe* g_early = nullptr;

// UBP_TEST_POLICY: the slot policy, as a number (the meson suite `policies`).
ubp_config configuration() {
  ubp_config config{};
  config.struct_size = sizeof config;
  config.slots = 4;
  if (const char* policy = std::getenv("UBP_TEST_POLICY")) config.policy = static_cast<std::uint32_t>(std::atoi(policy));
  return config;
}

// Before main, and before the C++ constructors of this program.
__attribute__((constructor(101))) void before_main() {
  g_before_main = ubp_register("fx_target:target_quiet", nullptr, &g_early, nullptr);  // not active yet
  const ubp_config config = configuration();
  if (ubp_init(&config) == UBP_OK) g_before_main = ubp_register("libfx_target:target_quiet", nullptr, &g_early, nullptr);
}

template <typename T>
T sized() {
  T structure{};
  structure.struct_size = sizeof structure;
  return structure;
}

ubp_probe_stats read(ubp_probe* probe) {
  auto stats = sized<ubp_probe_stats>();
  REQUIRE(ubp_probe_read(probe, &stats) == UBP_OK);
  CHECK(stats.hits == stats.recorded + stats.filtered + stats.missed + stats.dropped);
  return stats;
}

ubp_probe* add(const char* spec, ubp_consumer consumer = nullptr, void* data = nullptr, std::uint32_t flags = 0) {
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

// Removes its probe at the end of a test.
struct Scoped {
  ubp_probe* probe;
  explicit Scoped(ubp_probe* p) : probe(p) {}
  ~Scoped() { ubp_unregister(probe); }
};

std::vector<unsigned char> text_of(const void* function) {
  const auto* bytes = static_cast<const unsigned char*>(function);
  return {bytes, bytes + 16};
}

}  // namespace

TEST_CASE("init: idempotent, before main, and its arguments are checked") {
  CHECK(g_before_main == UBP_OK);
  CHECK(ubp_init(nullptr) == UBP_OK);
  CHECK(ubp_is_active() == 1);
  auto config = sized<ubp_config>();
  CHECK(ubp_init(&config) == UBP_OK);
  config.slots = 4097;
  CHECK(ubp_init(&config) == UBP_E_INVALID);
  config.slots = 0;
  config.policy = 5;
  CHECK(ubp_init(&config) == UBP_E_INVALID);
  config = {};
  CHECK(ubp_init(&config) == UBP_E_STRUCT_SIZE);
  CHECK(std::string(ubp_version()) == "0.1.0");
  const std::uint64_t before = read(g_early).hits;
  CHECK(target_quiet(1) == (1 ^ 0x55));
  CHECK(read(g_early).hits == before + 1);
}

TEST_CASE("counting: by specification, by symbol and by address, each on its own") {
  const Scoped spec(add("libfx_target:target_add"));
  ubp_probe *symbol = nullptr, *address = nullptr;
  REQUIRE(ubp_register_symbol("libfx_target", "target_add", 0, nullptr, &symbol, nullptr) == UBP_OK);
  REQUIRE(ubp_register_address(dlsym(RTLD_DEFAULT, "target_add"), nullptr, &address, nullptr) == UBP_OK);
  for (long i = 0; i < 10; ++i) CHECK(target_add(i, 1) == i + 1);
  CHECK(read(spec.probe).hits == 10);
  CHECK(read(symbol).hits == 10);
  CHECK(ubp_unregister(symbol) == UBP_OK);
  for (long i = 0; i < 5; ++i) target_add(i, 1);
  CHECK(read(spec.probe).hits == 15);
  CHECK(read(address).hits == 15);
  CHECK(ubp_disable(spec.probe) == UBP_OK);
  CHECK(ubp_disable(spec.probe) == UBP_OK);
  CHECK(read(spec.probe).enabled == 0);
  for (long i = 0; i < 5; ++i) target_add(i, 1);
  CHECK(ubp_enable(spec.probe) == UBP_OK);
  for (long i = 0; i < 3; ++i) target_add(i, 1);
  CHECK(read(spec.probe).hits == 18);
  CHECK(read(address).hits == 23);
  CHECK(ubp_unregister(address) == UBP_OK);
  auto total = sized<ubp_stats>();
  CHECK(ubp_read(&total) == UBP_OK);
  CHECK(total.hits == total.recorded + total.missed);
  CHECK(total.hits >= 10 + 18 + 23);
}

TEST_CASE("a glob counts all it matches, and reads as one probe") {
  const Scoped probe(add("libfx_target:target_*; !libfx_target:target_q*"));
  CHECK(target_twice(4) == 8);
  CHECK(target_eight(1, 1, 1, 1, 1, 1, 1, 1) == 36);
  CHECK(target_quiet(0) == 0x55);
  CHECK(read(probe.probe).hits == 3);
  CHECK(read(probe.probe).probepoints == 5);
}

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
    s.bad_register = ubp_context_register(context, static_cast<ubp_register_id>(16)) == 0 && (ubp_context_flags(context) & 2) != 0;
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

TEST_CASE("inside a consumer every call is an error and changes nothing") {
  static std::vector<ubp_status> got;
  static ubp_probe* own;
  got.clear();
  const auto consumer = [](const ubp_context*, void*) {
    ubp_probe* probe = nullptr;
    auto stats = sized<ubp_probe_stats>();
    auto all = sized<ubp_stats>();
    for (const ubp_status status :
         {ubp_register("libfx_target:target_quiet", nullptr, &probe, nullptr), ubp_unregister(own), ubp_enable(own), ubp_disable(own),
          ubp_probe_read(own, &stats), ubp_read(&all), ubp_init(nullptr), ubp_shutdown(), ubp_flush(), ubp_transaction_begin()}) {
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
  struct sigaction act {}, old{};
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
    pthread_kill(pthread_self(), SIGUSR1);  // waits beside the first: one
    in_consumer = 0;
  };
  const Scoped probe(add("libfx_target:target_add", consumer));
  for (int i = 0; i < 100; ++i) CHECK(target_add(i, 1) == i + 1);
  CHECK(read(probe.probe).recorded == 100);
  CHECK(in_the_middle == 0);
  CHECK(handled == 100);
  CHECK(rip - reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_add")) < 16);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  CHECK(sigismember(&mask, SIGUSR1) == 0);
  CHECK(sigismember(&mask, SIGHUP) == 0);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST_CASE("a consumer's hits at 10 kHz signals: each exactly once") {
  static std::atomic<long> runs, signals;
  runs = signals = 0;
  struct sigaction act {}, old{};
  act.sa_handler = [](int) { ++signals; };
  sigaction(SIGALRM, &act, &old);
  const Scoped probe(add("libfx_target:target_twice; libfx_target:target_twice+0; insn:libfx_target:target_add",
                         [](const ubp_context*, void*) { ++runs; }));
  const auto before = read(probe.probe);
  timer_t timer;
  struct sigevent event {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  const itimerspec every{{0, 100000}, {0, 100000}};
  timer_settime(timer, 0, &every, nullptr);
  long calls = 0, wrong = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  while (std::chrono::steady_clock::now() < end) {
    ++calls;
    wrong += target_twice(calls) != 2 * calls;
  }
  timer_delete(timer);
  CHECK(wrong == 0);
  CHECK(signals > 100);
  const auto after = read(probe.probe);
  CHECK(static_cast<std::uint64_t>(runs.load()) == after.recorded);
  CHECK((after.recorded - before.recorded) % static_cast<std::uint64_t>(calls) == 0);
  CHECK(after.recorded > static_cast<std::uint64_t>(calls));
  sigaction(SIGALRM, &old, nullptr);
}

TEST_CASE("a call from a signal handler works, or is refused when it interrupted another call") {
  static volatile sig_atomic_t ok, busy, other;
  ok = 0;
  busy = 0;
  other = 0;
  struct sigaction act {}, old{};
  act.sa_handler = [](int) {
    ubp_probe* probe = nullptr;
    const ubp_status status = ubp_register("libfx_target:target_quiet", nullptr, &probe, nullptr);
    if (status == UBP_OK && ubp_unregister(probe) == UBP_OK) ok = ok + 1;
    else if (status == UBP_E_BUSY) busy = busy + 1;
    else other = other + 1;
  };
  sigaction(SIGALRM, &act, &old);
  timer_t timer;
  struct sigevent event {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGALRM;
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  const itimerspec every{{0, 300000}, {0, 300000}};
  timer_settime(timer, 0, &every, nullptr);
  for (int i = 0; i < 3000; ++i) {
    ubp_probe* probe = nullptr;
    CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, nullptr) == UBP_OK);
    CHECK(ubp_unregister(probe) == UBP_OK);
  }
  timer_delete(timer);
  sigaction(SIGALRM, &old, nullptr);
  CAPTURE(busy);
  CAPTURE(other);
  CHECK(ok > 0);
  CHECK(other == 0);
}

TEST_CASE("transactions: all or nothing, one synchronisation") {
  const auto syncs = [] {
    auto stats = sized<ubp_stats>();
    ubp_read(&stats);
    return stats.synchronisations;
  };
  const std::uint64_t before = syncs();
  CHECK(ubp_transaction_commit() == UBP_E_TRANSACTION);
  CHECK(ubp_transaction_abort() == UBP_E_TRANSACTION);
  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_transaction_begin() == UBP_E_TRANSACTION);
  ubp_probe *a = nullptr, *b = nullptr, *bad = nullptr;
  CHECK(ubp_register("libfx_target:target_add", nullptr, &a, nullptr) == UBP_OK);
  CHECK(ubp_register("libfx_target:target_eight", nullptr, &b, nullptr) == UBP_OK);
  target_add(1, 1);
  CHECK(read(a).hits == 0);
  CHECK(ubp_transaction_commit() == UBP_OK);
  CHECK(syncs() <= before + 1);
  target_add(1, 1);
  CHECK(read(a).hits == 1);

  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_unregister(a) == UBP_OK);
  CHECK(ubp_register("libfx_target:no_such_function", nullptr, &bad, nullptr) == UBP_E_NOT_FOUND);
  CHECK(ubp_disable(b) == UBP_E_TRANSACTION);
  CHECK(ubp_transaction_commit() == UBP_E_TRANSACTION);
  target_add(1, 1);
  CHECK(read(a).hits == 2);  // nothing of it was done
  CHECK(read(b).enabled == 1);

  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_register("libfx_target:target_quiet", nullptr, &bad, nullptr) == UBP_OK);
  CHECK(ubp_disable(b) == UBP_OK);
  CHECK(ubp_transaction_abort() == UBP_OK);
  CHECK(read(b).enabled == 1);
  auto stats = sized<ubp_probe_stats>();
  CHECK(ubp_probe_read(bad, &stats) == UBP_E_STALE);

  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_unregister(a) == UBP_OK);
  CHECK(ubp_unregister(b) == UBP_OK);
  CHECK(ubp_transaction_commit() == UBP_OK);
  CHECK(ubp_probe_read(a, &stats) == UBP_E_STALE);
}

TEST_CASE("misuse returns its error") {
  auto stats = sized<ubp_probe_stats>();
  ubp_probe* probe = nullptr;
  CHECK(ubp_register(nullptr, nullptr, &probe, nullptr) == UBP_E_INVALID);
  CHECK(ubp_register("", nullptr, &probe, nullptr) == UBP_E_SPEC);
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_register("libc:malloc; libc:[", nullptr, &probe, &refusal) == UBP_E_SPEC);
  CHECK(refusal.line == 1);
  CHECK(refusal.column > 13);
  CHECK(ubp_register("libfx_target:target_ad", nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(std::string(refusal.hint).find("target_add") != std::string::npos);
  CHECK(ubp_register_symbol("nolib", "f", 0, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(ubp_register_symbol("libfx_target", "", 0, nullptr, &probe, &refusal) == UBP_E_INVALID);
  CHECK(ubp_register_symbol("libfx_target", "target_add", 1, nullptr, &probe, &refusal) == UBP_E_REFUSED);
  CHECK(refusal.address == reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_add")) + 1);
  CHECK(std::string(refusal.symbol) == "target_add+0x1");
  CHECK(std::string(refusal.message).find("mid-instruction") != std::string::npos);
  CHECK(ubp_register_symbol("libfx_target", "target_add", 1000, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(ubp_register_address(nullptr, nullptr, &probe, nullptr) == UBP_E_INVALID);
  CHECK(ubp_register_address(&stats, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
#ifndef __SANITIZE_ADDRESS__  // there the runtime is a part of this program, as any other
  CHECK(ubp_register_address(reinterpret_cast<const void*>(&ubp_init), nullptr, &probe, &refusal) == UBP_E_REFUSED);
  CHECK(std::string(refusal.message).starts_with("runtime:"));
#endif
  auto options = sized<ubp_options>();
  options.flags = 1u << 20;
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_INVALID);
  options.flags = UBP_PROBE_MODIFY;  // without a consumer
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_INVALID);
  options.struct_size = 4;
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_STRUCT_SIZE);
  refusal.struct_size = 8;
  CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, &refusal) == UBP_E_STRUCT_SIZE);
  CHECK(ubp_unregister(nullptr) == UBP_E_STALE);
  CHECK(ubp_enable(reinterpret_cast<ubp_probe*>(&stats)) == UBP_E_STALE);
  probe = add("libfx_target:target_add");
  CHECK(ubp_probe_read(probe, nullptr) == UBP_E_INVALID);
  stats.struct_size = 1;
  CHECK(ubp_probe_read(probe, &stats) == UBP_E_STRUCT_SIZE);
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(ubp_unregister(probe) == UBP_E_STALE);
  CHECK(ubp_disable(probe) == UBP_E_STALE);
  for (int status = 0; status >= -15; --status) {
    CHECK(std::string(ubp_status_string(static_cast<ubp_status>(status))) != "unknown status");
  }
  CHECK(std::string(ubp_status_string(static_cast<ubp_status>(-16))) == "unknown status");
  CHECK(target_add(2, 2) == 4);
}

TEST_CASE("what a registration does not get is listed; a start disabled is one") {
  const Scoped probe(add("libfx_target:target_add; libfx_target:nowhere", nullptr, nullptr, UBP_PROBE_IGNORE_MISSING | UBP_PROBE_DISABLED));
  CHECK(read(probe.probe).enabled == 0);
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_probe_refusal(probe.probe, 0, &refusal) == UBP_OK);
  CHECK(refusal.status == UBP_E_NOT_FOUND);
  CHECK(refusal.column == 39);
  CHECK(ubp_probe_refusal(probe.probe, 1, &refusal) == UBP_E_NOT_FOUND);
  target_add(1, 1);
  CHECK(read(probe.probe).hits == 0);
  CHECK(ubp_enable(probe.probe) == UBP_OK);
  target_add(1, 1);
  CHECK(read(probe.probe).hits == 1);
}

TEST_CASE("a forked child counts from zero and may go on; a vfork child may not") {
  const Scoped probe(add("libfx_target:target_add"));
  for (int i = 0; i < 7; ++i) target_add(i, 1);
  const pid_t child = fork();
  if (child == 0) {
    int bad = 0;
    auto stats = sized<ubp_probe_stats>();
    bad |= ubp_probe_read(probe.probe, &stats) != UBP_OK || stats.hits != 0 ? 1 : 0;
    target_add(1, 1);
    bad |= ubp_probe_read(probe.probe, &stats) != UBP_OK || stats.hits != 1 ? 2 : 0;
    ubp_probe* more = nullptr;
    bad |= ubp_register("libfx_target:target_eight", nullptr, &more, nullptr) != UBP_OK ? 4 : 0;
    target_eight(1, 1, 1, 1, 1, 1, 1, 1);
    bad |= ubp_probe_read(more, &stats) != UBP_OK || stats.hits != 1 ? 8 : 0;
    bad |= ubp_shutdown() != UBP_OK ? 16 : 0;
    _exit(bad);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(read(probe.probe).hits == 7);
  target_add(1, 1);
  CHECK(read(probe.probe).hits == 8);
  static volatile int in_vfork;
  in_vfork = 0;
  static ubp_probe* own;
  own = probe.probe;
  const pid_t borrower = vfork();
  if (borrower == 0) {
    in_vfork = ubp_disable(own);
    _exit(0);
  }
  waitpid(borrower, &status, 0);
  CHECK(in_vfork == UBP_E_WRONG_PROCESS);
  CHECK(read(probe.probe).enabled == 1);
}

TEST_CASE("exact from many threads, by counter and by consumer") {
  static std::atomic<long> runs;
  runs = 0;
  const Scoped counted(add("libfx_target:target_add"));
  const Scoped consumed(add("libfx_target:target_add", [](const ubp_context*, void*) { runs.fetch_add(1); }));
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([] {
      for (long i = 0; i < 5000; ++i) {
        if (target_add(i, 3) != i + 3) runs = -1000000;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(runs == 40000);
  CHECK(read(counted.probe).hits == 40000);
  CHECK(read(consumed.probe).recorded == 40000);
}

TEST_CASE("the policy asked for is the one at work") {
  const Scoped probe(add("insn:libfx_target:target_*"));
  for (int i = 0; i < 50; ++i) target_eight(1, 2, 3, 4, 5, 6, 7, i), target_twice(i), target_quiet(i);  // more instructions than slots
  auto stats = sized<ubp_stats>();
  REQUIRE(ubp_read(&stats) == UBP_OK);
  const std::uint32_t policy = configuration().policy;
  CHECK(stats.refills > 0);
  CHECK((stats.evictions > 0) == (policy != UBP_POLICY_PROBEPOINT));  // which writes every slot once
  if (policy == UBP_POLICY_STEAL) CHECK(stats.area_bytes < 8192);     // one pool of four slots, and permanent ones
}

TEST_CASE("shutdown puts the text back byte for byte; nothing works after it; init starts again") {
  const void* const add_text = dlsym(RTLD_DEFAULT, "target_add");
  const void* const libc_text = dlsym(dlopen("libc.so.6", RTLD_LAZY), "malloc");
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(ubp_is_active() == 0);
  const auto add_before = text_of(add_text), malloc_before = text_of(libc_text);
  ubp_probe* probe = nullptr;
  CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, nullptr) == UBP_E_NOT_ACTIVE);
  CHECK(ubp_unregister(g_early) == UBP_E_NOT_ACTIVE);
  auto stats = sized<ubp_stats>();
  CHECK(ubp_read(&stats) == UBP_E_NOT_ACTIVE);
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(ubp_init(nullptr) == UBP_OK);
  CHECK(ubp_unregister(g_early) == UBP_E_STALE);
  probe = add("libfx_target:target_add; libc:malloc");
  CHECK(text_of(add_text) != add_before);
  CHECK(text_of(add_text)[0] == 0xcc);
  CHECK(text_of(libc_text)[0] == 0xcc);
  target_add(1, 1);
  CHECK(read(probe).hits >= 1);
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(text_of(add_text) == add_before);
  CHECK(text_of(libc_text) == malloc_before);
  CHECK(target_add(1, 1) == 2);
  CHECK(ubp_init(nullptr) == UBP_OK);
}
