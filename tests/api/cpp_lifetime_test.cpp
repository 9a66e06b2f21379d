// ubp.hpp: when probes and their consumers go: moves, transactions, threads that hit meanwhile. The second part of the
// program, so that the header is in two.
#include <doctest/doctest.h>
#include <ubp.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "target.h"

namespace {

constexpr std::uint64_t kAlive = 0x616c697665616c69, kDead = 0xdeaddeaddeaddead;

std::atomic<long> g_alive{0};       // consumers that are not destroyed
std::atomic<long> g_calls{0};       // of any of them
std::atomic<long> g_calls_dead{0};  // of one that was

// A consumer that knows whether it is destroyed.
class Watched {
 public:
  Watched() { ++g_alive; }
  Watched(const Watched&) { ++g_alive; }
  ~Watched() {
    mark_ = kDead;
    --g_alive;
  }
  void operator()(const ubp::Hit&) const {
    ++g_calls;
    if (mark_ != kAlive) ++g_calls_dead;
  }

 private:
  volatile std::uint64_t mark_ = kAlive;
};

ubp::Probe watch(const char* spec = "libfx_target:target_add") { return ubp::Probe::create(spec, Watched()).value(); }

// Calls target_add and returns how many consumers that ran.
long calls() {
  const long before = g_calls;
  target_add(1, 1);
  return g_calls - before;
}

struct Fixture {
  Fixture() : session(ubp::Session::start().value()) { REQUIRE(g_alive == 0); }
  ~Fixture() {
    CHECK(g_calls_dead == 0);
    CHECK(session.shutdown() == UBP_OK);
  }
  ubp::Session session;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a move takes the probe along, and the target's own goes") {
  ubp::Probe a = watch();
  ubp_probe* const handle = a.handle();
  ubp::Probe b = std::move(a);
  CHECK(!a);
  CHECK(a.handle() == nullptr);
  CHECK(a.stats().status() == UBP_E_STALE);
  CHECK(a.enable() == UBP_E_STALE);
  CHECK(a.unregister() == UBP_E_STALE);
  CHECK(b);
  CHECK(b.handle() == handle);
  CHECK(calls() == 1);
  ubp::Probe c = watch();
  CHECK(calls() == 2);
  c = std::move(b);
  CHECK(g_alive == 1);
  CHECK(c.handle() == handle);
  CHECK(calls() == 1);
  ubp::Probe& same = c;
  c = std::move(same);
  CHECK(c.handle() == handle);
  CHECK(c.stats()->hits == 3);
  std::vector<ubp::Probe> many;
  for (int i = 0; i < 20; ++i) many.push_back(watch());
  CHECK(calls() == 21);
  many.erase(many.begin(), many.begin() + 15);
  CHECK(g_alive == 6);
  CHECK(calls() == 6);
  a = watch();  // one that was moved from may have a probe again
  CHECK(calls() == 7);
  many.clear();
  CHECK(c.unregister() == UBP_OK);
  CHECK(!c);
  CHECK(c.unregister() == UBP_E_STALE);
  CHECK(a.unregister() == UBP_OK);
  CHECK(g_alive == 0);
  CHECK(calls() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a registration that fails destroys its consumer") {
  CHECK(ubp::Probe::create("libfx_target:nowhere", Watched()).status() == UBP_E_NOT_FOUND);
  CHECK(ubp::Probe::create("libfx_target:target_add", Watched(), 1u << 20).status() == UBP_E_INVALID);
  CHECK(g_alive == 0);
}

TEST_CASE_FIXTURE(Fixture, "a detached probe stays until the shutdown") {
  ubp_probe* const handle = watch().detach();
  CHECK(handle != nullptr);
  CHECK(g_alive == 1);
  CHECK(calls() == 1);
  CHECK(ubp_unregister(handle) == UBP_OK);
  CHECK(g_alive == 1);
  g_alive = 0;  // it is nobody's now
}

TEST_CASE_FIXTURE(Fixture, "a transaction commits all, with one synchronisation") {
  const std::uint64_t before = ubp::stats()->synchronisations;
  auto transaction = ubp::Transaction::begin();
  REQUIRE(transaction);
  CHECK(ubp::Transaction::begin().status() == UBP_E_TRANSACTION);
  ubp::Probe a = watch();
  ubp::Probe b = watch("libfx_target:target_eight");
  CHECK(calls() == 0);
  CHECK(transaction->commit() == UBP_OK);
  CHECK(transaction->commit() == UBP_E_TRANSACTION);
  CHECK(transaction->abort() == UBP_OK);
  CHECK(ubp::stats()->synchronisations <=
        before + 10);  // jumps go in by steps, all of them together  // the runtime's own int3s are written besides
  CHECK(calls() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a transaction that ends without commit makes nothing") {
  ubp::Probe kept = watch();
  std::optional<ubp::Probe> made;
  {
    ubp::Transaction outer = ubp::Transaction::begin().value();
    const ubp::Transaction transaction = std::move(outer);
    made = watch();
    CHECK(kept.disable() == UBP_OK);
    CHECK(outer.commit() == UBP_E_TRANSACTION);  // it was moved from
  }
  CHECK(ubp_transaction_abort() == UBP_E_TRANSACTION);  // none is open
  CHECK(calls() == 1);
  CHECK(kept.stats()->enabled == 1);
  CHECK(made->stats().status() == UBP_E_STALE);
  CHECK(g_alive == 2);
  made.reset();
  CHECK(g_alive == 1);
}

TEST_CASE_FIXTURE(Fixture, "a transaction with an error in it makes nothing, and says so") {
  std::optional<ubp::Probe> old = watch();
  {
    ubp::Transaction transaction = ubp::Transaction::begin().value();
    const ubp::Probe made = watch();
    CHECK(ubp::Probe::create("libfx_target:nowhere").status() == UBP_E_NOT_FOUND);
    CHECK(old->disable() == UBP_E_TRANSACTION);
    CHECK(old->unregister() == UBP_E_TRANSACTION);
    CHECK(old->handle() != nullptr);
    old.reset();  // cannot go yet
    CHECK(g_alive == 2);
    CHECK(calls() == 1);
    CHECK(transaction.commit() == UBP_E_TRANSACTION);
    CHECK(g_alive == 1);  // and has gone now
    CHECK(made.stats().status() == UBP_E_STALE);
    CHECK(calls() == 0);
  }
  CHECK(g_alive == 0);
}

TEST_CASE_FIXTURE(Fixture, "a probe destroyed in a transaction runs its consumer until that ends, and then goes") {
  for (const bool commits : {true, false}) {
    std::optional<ubp::Probe> first = watch(), second = watch(), third = watch();
    {
      ubp::Transaction transaction = ubp::Transaction::begin().value();
      first.reset();
      CHECK(second->unregister() == UBP_OK);
      CHECK(!*second);
      CHECK(g_alive == 3);
      CHECK(calls() == 3);
      if (commits) CHECK(transaction.commit() == UBP_OK);
    }
    CHECK(g_alive == 1);
    CHECK(calls() == 1);
  }
}

TEST_CASE_FIXTURE(Fixture, "transactions of the C interface, too") {
  std::optional<ubp::Probe> first = watch(), second = watch();
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  first.reset();
  CHECK(g_alive == 2);
  CHECK(calls() == 2);
  REQUIRE(ubp_transaction_commit() == UBP_OK);
  CHECK(calls() == 1);
  second.reset();  // takes the other's consumer along
  CHECK(g_alive == 0);
}

TEST_CASE_FIXTURE(Fixture, "a probe destroyed inside a consumer stays until its thread can let it go") {
  std::optional<ubp::Probe> inner = watch("libfx_target:target_add");
  const auto destroy = [&inner](const ubp::Hit&) { inner.reset(); };
  std::optional<ubp::Probe> outer = ubp::Probe::create("libfx_target:target_quiet", destroy).value();
  target_quiet(1);
  CHECK(!inner);
  CHECK(g_alive == 1);
  CHECK(calls() == 1);
  outer.reset();
  CHECK(g_alive == 0);
  CHECK(calls() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a consumer that owns probes takes them along") {
  auto owned = std::make_shared<ubp::Probe>(watch("libfx_target:target_quiet"));
  {
    const auto owner = ubp::Probe::create("libfx_target:target_twice", [owned](const ubp::Hit&) {});
    REQUIRE(owner);
    owned.reset();
    CHECK(g_alive == 1);
  }
  CHECK(g_alive == 0);
}

TEST_CASE_FIXTURE(Fixture, "the destructor waits for the consumer that runs, and destroys it after") {
  std::atomic<int> state{0};
  std::thread thread;
  {
    const auto slow = ubp::Probe::create("libfx_target:target_add", [&state, watched = Watched()](const ubp::Hit& hit) {
      state = 1;
      while (state != 2) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      watched(hit);
      state = 3;
    });
    REQUIRE(slow);
    thread = std::thread([] { target_add(1, 1); });
    while (state != 1) std::this_thread::yield();
    state = 2;
  }
  CHECK(state == 3);
  CHECK(g_alive == 0);
  thread.join();
}

TEST_CASE_FIXTURE(Fixture, "probes come and go while other threads hit them") {
  std::atomic<bool> is_over{false};
  std::atomic<long> made{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (long i = 0; !is_over; ++i) {
        wrong += target_add(i, 1) != i + 1;
        ++made;
      }
    });
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  long rounds = 0;
  for (; std::chrono::steady_clock::now() < end; ++rounds) {
    std::atomic<long> own{0};  // on the stack: a late consumer would write where it was
    std::uint64_t recorded = 0;
    {
      auto probe = ubp::Probe::create("libfx_target:target_add", [&own, watched = Watched()](const ubp::Hit& h) {
        watched(h);
        ++own;
      });
      REQUIRE(probe);
      const long before = made;
      while (made < before + 4) std::this_thread::yield();  // three may have been under way
      REQUIRE(probe->disable() == UBP_OK);
      recorded = probe->stats()->recorded;
      const ubp::Probe moved = std::move(*probe);
      CHECK(g_alive == 1);
    }
    CHECK(recorded == static_cast<std::uint64_t>(own.load()));
    CHECK(recorded > 0);
    CHECK(g_alive == 0);
  }
  const long slow = rounds;
  for (; std::chrono::steady_clock::now() < end + std::chrono::milliseconds(1500); ++rounds) static_cast<void>(watch());
  is_over = true;
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(g_alive == 0);
  CHECK(slow > 10);
  MESSAGE(rounds << " probes, " << g_calls.load() << " consumers run");
}
