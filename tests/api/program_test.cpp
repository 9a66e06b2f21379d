// Programs through the C interface: filters and blocks, begin and end, what they print, and what they refuse.
#include "fixture.h"

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

std::int64_t number(ubp_probe* probe, const char* map) {
  std::int64_t value = -1;
  REQUIRE(ubp_map_number(probe, map, &value) == UBP_OK);
  return value;
}

std::string drain(ubp_probe* probe) {
  std::string text;
  const auto append = [](const char* piece, std::size_t length, void* data) {
    CHECK(piece[length] == '\0');
    static_cast<std::string*>(data)->append(piece, length);
  };
  REQUIRE(ubp_drain_text(probe, append, &text) == UBP_OK);
  return text;
}

void call_add(long times) {
  for (long i = 0; i < times; ++i) target_add(i, 1);
}

struct Seen {
  long calls = 0;
  ubp_probe* probe = nullptr;
};
void see(const ubp_context* context, void* data) {
  auto& seen = *static_cast<Seen*>(data);
  ++seen.calls;
  seen.probe = ubp_context_probe(context);
}

// The tasks that a program runs in beside the one that changes it.
class Callers {
 public:
  explicit Callers(int threads) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        while (!is_over_.load(std::memory_order_relaxed)) call_add(100), calls_.fetch_add(100);
      });
    }
  }
  ~Callers() { join(); }
  long join() {
    is_over_ = true;
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
    return calls_;
  }

 private:
  std::atomic<bool> is_over_{false};
  std::atomic<long> calls_{0};
  std::vector<std::thread> threads_;
};

}  // namespace

TEST_CASE("a program filters and counts") {
  const Scoped probe(add("libfx_target:target_add /arg0 >= 90/ { @big = count(); @sum = sum(arg0); @last = arg0; }"));
  CHECK(number(probe.probe, "@big") == 0);
  call_add(100);
  CHECK(number(probe.probe, "@big") == 10);
  CHECK(number(probe.probe, "@sum") == 945);
  CHECK(number(probe.probe, "@last") == 99);
  const ubp_probe_stats stats = read(probe.probe);
  CHECK(stats.hits == 100);
  CHECK(stats.recorded == 10);
  CHECK(stats.filtered == 90);
  CHECK(stats.probepoints == 1);
  CHECK(stats.enabled == 1);
}

TEST_CASE("a program beside bare targets, whose consumer is theirs") {
  Seen seen;
  const Scoped probe(add(
      "libfx_target:target_quiet; libfx_target:target_add { @n++; } libfx_target:target_twice { @n++; }", &see, &seen));
  CHECK(target_twice(4) == 8);
  target_quiet(1);
  CHECK(seen.calls == 1);
  CHECK(seen.probe == probe.probe);
  CHECK(number(probe.probe, "@n") == 2);
  CHECK(read(probe.probe).hits == 3);
  CHECK(read(probe.probe).probepoints == 3);
  CHECK(ubp_disable(probe.probe) == UBP_OK);
  target_twice(4);
  target_quiet(1);
  CHECK(read(probe.probe).hits == 3);
  CHECK(read(probe.probe).enabled == 0);
  CHECK(ubp_enable(probe.probe) == UBP_OK);
  target_twice(4);
  CHECK(number(probe.probe, "@n") == 4);
  CHECK(seen.calls == 1);
}

TEST_CASE("a program's mistakes have a place, and arm nothing") {
  struct Case {
    const char *spec, *message, *hint;
    std::uint32_t line, column;
    ubp_status status;
  };
  const Case cases[] = {
      {"libfx_target:target_add { @x = ; }", "", "", 1, 32, UBP_E_SPEC},
      {"libfx_target:target_add\n  { @x = cuont(); }", "cuont", "", 2, 10, UBP_E_SPEC},
      {"libfx_target:target_add { @x = \"a\"; @x = 1; }", "", "", 1, 37, UBP_E_SPEC},
      {"libfx_target:target_add { system(\"ls\"); }", "system", "", 1, 27, UBP_E_SPEC},
      {"libfx_target:target_ad { @x = count(); }", "target_ad", "target_add", 1, 14, UBP_E_NOT_FOUND},
      {"libfx_target:target_quiet { @a = 1 } libfx_target:nothing { @x = count(); }", "nothing", "", 1, 51,
       UBP_E_NOT_FOUND},
      {"kprobe:vfs_read { @x = count(); }", "", "", 1, 1, UBP_E_SPEC},
  };
  auto before = sized<ubp_stats>();
  REQUIRE(ubp_read(&before) == UBP_OK);
  for (const Case& c : cases) {
    CAPTURE(c.spec);
    auto refusal = sized<ubp_refusal>();
    ubp_probe* probe = nullptr;
    CHECK(ubp_register(c.spec, nullptr, &probe, &refusal) == c.status);
    CHECK(refusal.status == c.status);
    CHECK(probe == nullptr);
    CHECK(refusal.line == c.line);
    CHECK(refusal.column == c.column);
    CHECK(std::string(refusal.message).find(c.message) != std::string::npos);
    CHECK(refusal.message[0] != '\0');
    CHECK(std::string(refusal.message).find('\n') == std::string::npos);
    CHECK(std::string(refusal.hint).find(c.hint) != std::string::npos);
  }
  auto after = sized<ubp_stats>();
  REQUIRE(ubp_read(&after) == UBP_OK);
  CHECK(after.probes == before.probes);
  CHECK(after.probepoints == before.probepoints);
}

TEST_CASE("a consumer or a recorder wants a bare target") {
  auto options = sized<ubp_options>();
  options.consumer = &see;
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_register("libfx_target:target_add { @n++; }", &options, nullptr, &refusal) == UBP_E_INVALID);
  CHECK(refusal.message[0] != '\0');
  options.consumer = nullptr;
  options.flags = UBP_PROBE_RECORD;
  CHECK(ubp_register("libfx_target:target_add { @n++; }", &options, nullptr, nullptr) == UBP_E_INVALID);
}

TEST_CASE("each registration has maps of its own") {
  const char* const spec = "libfx_target:target_add { @n++; }";
  const Scoped first(add(spec));
  call_add(10);
  const Scoped second(add(spec));
  call_add(5);
  CHECK(number(first.probe, "@n") == 15);
  CHECK(number(second.probe, "@n") == 5);
}

TEST_CASE("maps, programs and statuses") {
  const Scoped bare(add("libfx_target:target_quiet"));
  std::int64_t value = 0;
  const auto visit = [](const ubp_map_entry*, void*) {};
  const auto take = [](const char*, std::size_t, void*) {};
  CHECK(ubp_map_number(bare.probe, "@n", &value) == UBP_E_NOT_FOUND);
  CHECK(ubp_map_read(bare.probe, "@n", visit, nullptr) == UBP_E_NOT_FOUND);
  CHECK(ubp_drain_text(bare.probe, take, nullptr) == UBP_E_NOT_FOUND);
  ubp_probe* const probe =
      add("libfx_target:target_add { @n++; @k[arg0] = 1; @t = \"text\"; @s = tseries(arg0, 1s, 5); @p = (1, 2); }");
  call_add(1);
  CHECK(ubp_map_number(probe, "@n", &value) == UBP_OK);
  for (const char* name : {"n", "@", "", "@nn"}) CHECK(ubp_map_number(probe, name, &value) == UBP_E_NOT_FOUND);
  for (const char* name : {"@k", "@t", "@s", "@p"}) CHECK(ubp_map_number(probe, name, &value) == UBP_E_INVALID);
  CHECK(ubp_map_number(probe, nullptr, &value) == UBP_E_INVALID);
  CHECK(ubp_map_number(probe, "@n", nullptr) == UBP_E_INVALID);
  CHECK(ubp_map_read(probe, nullptr, visit, nullptr) == UBP_E_INVALID);
  CHECK(ubp_map_read(probe, "@n", nullptr, nullptr) == UBP_E_INVALID);
  CHECK(ubp_map_read(probe, "@s", visit, nullptr) == UBP_E_INVALID);
  CHECK(ubp_drain_text(probe, nullptr, nullptr) == UBP_E_INVALID);
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(ubp_map_number(probe, "@n", &value) == UBP_E_STALE);
  CHECK(ubp_map_read(probe, "@n", visit, nullptr) == UBP_E_STALE);
  CHECK(ubp_drain_text(probe, take, nullptr) == UBP_E_STALE);
  CHECK(ubp_unregister(probe) == UBP_E_STALE);
}

TEST_CASE("a consumer cannot read maps") {
  static ubp_probe* program = nullptr;
  static ubp_status status = UBP_OK;
  const Scoped kept(program = add("libfx_target:target_add { @n++; }"));
  const Scoped asks(add("libfx_target:target_quiet", [](const ubp_context*, void*) {
    std::int64_t value;
    status = ubp_map_number(program, "@n", &value);
  }));
  target_quiet(1);
  CHECK(status == UBP_E_IN_CONSUMER);
}

TEST_CASE("begin runs at registration, before the first hit; a program may be nothing else") {
  const Scoped probe(add("begin { @start = 7; printf(\"began\\n\"); } libfx_target:target_add { @n = @start; }"));
  CHECK(number(probe.probe, "@start") == 7);
  CHECK(drain(probe.probe) == "began\n");
  call_add(1);
  CHECK(number(probe.probe, "@n") == 7);
  const Scoped alone(add("begin { @only = 1; }"));
  CHECK(number(alone.probe, "@only") == 1);
  CHECK(read(alone.probe).hits == 0);
  CHECK(ubp_disable(alone.probe) == UBP_OK);
  CHECK(ubp_enable(alone.probe) == UBP_OK);
}

TEST_CASE("in a transaction, begin runs at its commit, and not in one that is aborted") {
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  ubp_probe* probe = add("begin { @start = 7; } libfx_target:target_add { @n++; }");
  CHECK(number(probe, "@start") == 0);
  call_add(3);
  REQUIRE(ubp_transaction_commit() == UBP_OK);
  CHECK(number(probe, "@start") == 7);
  CHECK(number(probe, "@n") == 0);
  call_add(3);
  CHECK(number(probe, "@n") == 3);
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_unregister(probe) == UBP_OK);
  call_add(3);
  CHECK(number(probe, "@n") == 6);
  REQUIRE(ubp_transaction_commit() == UBP_OK);
  std::int64_t value;
  CHECK(ubp_map_number(probe, "@n", &value) == UBP_E_STALE);
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  probe = add("begin { @start = 7; } libfx_target:target_add { @n++; }");
  CHECK(ubp_transaction_abort() == UBP_OK);
  CHECK(ubp_map_number(probe, "@start", &value) == UBP_E_STALE);
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  probe = add("begin { @start = 7; } libfx_target:target_add { @n++; }");
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(ubp_transaction_commit() == UBP_OK);
  CHECK(ubp_map_number(probe, "@start", &value) == UBP_E_STALE);
}

TEST_CASE("what a program prints is taken once, in order") {
  const Scoped probe(add("libfx_target:target_add { printf(\"%d\\n\", arg0); }"));
  CHECK(drain(probe.probe).empty());
  call_add(3);
  CHECK(drain(probe.probe) == "0\n1\n2\n");
  CHECK(drain(probe.probe).empty());
  call_add(1);
  CHECK(drain(probe.probe) == "0\n");
}

TEST_CASE("text that is drained makes room for more") {
  const Scoped probe(
      add("libfx_target:target_add { $t = str(arg1); printf(\"%d %s%s%s%s\\n\", arg0, $t, $t, $t, $t); }"));
  // Each takes 2 KiB, and there is room for 64 MiB.
  const std::string text(500, 'x');
  constexpr long kTurns = 5, kTexts = 10'000;
  std::size_t bytes = 0, wanted = 0;
  const auto print = [&] {
    for (long i = 0; i < kTexts; ++i) target_add(i, reinterpret_cast<long>(text.c_str()));
  };
  for (int turn = 0; turn < kTurns; ++turn) {
    print();
    bytes += drain(probe.probe).size();
  }
  CHECK(read(probe.probe).dropped == 0);
  CHECK(read(probe.probe).recorded == kTurns * kTexts);
  for (long i = 0; i < kTexts; ++i) wanted += std::to_string(i).size() + 4 * text.size() + 2;
  CHECK(bytes == kTurns * wanted);
  for (int turn = 0; turn < kTurns; ++turn) print();
  CHECK(read(probe.probe).dropped > 0);
}

TEST_CASE("an interval's block runs behind the blocks of hits") {
  const Scoped probe(add("interval:ms:1 { @ticks++; } libfx_target:target_add { @n++; }"));
  long calls = 0;
  constexpr long kMost = 2'000'000'000;  // of a processor that has no clock
  for (; number(probe.probe, "@ticks") < 3 && calls < kMost; calls += 1000) call_add(1000);
  CHECK(number(probe.probe, "@ticks") >= 3);
  CHECK(number(probe.probe, "@n") == calls);
}

TEST_CASE("exit() ends the run: hits are filtered from then on") {
  const Scoped probe(add("libfx_target:target_add { @n++; if (arg0 == 4) { exit(); } }"));
  call_add(10);
  CHECK(number(probe.probe, "@n") == 5);
  const ubp_probe_stats stats = read(probe.probe);
  CHECK(stats.hits == 10);
  CHECK(stats.filtered == 5);
  const Scoped at_once(add("begin { exit(); } libfx_target:target_add { @n++; }"));
  call_add(10);
  CHECK(number(at_once.probe, "@n") == 0);
}

// Started by the case below.
TEST_CASE("child: prints at its end" * doctest::skip()) {
  ubp_probe* const probe = add(
      "begin { printf(\"began; \"); } libfx_target:target_add { @n++; @q = arg0 / (arg0 - arg0); } end { printf(\"end %d\\n\", @n); }");
  call_add(3);
  CHECK(ubp_unregister(probe) == UBP_OK);
  add("libfx_target:target_quiet { @n++; } end { printf(\"shut down %d\\n\", @n); }");
  target_quiet(1);
  CHECK(ubp_shutdown() == UBP_OK);
}

TEST_CASE("end runs at unregistration and at shutdown; what nobody took is on standard error") {
  char self[4096] = {};
  REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  const std::string command = "'" + std::string(self) + "' --no-skip -tc='child: prints at its end' 2>&1 >/dev/null";
  std::FILE* const pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string text;
  char piece[256];
  while (std::fgets(piece, sizeof piece, pipe) != nullptr) text += piece;
  CHECK(pclose(pipe) == 0);
  CAPTURE(text);
  CHECK(text.find("began; end 3\n") != std::string::npos);
  CHECK(text.find("ubp_register:1:") != std::string::npos);
  CHECK(text.find("(3 times)") != std::string::npos);
  CHECK(text.find("shut down 1\n") != std::string::npos);
}

TEST_CASE("a forked child has maps of its own, which are empty") {
  const Scoped probe(add("libfx_target:target_add { @n++; @k[arg0] = count(); printf(\"%d\\n\", arg0); }"));
  call_add(10);
  CHECK(drain(probe.probe).size() == 20);
  const int status = end_of_child(20, [&] {
    std::int64_t value = -1;
    if (ubp_map_number(probe.probe, "@n", &value) != UBP_OK || value != 0) return 1;
    call_add(3);
    if (ubp_map_number(probe.probe, "@n", &value) != UBP_OK || value != 3) return 2;
    return drain(probe.probe) == "0\n1\n2\n" ? 0 : 3;
  });
  CHECK(status == 0);
  CHECK(number(probe.probe, "@n") == 10);
}

TEST_CASE("threads: maps are exact when they have been joined") {
  const Scoped probe(
      add("libfx_target:target_add { @count = count(); @sum = sum(arg1); @n++; @k[arg0 % 7]++; @max = max(arg0); }"));
  Callers callers(4);
  for (int turn = 0; turn < 50; ++turn) {  // read meanwhile: never more than there is in the end
    const std::int64_t first = number(probe.probe, "@count");
    CHECK(number(probe.probe, "@count") >= first);
  }
  const long calls = callers.join();
  CHECK(number(probe.probe, "@count") == calls);
  CHECK(number(probe.probe, "@sum") == calls);
  CHECK(number(probe.probe, "@n") == calls);
  CHECK(number(probe.probe, "@max") == (calls != 0 ? 99 : 0));
  std::int64_t keys = 0;
  const auto add_up = [](const ubp_map_entry* entry, void* data) {
    *static_cast<std::int64_t*>(data) += entry->values[0].number;
  };
  CHECK(ubp_map_read(probe.probe, "@k", add_up, &keys) == UBP_OK);
  CHECK(keys == calls);
  CHECK(read(probe.probe).hits == static_cast<std::uint64_t>(calls));
}

TEST_CASE("programs come and go while threads run through them") {
  const Scoped kept(add("libfx_target:target_add { @n++; }"));
  Callers callers(3);
  for (int turn = 0; turn < 40; ++turn) {
    ubp_probe* const probe = add("libfx_target:target_add { @n++; @s[\"key\"] = count(); printf(\"%d\", arg0); }");
    CHECK(ubp_disable(probe) == UBP_OK);
    const ubp_probe_stats stats = read(probe);
    CHECK(number(probe, "@n") == static_cast<std::int64_t>(stats.hits));  // it stands still
    drain(probe);
    CHECK(ubp_unregister(probe) == UBP_OK);
  }
  const long calls = callers.join();
  CHECK(number(kept.probe, "@n") == calls);
}

TEST_CASE("programs are registered by several threads at once") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int number = 0; number < 6; ++number) {
    threads.emplace_back([&wrong, number] {
      for (int turn = 0; turn < 25; ++turn) {
        const std::string spec = "begin { @id = " + std::to_string(number) +
                                 "; } libfx_target:target_add /tid == " + std::to_string(gettid()) +
                                 "/ { @n++; @id = " + std::to_string(number) + "; }";
        ubp_probe* probe = nullptr;
        if (ubp_register(spec.c_str(), nullptr, &probe, nullptr) != UBP_OK) {
          ++wrong;
          return;
        }
        call_add(20);
        std::int64_t calls = 0, id = -1;
        const bool is_right = ubp_map_number(probe, "@n", &calls) == UBP_OK && calls == 20 &&
                              ubp_map_number(probe, "@id", &id) == UBP_OK && id == number;
        if (!is_right || ubp_unregister(probe) != UBP_OK) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
