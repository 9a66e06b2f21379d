// ubp.hpp: results and errors, targets, hits, consumers with state, sessions.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ubp.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cpp_fixture.h"
#include "target.h"

namespace {

// How a child that runs body ends: the signal that killed it, or 0; and what it wrote to standard error.
template <typename Body>
int death_of(const Body& body, std::string& error) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    for (const int number : {SIGABRT, SIGSEGV}) signal(number, SIG_DFL);  // doctest has its own
    body();
    _exit(0);
  }
  close(ends[1]);
  char buffer[512];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;)
    error.append(buffer, static_cast<std::size_t>(got));
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void count_in_static(const ubp::Hit&) { ++g_static_calls; }

}  // namespace

std::atomic<long> g_static_calls{0};

static_assert(!std::is_copy_constructible_v<ubp::Probe> && std::is_nothrow_move_constructible_v<ubp::Probe>);
static_assert(!std::is_copy_assignable_v<ubp::Probe> && std::is_nothrow_move_assignable_v<ubp::Probe>);
static_assert(!std::is_copy_constructible_v<ubp::Session> && std::is_nothrow_move_constructible_v<ubp::Session>);
static_assert(!std::is_copy_constructible_v<ubp::Transaction> &&
              std::is_nothrow_move_constructible_v<ubp::Transaction>);

TEST_CASE("a Result prints what it is") {
  const auto session = ubp::Session::start();
  const auto failed = ubp::Probe::create("libc:mallok");
  CHECK(std::string(doctest::toString(failed).c_str()).find("error: 1:6: no function 'mallok' in libc.so.6") == 0);
  CHECK(std::string(doctest::toString(ubp::Probe::create("libc:malloc")).c_str()) == "a value");
}

TEST_CASE("a program's maps, as values of C++") {
  const auto session = ubp::Session::start();
  const auto probe = ubp::Probe::create(
      "libfx_target:target_add { @n = count(); @by[arg0, \"key\"] = sum(arg1); @h = hist(arg0); printf(\"%d;\", arg0); }");
  REQUIRE_MESSAGE(probe, probe.error().text());
  CHECK(probe->map("@n")->empty());
  CHECK(probe->map("@n")->number() == 0);
  for (const long value : {1L, 2L, 2L}) target_add(value, 10);
  CHECK(probe->map("@n")->number() == 3);
  const ubp::Map by = probe->map("@by").value();
  CHECK(by.size() == 2);
  CHECK(by.number(2, "key") == 20);
  CHECK(by.number(2, std::string("key")) == 20);
  CHECK(by.number(3, "key") == 0);
  CHECK(by.find(2) == nullptr);
  CHECK(by.find(2, "other") == nullptr);
  REQUIRE(by.find(1, "key") != nullptr);
  CHECK(by.find(1, "key")->keys == std::vector<ubp::Value>{1, "key"});
  CHECK(by.text(1, "key").empty());
  long sum = 0;
  for (const ubp::MapEntry& entry : by) sum += entry.number();
  CHECK(sum == 30);
  const ubp::Map histogram = probe->map("@h").value();
  REQUIRE(histogram.find() != nullptr);
  CHECK(histogram.find()->count == 3);
  CHECK(histogram.find()->buckets.size() == 2);
  CHECK(histogram.find()->aggregate == UBP_AGGREGATE_HIST);
  CHECK(probe->drain_text().value() == "1;2;2;");
  CHECK(probe->drain_text().value().empty());
  CHECK(probe->map("@none").status() == UBP_E_NOT_FOUND);
  CHECK(ubp::Value(5u) == ubp::Value(5L));
  CHECK(ubp::Value(5) != ubp::Value("5"));
  CHECK(std::string(doctest::toString(ubp::Value("a")).c_str()) == "\"a\"");
  CHECK(std::string(doctest::toString(ubp::Value(-5)).c_str()) == "-5");
  const auto mistaken = ubp::Probe::create("libfx_target:target_add {\n @n = cuont(); }");
  REQUIRE(!mistaken);
  CHECK(mistaken.status() == UBP_E_SPEC);
  CHECK(mistaken.error().line == 2);
  CHECK(mistaken.error().column != 0);
}

TEST_CASE("a count: by specification, by symbol, by address") {
  const auto session = ubp::Session::start();
  REQUIRE(session);
  CHECK(ubp_is_active() == 1);
  const auto spec = ubp::Probe::create("libfx_target:target_add");
  const auto text = ubp::Probe::create(std::string("libfx_target:target_a*"));
  const auto symbol = ubp::Probe::create(ubp::Target::symbol("libfx_target", "target_add"));
  const auto address = ubp::Probe::create(ubp::Target::address(&target_add));
  for (long i = 0; i < 10; ++i) CHECK(target_add(i, 1) == i + 1);
  for (const auto* probe : {&spec, &text, &symbol, &address}) {
    REQUIRE(*probe);
    const ubp_probe_stats stats = (*probe)->stats().value();
    CHECK(stats.hits == 10);
    CHECK(stats.recorded == 10);
    CHECK(stats.probepoints == 1);
    CHECK(stats.enabled == 1);
  }
  const ubp_stats all = ubp::stats().value();
  CHECK(all.probes == 4);
  CHECK(all.probepoints == 1);
}

TEST_CASE("one of several functions of a name, as people write it") {
  const auto session = ubp::Session::start();
  const auto number = ubp::Probe::create("cpp_fixture::overloaded(int, char const*)");
  const auto text = ubp::Probe::create("cpp_fixture::overloaded(std::string const&)");
  REQUIRE(number);
  REQUIRE(text);
  CHECK(cpp_fixture::overloaded(3, "x") == 3);
  CHECK(cpp_fixture::overloaded("abcd") == 4);
  CHECK(cpp_fixture::overloaded("ab") == 2);
  CHECK((*number).stats()->hits == 1);
  CHECK((*text).stats()->hits == 2);
}

TEST_CASE("enable and disable; a start disabled; a function of the executable") {
  const auto session = ubp::Session::start();
  auto probe = ubp::Probe::create(ubp::Target::symbol("", "cpp_fixture_step"), UBP_PROBE_DISABLED);
  REQUIRE(probe);
  CHECK(probe->stats()->enabled == 0);
  cpp_fixture_step(1);
  CHECK(probe->enable() == UBP_OK);
  cpp_fixture_step(1);
  CHECK(probe->disable() == UBP_OK);
  cpp_fixture_step(1);
  CHECK(probe->stats()->hits == 1);
}

TEST_CASE("errors say what, where and what to do") {
  const auto session = ubp::Session::start();
  const auto missing = ubp::Probe::create("libfx_target:target_add; libfx_target:target_ad");
  REQUIRE(!missing);
  CHECK(missing.status() == UBP_E_NOT_FOUND);
  const ubp::Error& error = missing.error();
  CHECK(error.status == UBP_E_NOT_FOUND);
  CHECK(error.line == 1);
  CHECK(error.column == 39);
  CHECK(error.message.find("target_ad") != std::string::npos);
  CHECK(error.hint.find("target_add") != std::string::npos);
  CHECK(error.text() == "1:39: " + error.message + " (" + error.hint + ")");

  const auto inside = ubp::Probe::create(ubp::Target::symbol("libfx_target", "target_add", 1));
  REQUIRE(!inside);
  CHECK(inside.error().status == UBP_E_REFUSED);
  CHECK(inside.error().module == "libfx_target.so");
  CHECK(inside.error().symbol == "target_add+0x1");
  CHECK(inside.error().address == reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_add")) + 1);
  CHECK(inside.error().elf_address != 0);
  CHECK(inside.error().elf_address < inside.error().address);
  CHECK(inside.error().is_exact);
  CHECK(inside.error().line == 0);
  CHECK(inside.error().text().find("mid-instruction: ") != std::string::npos);

  CHECK(ubp::Probe::create("").status() == UBP_E_SPEC);
  CHECK(ubp::Probe::create("libc:[").status() == UBP_E_SPEC);
  CHECK(ubp::Probe::create("libfx_target:target_add", 1u << 20).status() == UBP_E_INVALID);
  CHECK(ubp::Probe::create("libfx_target:target_add", 1u << 20).error().message == ubp_status_string(UBP_E_INVALID));
  CHECK(ubp::Probe::create(ubp::Target::address(static_cast<const void*>(nullptr))).status() == UBP_E_INVALID);
  CHECK(ubp::Probe::create(ubp::Target::symbol("nolib", "f")).status() == UBP_E_NOT_FOUND);
  CHECK(ubp::Probe::create(ubp::Target::symbol("", "")).status() == UBP_E_INVALID);
  CHECK(ubp::Session::start({0, 5000, 0, 0, 0, 0, 0}).status() == UBP_E_INVALID);
  CHECK(ubp::stats()->probes == 0);
}

TEST_CASE("what a probe does not get") {
  const auto session = ubp::Session::start();
  const auto probe =
      ubp::Probe::create("libfx_target:target_add; libfx_target:nowhere; nolib:f", UBP_PROBE_IGNORE_MISSING);
  REQUIRE(probe);
  const std::vector<ubp::Error> errors = probe->refusals().value();
  REQUIRE(errors.size() == 2);
  CHECK(errors[0].status == UBP_E_NOT_FOUND);
  CHECK(errors[0].column == 39);
  CHECK(errors[1].message.find("nolib") != std::string::npos);
}

TEST_CASE("value() of an error ends the program and says why; error() of a value likewise") {
  const auto session = ubp::Session::start();
  std::string text;
  CHECK(death_of([] { static_cast<void>(ubp::Probe::create("libc:[").value()); }, text) == SIGABRT);
  CHECK(text.find("ubp: Result::value() of an error: 1:6: '[' is not closed") == 0);
  text.clear();
  CHECK(death_of([] { static_cast<void>(ubp::stats().error()); }, text) == SIGABRT);
  CHECK(text == "ubp: Result::error() of a value\n");
}

TEST_CASE("a consumer sees the hit, each argument as its type") {
  const auto session = ubp::Session::start();
  struct Seen {
    std::array<long, 8> arguments{};
    int narrow = 0;
    bool flag = false;
    const char* text = nullptr;
    std::uint64_t ip = 0, rdi = 0, flags = 0;
    std::uint32_t thread = 0;
    ubp_probe* probe = nullptr;
    ubp_status set = UBP_OK;
  } seen;
  const auto eight = ubp::Probe::create("libfx_target:target_eight", [&seen](const ubp::Hit& hit) {
    for (unsigned i = 0; i < 8; ++i) seen.arguments[i] = hit.argument<long>(i);
    seen.ip = hit.ip();
    seen.rdi = hit.register_value(UBP_RDI);
    seen.flags = hit.flags();
    seen.thread = hit.thread_id();
    seen.probe = hit.probe();
    seen.set = hit.set_register(UBP_RDI, 0);
  });
  REQUIRE(eight);
  CHECK(target_eight(1, -2, 3, 4, 5, 6, -7, 8) == 1 - 4 + 9 + 16 + 25 + 36 - 49 + 64);
  CHECK(seen.arguments == std::array<long, 8>{1, -2, 3, 4, 5, 6, -7, 8});
  CHECK(seen.ip == reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_eight")));
  CHECK(seen.rdi == 1);
  CHECK((seen.flags & 2) != 0);
  CHECK(seen.thread == static_cast<std::uint32_t>(gettid()));
  CHECK(seen.probe == eight->handle());
  CHECK(seen.set == UBP_E_REFUSED);
  const auto mixed = ubp::Probe::create("cpp_fixture_mixed", [&seen](const ubp::Hit& hit) {
    seen.narrow = hit.argument<int>(0);
    seen.flag = hit.argument<bool>(1);
    seen.text = hit.argument<const char*>(2);
  });
  REQUIRE(mixed);
  const char* const text = "text";
  CHECK(cpp_fixture_mixed(-5, true, text) == -4);
  CHECK(seen.narrow == -5);
  CHECK(seen.flag);
  CHECK(seen.text == text);
  cpp_fixture_mixed(7, false, nullptr);
  CHECK(!seen.flag);
}

TEST_CASE("a consumer that asked for it changes registers") {
  const auto session = ubp::Session::start();
  const auto add_hundred = [](const ubp::Hit& hit) { hit.set_register(UBP_RDI, hit.register_value(UBP_RDI) + 100); };
  const auto probe = ubp::Probe::create("libfx_target:target_add", add_hundred, UBP_PROBE_MODIFY);
  REQUIRE(probe);
  CHECK(target_add(1, 2) == 103);
}

TEST_CASE("any callable: mutable, move-only, std::function, a function") {
  const auto session = ubp::Session::start();
  auto total = std::make_shared<std::atomic<long>>(0);
  auto counts = ubp::Probe::create("libfx_target:target_add",
                                   [total, own = 0L, last = std::make_unique<long>(0)](const ubp::Hit& hit) mutable {
                                     *last = hit.argument<long>(0);
                                     total->fetch_add(++own + *last);
                                   });
  std::function<void(const ubp::Hit&)> function = [total](const ubp::Hit&) { total->fetch_add(1000); };
  auto copied = ubp::Probe::create("libfx_target:target_add", function);
  function = nullptr;
  auto named = ubp::Probe::create("libfx_target:target_add", &count_in_static);
  auto generic = ubp::Probe::create("libfx_target:target_add", [total](const auto&) { total->fetch_add(100000); });
  REQUIRE(counts);
  REQUIRE(copied);
  REQUIRE(named);
  REQUIRE(generic);
  target_add(10, 0);
  target_add(20, 0);
  CHECK(*total == (1 + 10) + (2 + 20) + 2 * 1000 + 2 * 100000);
  CHECK(g_static_calls == 2);
  CHECK(total.use_count() == 4);
  CHECK(counts->unregister() == UBP_OK);
  CHECK(copied->unregister() == UBP_OK);
  CHECK(total.use_count() == 2);
}

TEST_CASE("an exception that leaves a consumer ends the program") {
  const auto session = ubp::Session::start();
  const auto fail = [](const ubp::Hit&) { throw std::runtime_error("on purpose"); };
  const auto probe = ubp::Probe::create("libfx_target:target_add", fail);
  REQUIRE(probe);
  std::string text;
  CHECK(death_of([] { target_add(1, 1); }, text) != 0);
  CHECK(text.find("on purpose") != std::string::npos);
}

TEST_CASE("consumers of one probe run in several threads") {
  const auto session = ubp::Session::start();
  std::atomic<long> calls{0}, sum{0};
  const auto probe = ubp::Probe::create("libfx_target:target_add", [&](const ubp::Hit& hit) {
    ++calls;
    sum += hit.argument<long>(0);
  });
  REQUIRE(probe);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (long i = 0; i < 1000; ++i) target_add(i, 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(calls == 4000);
  CHECK(sum == 4 * 499500);
  CHECK(probe->stats()->recorded == 4000);
}

TEST_CASE("sessions: what outlives one is stale; a new one starts afresh") {
  const auto state = std::make_shared<int>(0);
  auto session = ubp::Session::start();
  REQUIRE(session);
  auto probe = ubp::Probe::create("libfx_target:target_add", [state](const ubp::Hit&) { ++*state; });
  REQUIRE(probe);
  target_add(1, 1);
  {
    const ubp::Session moved = std::move(*session);
    CHECK(ubp_is_active() == 1);
  }
  CHECK(ubp_is_active() == 0);
  CHECK(session->shutdown() == UBP_OK);  // it was moved from: nothing is left to do
  target_add(1, 1);
  CHECK(*state == 1);
  CHECK(probe->stats().status() == UBP_E_NOT_ACTIVE);
  CHECK(ubp::Probe::create("libfx_target:target_add").status() == UBP_E_NOT_ACTIVE);
  auto again = ubp::Session::start();
  CHECK(probe->stats().status() == UBP_E_STALE);
  CHECK(probe->disable() == UBP_E_STALE);
  CHECK(state.use_count() == 2);
  CHECK(probe->unregister() == UBP_E_STALE);
  CHECK(state.use_count() == 1);
  CHECK(again->shutdown() == UBP_OK);
  CHECK(again->shutdown() == UBP_OK);
  CHECK(ubp_is_active() == 0);
}
