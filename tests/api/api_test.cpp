// The C interface, in a program that links it: what probes count, alone and together.
#include "fixture.h"

#include <dlfcn.h>
#include <fenv.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

ubp_probe* g_early = nullptr;

// UBP_TEST_POLICY: the slot policy, as a number (the meson suite `policies`); UBP_TEST_OPTIMIZE: ubp_optimize, as a
// number.
ubp_config configuration() {
  ubp_config config{};
  config.struct_size = sizeof config;
  config.slots = 4;
  config.optimize = UBP_OPTIMIZE_NEVER;
  if (const char* policy = std::getenv("UBP_TEST_POLICY"))
    config.policy = static_cast<std::uint32_t>(std::atoi(policy));
  if (const char* optimize = std::getenv("UBP_TEST_OPTIMIZE"))
    config.optimize = static_cast<std::uint32_t>(std::atoi(optimize));
  return config;
}

namespace {

ubp_status g_before_main = UBP_E_INVALID;
int g_raised_before_main = -1;

// Before main, and before the C++ constructors of this program.
__attribute__((constructor(101))) void before_main() {
  g_before_main = ubp_register("fx_target:target_quiet", nullptr, &g_early, nullptr);  // not active yet
  const ubp_config config = configuration();
  if (ubp_init(&config) == UBP_OK)
    g_before_main = ubp_register("libfx_target:target_quiet", nullptr, &g_early, nullptr);
  g_raised_before_main = fetestexcept(FE_ALL_EXCEPT);
}

}  // namespace

TEST_CASE("no call changes the floating-point environment, or is disturbed by it") {
  fenv_t before;
  REQUIRE(fegetenv(&before) == 0);
  feclearexcept(FE_ALL_EXCEPT);
  fesetround(FE_UPWARD);
  feenableexcept(FE_ALL_EXCEPT);  // libubp's own divisions would end the program
  auto stats = sized<ubp_stats>();
  ubp_probe* probe = nullptr;
  ubp_status worst = ubp_init(nullptr);
  const auto call = [&](ubp_status status) { worst = worst == UBP_OK ? status : worst; };
  call(ubp_register("libc:str*; libfx_target:target_*", nullptr, &probe, nullptr));
  call(ubp_disable(probe));
  call(ubp_enable(probe));
  call(ubp_read(&stats));
  call(ubp_flush());
  call(ubp_unregister(probe));
  const int raised = fetestexcept(FE_ALL_EXCEPT), enabled = fegetexcept(), rounding = fegetround();
  fesetenv(&before);
  CHECK(g_raised_before_main == 0);
  CHECK(worst == UBP_OK);
  CHECK(raised == 0);
  CHECK(enabled == FE_ALL_EXCEPT);
  CHECK(rounding == FE_UPWARD);
}

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
  config.policy = 0;
  config.optimize = 4;
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
  // A jump goes in by steps; how many there are does not depend on how many jumps.
  CHECK(syncs() <= before + (configuration().optimize == UBP_OPTIMIZE_NEVER ? 1 : 8));
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

TEST_CASE("what a registration does not get is listed; a start disabled is one") {
  const Scoped probe(add("libfx_target:target_add; libfx_target:nowhere", nullptr, nullptr,
                         UBP_PROBE_IGNORE_MISSING | UBP_PROBE_DISABLED));
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

TEST_CASE("the policy asked for is the one at work") {
  const Scoped probe(add("insn:libfx_target:target_*"));
  for (int i = 0; i < 50; ++i)
    target_eight(1, 2, 3, 4, 5, 6, 7, i), target_twice(i), target_quiet(i);  // more instructions than slots
  auto stats = sized<ubp_stats>();
  REQUIRE(ubp_read(&stats) == UBP_OK);
  const std::uint32_t policy = configuration().policy;
  if (configuration().optimize != UBP_OPTIMIZE_NEVER) {
    CHECK(stats.optimised_hits > 0);
    CHECK(stats.optimised_probepoints > 0);
    return;
  }
  CHECK(stats.optimised_hits == 0);
  CHECK(stats.optimised_probepoints == 0);
  CHECK(stats.refills > 0);
  CHECK((stats.evictions > 0) == (policy != UBP_POLICY_PROBEPOINT));  // which writes every slot once
  if (policy == UBP_POLICY_STEAL) CHECK(stats.area_bytes < 8192);     // one pool of four slots, and permanent ones
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
