// ubp_drain(): every hit is recorded once, in order, or counted as dropped.
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "fixture.h"

namespace {

constexpr long kRing = 65536;  // ubp_drain()

struct Drained {
  std::vector<ubp_record> records;
  long of(const ubp_probe* probe) const {
    long count = 0;
    for (const ubp_record& record : records) count += record.probe == probe ? 1 : 0;
    return count;
  }
};

Drained drain() {
  Drained drained;
  const auto keep = [](const ubp_record* record, void* data) {
    static_cast<Drained*>(data)->records.push_back(*record);
  };
  CHECK(ubp_drain(keep, &drained) == UBP_OK);
  return drained;
}

std::uint64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

TEST_CASE("records: one for each hit, with its probe, address, thread and time") {
  const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  constexpr std::uint64_t kSlack = 1'000'000;
  const std::uint64_t before = now_ns();
  for (long i = 0; i < 1000; ++i) CHECK(target_add(i, 1) == i + 1);
  const std::uint64_t after = now_ns();
  CHECK(read(probe.probe).recorded == 1000);
  const Drained drained = drain();
  REQUIRE(drained.records.size() == 1000);
  std::uint64_t last = before - kSlack;
  bool is_sorted = true;
  for (const ubp_record& record : drained.records) {
    is_sorted &= record.time_ns >= last;
    last = record.time_ns;
    CHECK(record.probe == probe.probe);
    CHECK(record.address == reinterpret_cast<std::uint64_t>(&target_add));
    CHECK(record.thread_id == static_cast<std::uint32_t>(gettid()));
  }
  CHECK(is_sorted);
  CHECK(last <= after + kSlack);
  CHECK(read(probe.probe).recorded == 1000);
  CHECK(read(probe.probe).hits == 1000);
  CHECK(drain().records.empty());
}

TEST_CASE("records: a full ring drops and counts, until somebody drains") {
  const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  for (int round = 1; round <= 2; ++round) {
    for (long i = 0; i < kRing + 1000; ++i) target_add(i, 1);
    const ubp_probe_stats stats = read(probe.probe);
    CHECK(stats.hits == static_cast<std::uint64_t>(round) * (kRing + 1000));
    CHECK(stats.recorded == static_cast<std::uint64_t>(round) * kRing);
    CHECK(stats.dropped == static_cast<std::uint64_t>(round) * 1000);
    CHECK(drain().records.size() == kRing);
  }
}

TEST_CASE("records: threads that record while another drains") {
  constexpr int kThreads = 3;
  constexpr long kCalls = 100000;
  const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  std::atomic<int> started{0}, running{kThreads};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (++started; started != kThreads;)
        std::this_thread::yield();  // one that ended might leave its full ring to another
      for (long i = 0; i < kCalls; ++i) target_add(i, 1);
      --running;
    });
  }
  std::map<std::uint32_t, std::uint64_t> last;
  std::uint64_t drained = 0;
  for (bool is_last = false; !is_last;) {
    is_last = running == 0;
    for (const ubp_record& record : drain().records) {
      ++drained;
      CHECK(record.probe == probe.probe);
      last[record.thread_id] = record.time_ns;
    }
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(last.size() == kThreads);
  const ubp_probe_stats stats = read(probe.probe);
  CHECK(stats.hits == kThreads * kCalls);
  CHECK(stats.recorded == drained);
}

TEST_CASE("records: a signal every 100 us, whose handler records too") {
  static std::atomic<long> handled;
  handled = 0;
  const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  long calls = 0, drained = 0, dropped = 0;
  {
    const Alarm alarm([](int) { target_add(++handled, 1); }, 100'000);
    const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(2);  // by traps, on a slow machine
    for (int round = 0; round < 100 && (round < 3 || std::chrono::steady_clock::now() < enough); ++round) {
      for (long i = 0; i < kRing / 2; ++i) target_add(i, 1);
      calls += kRing / 2;
      drained += drain().of(probe.probe);
    }
  }
  drained += drain().of(probe.probe);
  const ubp_probe_stats stats = read(probe.probe);
  dropped = static_cast<long>(stats.dropped);
  CHECK(handled > 0);
  CHECK(static_cast<long>(stats.hits) == calls + handled);
  CHECK(drained + dropped == calls + handled);
}

TEST_CASE("records: with consumers and other recorders at the same address") {
  static std::atomic<long> runs;
  runs = 0;
  const Scoped first(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  for (long i = 0; i < 10; ++i) target_add(i, 1);
  {
    const Scoped consumer(add("libfx_target:target_add", [](const ubp_context*, void*) { ++runs; }));
    const Scoped second(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
    for (long i = 0; i < 10; ++i) target_add(i, 1);
    CHECK(runs == 10);
    CHECK(read(consumer.probe).hits == 10);
    const Drained drained = drain();
    CHECK(drained.of(first.probe) == 20);
    CHECK(drained.of(second.probe) == 10);
  }
  for (long i = 0; i < 10; ++i) target_add(i, 1);
  CHECK(runs == 10);
  CHECK(drain().of(first.probe) == 10);
  CHECK(read(first.probe).hits == 30);
}

TEST_CASE("records: those of a probe that is unregistered go to no other, and stay counted") {
  auto all = sized<ubp_stats>();
  REQUIRE(ubp_read(&all) == UBP_OK);
  const std::uint64_t before = all.recorded;
  {
    const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
    for (long i = 0; i < 7; ++i) target_add(i, 1);
  }
  const Scoped other(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  for (long i = 0; i < 5; ++i) target_add(i, 1);
  const Drained drained = drain();
  CHECK(drained.records.size() == 5);
  CHECK(drained.of(other.probe) == 5);
  REQUIRE(ubp_read(&all) == UBP_OK);
  CHECK(all.recorded == before + 12);
  CHECK(all.hits == all.recorded + all.filtered + all.missed + all.dropped);
}

TEST_CASE("records: a consumer's own hits are missed; a disabled probe's are none; a child's are its own") {
  const Scoped probe(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  {
    const Scoped caller(add("libfx_target:target_twice", [](const ubp_context*, void*) { target_add(1, 2); }));
    target_twice(1);
  }
  const ubp_probe_stats stats = read(probe.probe);
  CHECK(stats.missed == 1);
  CHECK(static_cast<long>(stats.recorded) == drain().of(probe.probe));
  CHECK(ubp_disable(probe.probe) == UBP_OK);
  target_add(1, 2);
  CHECK(drain().records.empty());
  CHECK(ubp_enable(probe.probe) == UBP_OK);
  target_add(1, 2);
  const pid_t child = fork();
  if (child == 0) {
    for (long i = 0; i < 3; ++i) target_add(i, 1);
    const Drained drained = drain();
    const bool is_right = drained.records.size() == 3 &&
                          drained.records[0].thread_id == static_cast<std::uint32_t>(getpid()) &&
                          read(probe.probe).hits == 3;
    _exit(is_right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(drain().of(probe.probe) == 1);
}

TEST_CASE("records: none by a probe that is disabled or gone while another one counts at the same address") {
  const Scoped counting(add("libfx_target:target_add"));
  ubp_probe* const recording = add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD);
  for (int i = 0; i < 10; ++i) target_add(i, 1);
  CHECK(ubp_disable(recording) == UBP_OK);
  for (int i = 0; i < 100; ++i) target_add(i, 1);
  CHECK(read(recording).hits == 10);
  CHECK(drain().records.size() == 10);
  CHECK(ubp_unregister(recording) == UBP_OK);
  for (long i = 0; i < kRing + 5000; ++i) target_add(i, 1);
  const Scoped next(add("libfx_target:target_quiet", nullptr, nullptr, UBP_PROBE_RECORD));  // has its counter
  for (int i = 0; i < 100; ++i) target_add(i, 1);
  CHECK(read(next.probe).hits == 0);
  CHECK(drain().records.empty());
  CHECK(read(counting.probe).hits == 10 + 100 + kRing + 5000 + 100);
}

TEST_CASE("records: a child by a system call of its own, whose first act is a hit, counts from zero") {
  const Scoped recording(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  const Scoped counting(add("libfx_target:target_add"));
  for (int i = 0; i < 10; ++i) target_add(i, 1);
  CHECK(drain().records.size() == 10);
  const auto child = static_cast<pid_t>(syscall(SYS_fork));
  if (child == 0) {
    target_add(1, 2);
    const bool is_right =
        read(recording.probe).hits == 1 && read(counting.probe).hits == 1 && drain().records.size() == 1;
    _exit(is_right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("records: the address space that they take leaves detours their place") {
  const Scoped recording(add("libfx_target:target_add", nullptr, nullptr, UBP_PROBE_RECORD));
  const Scoped counting(add("libc:a64l"));
  auto all = sized<ubp_stats>();
  REQUIRE(ubp_read(&all) == UBP_OK);
  const bool has_jumps = configuration().optimize != UBP_OPTIMIZE_NEVER;
  CHECK(all.optimised_probepoints >= (has_jumps ? 2 : 0));
}

TEST_CASE("records: what is refused") {
  auto options = sized<ubp_options>();
  options.flags = UBP_PROBE_RECORD;
  options.consumer = [](const ubp_context*, void*) {};
  CHECK(ubp_register("libfx_target:target_add", &options, nullptr, nullptr) == UBP_E_INVALID);
  CHECK(ubp_drain(nullptr, nullptr) == UBP_E_INVALID);
  static ubp_status inside;
  inside = UBP_OK;
  const Scoped probe(add("libfx_target:target_add", [](const ubp_context*, void*) {
    inside = ubp_drain([](const ubp_record*, void*) {}, nullptr);
  }));
  target_add(1, 2);
  CHECK(inside == UBP_E_IN_CONSUMER);
}
