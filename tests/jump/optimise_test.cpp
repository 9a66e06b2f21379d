// Jumps that come and go while threads run through them, across a cache line, by every entry. The runtime is linked
// into this program; what is probed lies in libfx_optimise.so.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "runtime/include/ubp.h"

extern "C" long wide(long x);  // libfx_optimise.so
extern "C" int narrow(int x);
extern "C" int narrow_copy(int x);
extern "C" unsigned long backwards(long x, long y);
extern "C" int enter(const void* where, int x);

namespace {

ubp_probe* add(const char* spec, std::uint32_t flags = 0, ubp_consumer consumer = nullptr, void* data = nullptr) {
  ubp_config config{};
  config.struct_size = sizeof config;
  config.optimize = UBP_OPTIMIZE_ALWAYS;
  REQUIRE(ubp_init(&config) == UBP_OK);
  ubp_options options{};
  options.struct_size = sizeof options;
  options.flags = flags;
  options.consumer = consumer;
  options.data = data;
  ubp_probe* probe = nullptr;
  REQUIRE(ubp_register(spec, &options, &probe, nullptr) == UBP_OK);
  return probe;
}

std::uint64_t hits(ubp_probe* probe) {
  ubp_probe_stats stats{};
  stats.struct_size = sizeof stats;
  REQUIRE(ubp_probe_read(probe, &stats) == UBP_OK);
  return stats.hits;
}

ubp_stats stats() {
  ubp_stats all{};
  all.struct_size = sizeof all;
  REQUIRE(ubp_read(&all) == UBP_OK);
  return all;
}

const char* text_of(int (*function)(int)) { return reinterpret_cast<const char*>(function); }

// Every way in; returns how many results were wrong.
long pass(long i) {
  const int x = static_cast<int>(i & 0xffff);
  return (narrow(x) != x + 7) + (enter(text_of(narrow) + 2, x) != x + 7) + (enter(text_of(narrow) + 4, x) != x + 7) +
         (wide(i) != 7 * i + 3);
}

}  // namespace

TEST_CASE("optimise_toggle_crossline: jumps in and out under two runners that use every entry") {
  // 10^6 toggles with UBP_TEST_LONG, 10,000 otherwise.
  const long toggles = std::getenv("UBP_TEST_LONG") != nullptr ? 1000000 : 10000;
  REQUIRE((reinterpret_cast<std::uintptr_t>(&narrow) & 63) > 59);
  REQUIRE((reinterpret_cast<std::uintptr_t>(&wide) & 63) > 59);
  ubp_probe* const probes = add("libfx_optimise:narrow; libfx_optimise:wide");
  REQUIRE(stats().optimised_probepoints == 2);
  std::atomic<bool> stop{false};
  std::atomic<long> wrong{0}, passes{0};
  std::vector<std::thread> runners;
  for (int runner = 0; runner < 2; ++runner) {
    runners.emplace_back([&] {
      long own = 0, bad = 0;
      for (; !stop.load(std::memory_order_relaxed); ++own) bad += pass(own);
      wrong += bad;
      passes += own;
    });
  }
  for (long i = 0; i < toggles; ++i) {
    if (ubp_disable(probes) != UBP_OK || ubp_enable(probes) != UBP_OK) {
      ++wrong;
      break;
    }
  }
  stop = true;
  for (std::thread& runner : runners) runner.join();
  CHECK(wrong == 0);
  CHECK(hits(probes) > 0);
  CHECK(hits(probes) <= 2 * static_cast<std::uint64_t>(passes.load()));
  CHECK(stats().optimised_hits > 0);
  CHECK(stats().optimised_probepoints == 2);
  const std::uint64_t before = hits(probes);  // the jumps are in now: exact
  for (long i = 0; i < 1000; ++i) CHECK(pass(i) == 0);
  CHECK(hits(probes) == before + 2000);
  CHECK(ubp_unregister(probes) == UBP_OK);
  CHECK(stats().optimised_probepoints == 0);
  CHECK(text_of(narrow)[0] == text_of(narrow_copy)[0]);
  CHECK(std::memcmp(text_of(narrow), text_of(narrow_copy), 8) == 0);
}

TEST_CASE("control: a jump written by two plain stores with a delay between them") {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    for (const int crash : {SIGSEGV, SIGILL, SIGBUS, SIGFPE, SIGTRAP, SIGALRM})
      signal(crash, SIG_DFL);  // doctest tells of them
    alarm(20);                 // another signal than those of a crash, should it come to that
    auto* const text = const_cast<char*>(text_of(narrow));
    auto* const page = reinterpret_cast<char*>(reinterpret_cast<std::uintptr_t>(text) & ~std::uintptr_t{4095});
    if (mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) _exit(2);
    char before[5], jump[5] = {static_cast<char>(0xe9)};
    std::memcpy(before, text, 5);
    const auto distance = static_cast<int>(text_of(narrow_copy) - (text + 5));
    std::memcpy(jump + 1, &distance, 4);
    std::thread runner([] {
      for (long i = 0;; ++i) {
        if (pass(i) != 0) _exit(3);
      }
    });
    const auto write = [&](const char* bytes) {
      std::memcpy(text, bytes, 2);
      for (int i = 0; i < 2000; ++i) asm volatile("pause");
      std::memcpy(text + 2, bytes + 2, 3);
    };
    for (int i = 0; i < 100000; ++i) write(jump), write(before);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  const bool is_crash = WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM;
  CHECK((is_crash || (WIFEXITED(status) && WEXITSTATUS(status) == 3)));  // or it computed nonsense
}

TEST_CASE("optimise_inner_entry: calls into the window, while the jump is in") {
  ubp_probe* const probe = add("libfx_optimise:narrow");
  REQUIRE(stats().optimised_probepoints == 1);
  for (int i = 0; i < 1000; ++i) {
    CHECK(enter(text_of(narrow) + 2, i) == i + 7);
    CHECK(enter(text_of(narrow) + 4, i) == i + 7);
  }
  CHECK(hits(probe) == 0);
  for (int i = 0; i < 1000; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(probe) == 1000);
  CHECK(ubp_unregister(probe) == UBP_OK);
}

TEST_CASE("overlapping_windows: probes that come and go inside another's window") {
  ubp_probe* const first = add("libfx_optimise:narrow");
  REQUIRE(stats().optimised_probepoints == 1);
  ubp_probe* const second = add("libfx_optimise:narrow+2");
  ubp_probe* const third = add("libfx_optimise:narrow+4");
  for (int i = 0; i < 100; ++i) {
    CHECK(narrow(i) == i + 7);
    CHECK(enter(text_of(narrow) + 2, i) == i + 7);
    CHECK(enter(text_of(narrow) + 4, i) == i + 7);
  }
  CHECK(hits(first) == 100);
  CHECK(hits(second) == 200);
  CHECK(hits(third) == 300);
  CHECK(stats().optimised_probepoints == 3);  // one jump counts them all
  CHECK(ubp_disable(second) == UBP_OK);
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(first) == 200);
  CHECK(hits(second) == 200);
  CHECK(hits(third) == 400);
  CHECK(ubp_unregister(first) == UBP_OK);
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(third) == 500);
  CHECK(ubp_enable(second) == UBP_OK);
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(second) == 300);
  CHECK(hits(third) == 600);
  CHECK(ubp_unregister(second) == UBP_OK);
  CHECK(ubp_unregister(third) == UBP_OK);
  CHECK(std::memcmp(text_of(narrow), text_of(narrow_copy), 8) == 0);
}

TEST_CASE(
    "overlapping_windows: two probes, and an entry behind both; the later address first; one that waits disabled") {
  ubp_probe* second = add("libfx_optimise:narrow+2");
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  ubp_probe* first = add("libfx_optimise:narrow");
  for (int i = 0; i < 100; ++i) {
    CHECK(narrow(i) == i + 7);
    CHECK(enter(text_of(narrow) + 2, i) == i + 7);
    CHECK(enter(text_of(narrow) + 4, i) == i + 7);
  }
  CHECK(hits(first) == 100);
  CHECK(hits(second) == 300);
  CHECK(ubp_unregister(first) == UBP_OK);
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(second) == 400);
  CHECK(ubp_unregister(second) == UBP_OK);
  CHECK(std::memcmp(text_of(narrow), text_of(narrow_copy), 8) == 0);

  second = add("libfx_optimise:narrow+4", UBP_PROBE_DISABLED);
  first = add("libfx_optimise:narrow");
  for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
  CHECK(hits(second) == 0);
  CHECK(ubp_enable(second) == UBP_OK);
  CHECK(narrow(1) == 8);
  CHECK(hits(second) == 1);
  CHECK(hits(first) == 101);
  CHECK(ubp_unregister(first) == UBP_OK);
  CHECK(ubp_unregister(second) == UBP_OK);
  CHECK(std::memcmp(text_of(narrow), text_of(narrow_copy), 8) == 0);
}

TEST_CASE("detours of consumers: every kind sees the same, and leaves all as it was") {
  struct Seen {
    std::uint64_t argument = 0, sum = 0;
    long runs = 0;
  };
  const auto consumer = [](const ubp_context* hit, void* data) {
    Seen& seen = *static_cast<Seen*>(data);
    ++seen.runs;
    seen.argument = ubp_context_argument(hit, 0);
    if (ubp_context_register(hit, UBP_RSP) != 0) seen.sum += ubp_context_register(hit, UBP_RDI);
  };
  const std::uint32_t kinds[] = {0, UBP_PROBE_SSE_ONLY, UBP_PROBE_NO_FP, UBP_PROBE_NO_FP | UBP_PROBE_MODIFY,
                                 UBP_PROBE_NO_FP | UBP_PROBE_NO_REGISTERS};
  for (const std::uint32_t kind : kinds) {
    CAPTURE(kind);
    Seen seen;
    ubp_probe* const probe = add("libfx_optimise:narrow", kind, consumer, &seen);
    CHECK(stats().optimised_probepoints == 1);
    const std::uint64_t before = stats().optimised_hits;
    double vector = 1.5;
    asm volatile("" : "+x"(vector));
    for (int i = 0; i < 1000; ++i) {
      CHECK(narrow(i) == i + 7);
      vector += 1;
    }
    CHECK(vector == 1001.5);
    CHECK(seen.runs == 1000);
    CHECK(hits(probe) == 1000);
    CHECK(stats().optimised_hits >= before + 999);  // a thread's first hit traps
    const bool reads = (kind & UBP_PROBE_NO_REGISTERS) == 0;
    CHECK(seen.argument == (reads ? 999 : 0));
    CHECK(seen.sum == (reads ? 499500 : 0));
    CHECK(ubp_unregister(probe) == UBP_OK);
  }
}

TEST_CASE(
    "a consumer in the middle of a function: by a jump, and the direction flag is clear in it, and set behind it") {
  struct Seen {
    std::uint64_t own = 0, program = 0;
    long runs = 0, argument = 0;
    double root = 0;
  };
  const auto consumer = [](const ubp_context* hit, void* data) {
    Seen& seen = *static_cast<Seen*>(data);
    asm volatile("pushfq; popq %0" : "=r"(seen.own)::"memory");
    seen.program = ubp_context_flags(hit);
    seen.argument = static_cast<long>(ubp_context_argument(hit, 0));
    ++seen.runs;
  };
  const auto floating = [](const ubp_context* hit, void* data) {
    Seen& seen = *static_cast<Seen*>(data);
    ++seen.runs;
    long double x = static_cast<long double>(ubp_context_argument(hit, 0));  // x87
    asm volatile("" : "+t"(x));
    seen.root = static_cast<double>(x / 2);
  };
  constexpr std::uint64_t kDirection = 0x400;
  for (const std::uint32_t kind : std::initializer_list<std::uint32_t>{
           UBP_PROBE_NO_FP, UBP_PROBE_NO_FP | UBP_PROBE_MODIFY, UBP_PROBE_SSE_ONLY, 0}) {
    CAPTURE(kind);
    Seen seen;
    ubp_probe* const probe =
        add("libfx_optimise:backwards+1", kind, kind == 0 ? ubp_consumer(floating) : ubp_consumer(consumer), &seen);
    CHECK(stats().optimised_probepoints == 1);
    const std::uint64_t before = stats().optimised_hits;
    for (long i = 0; i < 1000; ++i) CHECK((backwards(i, 3) & kDirection) != 0);
    CHECK(stats().optimised_hits >= before + 999);
    CHECK(seen.runs == 1000);
    CHECK(hits(probe) == 1000);
    CHECK((seen.own & kDirection) == 0);
    CHECK((kind == 0 || (seen.program & kDirection) != 0));
    CHECK((kind == 0 ? seen.root == 499.5 : seen.argument == 999));
    CHECK(ubp_unregister(probe) == UBP_OK);
  }
}

TEST_CASE("a consumer at a jump's probepoint, and inside its window: every hit is consumed") {
  static std::atomic<long> runs;
  runs = 0;
  ubp_probe* const counted = add("libfx_optimise:narrow");
  for (const char* spec : {"libfx_optimise:narrow", "libfx_optimise:narrow+2"}) {
    CAPTURE(spec);
    const long runs_before = runs;
    const std::uint64_t before = hits(counted);
    ubp_probe* const consumed = add(spec, 0, [](const ubp_context*, void*) { ++runs; });
    for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
    CHECK(runs == runs_before + 100);
    CHECK(hits(consumed) == 100);
    CHECK(hits(counted) == before + 100);
    CHECK(ubp_unregister(consumed) == UBP_OK);
    for (int i = 0; i < 100; ++i) CHECK(narrow(i) == i + 7);
    CHECK(runs == runs_before + 100);
    CHECK(hits(counted) == before + 200);
  }
  CHECK(ubp_unregister(counted) == UBP_OK);
}
