// Probes at returns: how often functions return, and what, however they are left. fx_returns says what it did.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::returns_test {

namespace {

// "@n[down]: 3" -> {"@n[down]", 3}
std::map<std::string, std::int64_t> values(const Outcome& outcome) {
  std::map<std::string, std::int64_t> values;
  for (const std::string& line : lines(outcome.err)) {
    const std::size_t colon = line.find("]: ");
    if (line.starts_with('@') && colon != std::string::npos)
      values[line.substr(0, colon + 1)] = std::stoll(line.substr(colon + 3));
  }
  return values;
}

// An empty object where there is none.
nlohmann::json row_of(const nlohmann::json& summary, std::string_view symbol) {
  for (const auto& row : summary["probes"]) {
    if (row["symbol"] == symbol && (row["kind"] == "uretprobe" || row["kind"] == "call")) return row;
  }
  return nlohmann::json::object();
}

// Runs a mode with probes at all returns, and compares with what the program says: hits, sums, and what was left.
void check_mode(const std::string& mode, long times) {
  const std::vector<std::string> argv = {fixture("fx_returns"), mode, std::to_string(times)};
  const Outcome plain = run_plain(argv);
  const Outcome probed = run_probed(argv, "ur:* { @n[func] = count(); @s[func] = sum((int64)retval) }");
  CHECK(probed.end() == plain.end());
  CHECK(probed.out == plain.out);
  const nlohmann::json summary = probed.summary();
  CHECK_MESSAGE(adds_up(summary), probed.err);
  auto said = numbers(probed.out);
  auto got = values(probed);
  int functions = 0;
  for (const auto& [name, returned] : said) {
    if (!name.starts_with("n_")) continue;
    const std::string function = name.substr(2);
    ++functions;
    CAPTURE(function);
    const nlohmann::json row = row_of(summary, function);
    CHECK(row["hits"] == returned);
    CHECK(got["@n[" + function + "]"] == returned);
    if (function != "only_returns") CHECK(got["@s[" + function + "]"] == said["s_" + function]);
    const auto entered = said.find("entered_" + function);
    const std::int64_t entries = entered != said.end() ? entered->second : returned;
    CHECK(row["entries"] == entries);
    // What was not seen to be left is taken to go on: the last ones.
    CHECK(row["left"] <= entries - returned);
    CHECK(row["left"] >= entries - returned - 10);
  }
  CHECK(functions != 0);
}

}  // namespace

TEST_CASE("returns_tail_call: returns, jumps to other functions, jump tables, in assembler") {
  check_mode("assembler", 50);
}
TEST_CASE("returns_straight: an entry that runs straight to the return, both by jumps") {
  constexpr std::int64_t kTimes = 50;
  const Outcome probed = run_probed({fixture("fx_returns"), "assembler", std::to_string(kTimes)},
                                    "ur:straight { @ = sum(retval) }", {{"UBP_OPTIMIZE", "always"}});
  CHECK(probed.end() == "exit 0");
  const nlohmann::json summary = probed.summary();
  const nlohmann::json row = row_of(summary, "straight");
  CHECK(row["hits"] == kTimes);
  CHECK(row["tier"] == "jump");
  CHECK(summary["optimised"]["probepoints"] == 2);
  CHECK(summary["optimised"]["hits"].get<std::int64_t>() >= 2 * kTimes - 2);  // the first hit may be by a trap
}
TEST_CASE("returns_short: returns that have no room for a jump are led to from before") {
  constexpr std::int64_t kTimes = 200;
  for (const std::string optimize : {"always", "auto", "never"}) {
    CAPTURE(optimize);
    const Outcome probed = run_probed({fixture("fx_returns"), "assembler", std::to_string(kTimes)},
                                      "ur:no_room { @ = sum(retval); @n = count() }", {{"UBP_OPTIMIZE", optimize}});
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == run_plain({fixture("fx_returns"), "assembler", std::to_string(kTimes)}).out);
    CHECK(has_line(probed.err, "@: " + std::to_string(numbers(probed.out).at("s_no_room"))));
    CHECK(has_line(probed.err, "@n: " + std::to_string(kTimes)));
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    CHECK(row_of(summary, "no_room")["hits"] == kTimes);
    CHECK(summary["totals"]["probepoints_armed"] == 4);  // what leads to a return is none
    const auto trapped = summary["traps"]["hits"].get<std::int64_t>();
    if (optimize == "never") {  // control: so many there are
      CHECK(trapped == 2 * kTimes);
    } else {
      CHECK(trapped <= 2);  // the first hit may be by a trap
      CHECK(summary["optimised"]["probepoints"] == 4);
    }
  }
}
TEST_CASE("returns_exception: ten frames that an exception passes through, again and again") {
  check_mode("exceptions", 2000);
}
TEST_CASE("returns_longjmp: ten frames that longjmp leaves") { check_mode("longjmp", 2000); }
TEST_CASE("returns_places: a return of another call, from the place of one that was left, is not that one's") {
  constexpr std::int64_t kTimes = 50;
  for (const std::string kind : {"ur", "call"}) {
    CAPTURE(kind);
    const Outcome probed = run_probed({fixture("fx_returns"), "places", std::to_string(kTimes)},
                                      kind + ":leaves_or_jumps { @n = count(); @s = sum(retval) }");
    CHECK(probed.end() == "exit 0");
    const auto said = numbers(probed.out);
    CHECK(said.at("n_leaves_or_jumps") == kTimes);
    CHECK(has_line(probed.err, "@n: " + std::to_string(kTimes)));
    CHECK(has_line(probed.err, "@s: " + std::to_string(said.at("s_leaves_or_jumps"))));
    const nlohmann::json summary = probed.summary(), row = summary["probes"][0];
    CHECK(adds_up(summary));
    CHECK(row["entries"] == 2 * kTimes);
    CHECK(row["left"] == kTimes);
  }
}
TEST_CASE("returns_handler: a handler that leaves by siglongjmp, on both stacks") { check_mode("handlers", 500); }
TEST_CASE("returns_coroutine: twenty coroutines, each in the middle of a call") { check_mode("coroutines", 100); }
TEST_CASE("returns_threads: recursion and exceptions in four threads") { check_mode("threads", 1000); }

TEST_CASE("returns_thread_exit: pthread_exit and pthread_cancel within five calls") {
  constexpr long kTimes = 20;
  const Outcome probed =
      run_probed({fixture("fx_returns"), "ends", std::to_string(kTimes)}, "ur:leaves_thread; ur:is_cancelled");
  CHECK(probed.end() == "exit 0");
  for (const char* name : {"leaves_thread", "is_cancelled"}) {
    CAPTURE(name);
    const nlohmann::json summary = probed.summary();
    const nlohmann::json row = row_of(summary, name);
    CHECK(row["hits"] == 0);
    CHECK(row["entries"] == 5 * kTimes);
    CHECK(row["left"] <= 5 * kTimes);
  }
}

TEST_CASE("returns_unknown_target: a call that goes on where nobody looks is missed, and says so") {
  constexpr long kTimes = 30;
  const Outcome probed =
      run_probed({fixture("fx_returns"), "unknown", std::to_string(kTimes)}, "ur:jumps_by_word; ur:landed");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "missed") == kTimes);
  CHECK(total(probed.summary(), "recorded") == kTimes);
  const nlohmann::json summary = probed.summary();
  CHECK(row_of(summary, "jumps_by_word")["left"] == 0);
}

TEST_CASE("returns_deep: a million calls within each other; those that there is no room for are missed") {
  constexpr std::uint64_t kTimes = 1'000'000;
  const Outcome probed = run_probed({fixture("fx_returns"), "deep", std::to_string(kTimes)}, "ur:down; ur:elsewhere");
  CHECK(probed.end() == "exit 0");
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  CHECK(row_of(summary, "down")["hits"] == kTimes + 1);
  CHECK(row_of(summary, "elsewhere")["hits"] == 1);
  CHECK(total(summary, "missed") > 0);
  CHECK(total(summary, "recorded") > 50'000);
}

TEST_CASE("returns_fork: a child returns from the calls that its parent was in") {
  const Outcome probed = run_probed({fixture("fx_returns"), "fork"}, "ur:forks { @n[retval] = count() }");
  CHECK(probed.end() == "exit 0");
  REQUIRE(probed.summaries.size() == 2);
  for (const auto& [pid, summary] : probed.summaries) {
    CHECK(adds_up(summary));
    CHECK(hits(summary, "ur:forks") == 5);
    CHECK(row_of(summary, "forks")["entries"] == (pid == probed.pid ? 5 : 0));
  }
  const auto got = values(probed);
  for (int value = 1; value <= 5; ++value) CHECK(got.at("@n[" + std::to_string(value) + "]") == 1);
}

TEST_CASE("returns_vfork: vfork returns twice, and what the child calls is not the parent's") {
  const Outcome probed = run_probed({fixture("fx_returns"), "vfork"},
                                    "ur:libc:vfork { @[retval == 0 ? 0 : 1] = count() } ur:elsewhere; ur:libc:waitpid");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  const auto got = values(probed);
  CHECK(got.at("@[0]") == 1);
  CHECK(got.at("@[1]") == 1);
  CHECK(hits(probed.summary(), "ur:elsewhere") == 1);
  CHECK(hits(probed.summary(), "ur:libc:waitpid") == 1);
}

TEST_CASE("returns_setjmp: what longjmp comes back to is no return of setjmp") {
  const Outcome probed = run_probed({fixture("fx_returns"), "setjmp"}, "libc:_setjmp; ur:libc:_setjmp /retval == 0/");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "turns 3\n");
  CHECK(hits(probed.summary(), "libc:_setjmp") >= 1);  // libc calls it too
  CHECK(hits(probed.summary(), "ur:libc:_setjmp") == hits(probed.summary(), "libc:_setjmp"));
  CHECK(total(probed.summary(), "filtered") == 0);
}

TEST_CASE("returns_noreturn: a function that never returns is entered once, and goes on") {
  const Outcome probed = run_probed({fixture("fx_returns"), "noreturn"}, "ur:never_returns");
  CHECK(probed.end() == "exit 3");
  const nlohmann::json summary = probed.summary();
  CHECK(row_of(summary, "never_returns")["hits"] == 0);
  CHECK(row_of(summary, "never_returns")["entries"] == 1);
}

TEST_CASE("returns_late: a call that began before the probe was armed is not told") {
  const Outcome probed = run_probed({fixture("fx_returns"), "late"}, "elsewhere");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "first 100\nsecond 1\n");
  const nlohmann::json summary = probed.summary();
  const nlohmann::json row = row_of(summary, "registers_itself");
  CHECK(row["hits"] == 1);
  CHECK(row["entries"] == 1);
}

TEST_CASE("returns_refused: code that may hold data, the middle of a function, what a block asks of a return") {
  const auto refusal = [](const std::string& probes) {
    return run_probed({fixture("fx_returns"), "none"}, probes).err;
  };
  CHECK(refusal("ur:holds_data").find("exits: not all places are known where this function returns") !=
        std::string::npos);
  CHECK(refusal("ur:landed { @ = arg0 }").find("The arg0 builtin can not be used with 'uretprobe' probes") !=
        std::string::npos);
  CHECK(refusal("u:landed { @ = retval }")
            .find("The retval builtin can only be used with 'uretprobe' and 'call' probes") != std::string::npos);
  CHECK(refusal("ur:landed { override(1) }").find("override() can not be used with 'uretprobe' probes") !=
        std::string::npos);
  CHECK(refusal("ur:landed+4").find("uretprobes can not be attached to a function offset") != std::string::npos);
}

TEST_CASE("returns_filter: hits = recorded + filtered; entries and returns of one function side by side") {
  constexpr long kTimes = 100;
  const Outcome probed = run_probed({fixture("fx_returns"), "assembler", std::to_string(kTimes)},
                                    "ur:switches /retval % 4 == 1/ { @ = count() } switches; ur:switches; ur:pops");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "hits") == 4 * kTimes);
  CHECK(total(probed.summary(), "filtered") == kTimes / 2);
}

TEST_CASE("returns_stack: the stack at a return is that of its caller, and func is the function that was asked for") {
  const Outcome probed = run_probed({fixture("fx_returns"), "assembler", "3"},
                                    "ur:jumps_twice { @[func, ustack(2)] = count() }", {{"UBP_OPTIMIZE", "never"}});
  CHECK(probed.end() == "exit 0");
  const std::size_t at = probed.err.find("@[jumps_twice, \n");
  CAPTURE(probed.err);
  REQUIRE(at != std::string::npos);
  const std::vector<std::string> frames = lines(std::string_view(probed.err).substr(at));
  REQUIRE(frames.size() > 3);
  CHECK(frames[1].find("jumps_twice") != std::string::npos);
  CHECK(frames[2].find("main") != std::string::npos);
  CHECK(frames[3].find("]: 3") != std::string::npos);
}

TEST_CASE("returns_moved: calls that end in another thread or on another stack were left") {
  for (const std::string kind : {"ur", "call"}) {
    CAPTURE(kind);
    const std::vector<std::string> argv = {fixture("fx_moves"), "20"};
    std::string probes;
    for (const char* const function : {"crosses", "moves", "shifts", "stays"}) probes += kind + ":" + function + "; ";
    const Outcome plain = run_plain(argv), probed = run_probed(argv, probes);
    CHECK(probed.out == plain.out);
    CHECK(probed.end() == "exit 0");
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    REQUIRE(summary["probes"].size() == 4);
    for (const auto& row : summary["probes"]) {
      const bool stays = row["symbol"] == "stays";
      CHECK(row["entries"] == 20);
      CHECK(row["hits"] == (stays ? 20 : 0));
      CHECK(row["left"] == (stays ? 0 : 20));
    }
  }
}

// A frame that is left in the first thread is not taken for that of a later call at its place, which ends there.
TEST_CASE("returns_wander: a call that ends where an earlier one at its place began has not its arguments and time") {
  constexpr long kTimes = 5;
  const std::vector<std::string> argv = {fixture("fx_moves"), "wander", std::to_string(kTimes)};
  const Outcome plain = run_plain(argv);
  const std::string by_return = "ur:wanders { @n[retval] = count() } ur:visits { @v[retval] = count() }";
  const std::string by_call =
      "call:wanders { @n[retval] = count(); @first[retval - arg0] = count(); @times[elapsed >= 20000000 ? 1 : 0] = "
      "count() } call:visits { @v[retval] = count(); @home[retval - arg0] = count() }";
  for (const std::string& probes : {by_return, by_call}) {
    CAPTURE(probes);
    const Outcome probed = run_probed(argv, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == plain.out);
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    const nlohmann::json wanders = row_of(summary, "wanders"), visits = row_of(summary, "visits");
    CHECK(wanders["entries"] == 2 * kTimes);
    CHECK(wanders["hits"] == 0);
    CHECK(wanders["left"] >= kTimes);
    CHECK(visits["entries"] == kTimes);
    CHECK(visits["hits"] == kTimes);
    CHECK(visits["left"] == 0);
    auto got = values(probed);
    for (long value = 0; value < kTimes; ++value) CHECK(got["@v[" + std::to_string(value + 4) + "]"] == 1);
    CHECK(got["@home[4]"] == (probes == by_call ? kTimes : 0));
  }
  // Without that, each takes it for its own.
  Outcome wrong = run(
      {.argv = argv, .env = {{"LD_PRELOAD", control("no_noted_places")}, {"UBP_PROBES", by_call}}, .preload = false});
  CHECK(wrong.end() == "exit 0");
  auto got = values(wrong);
  CHECK(got["@first[4]"] == kTimes);  // its argument is one less than that of the call that returns
  CHECK(got["@times[1]"] == kTimes);
}

// The words of the table that say so are all overwritten meanwhile.
TEST_CASE("returns_forget: where calls have been seen to move, what is not known to be a call's own is not") {
  for (const std::string kind : {"ur", "call"}) {
    const Outcome probed =
        run_probed({fixture("fx_moves"), "forget", "1"}, kind + ":wanders; ur:stays", {{"UBP_OPTIMIZE", "auto"}});
    CHECK(probed.end() == "exit 0");
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    CHECK(row_of(summary, "wanders")["entries"] == 2);
    CHECK(row_of(summary, "wanders")["hits"] == 0);
    CHECK(row_of(summary, "stays")["hits"] == 1 << 20);
  }
}

// What a child inherits is told apart by its parent's table, in which another task, here main's, has the child's
// number.
TEST_CASE("returns_wander_fork: a child returns from no call that another thread has noted") {
  constexpr long kTimes = 3;
  const std::vector<std::string> argv = {fixture("fx_moves"), "fork", std::to_string(kTimes)};
  const std::string probes = "call:forks { @[retval - arg0] = count() }";
  const Outcome probed = run_probed(argv, probes, {{"UBP_OPTIMIZE", "never"}});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.summaries.size() == 1 + kTimes);
  for (const auto& [pid, summary] : probed.summaries) {
    CHECK(adds_up(summary));
    CHECK(row_of(summary, "forks")["hits"] == 0);
  }
  const Outcome wrong = run(
      {.argv = argv, .env = {{"LD_PRELOAD", control("no_noted_places")}, {"UBP_PROBES", probes}}, .preload = false});
  CHECK(wrong.end() == "exit 0");
  CHECK(has_line(wrong.err, "@[6]: 1"));  // a child's: its argument is one less than that of the call that returns
}

}  // namespace ubp::test::returns_test
