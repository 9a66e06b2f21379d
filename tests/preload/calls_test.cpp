// Probes at calls: what is kept of them from the entry on, how long they take, and how they are within each other.
#include <doctest/doctest.h>

#include <cstdlib>

#include "harness.h"

namespace ubp::test::calls_test {
namespace {

// "@n[down]: 3" -> {"@n[down]", 3}; "@n: 3" -> {"@n", 3}
std::map<std::string, std::int64_t> numbers_of_maps(const std::string& text) {
  std::map<std::string, std::int64_t> numbers;
  for (const std::string& line : lines(text)) {
    const std::size_t colon = line.rfind(": ");
    if (line.starts_with('@') && colon != std::string::npos)
      numbers[line.substr(0, colon)] = std::stoll(line.substr(colon + 2));
  }
  return numbers;
}

Outcome run_calls(const std::string& mode, const std::string& probes, long times = 1, Environment more = {}) {
  return run_probed({fixture("fx_calls"), mode, std::to_string(times)}, probes, std::move(more));
}

constexpr long kMillisecond = 1'000'000;

}  // namespace

TEST_CASE("calls_arguments: those of the entry, though their registers were written to") {
  const Outcome probed =
      run_calls("values",
                "call:takes /arg5 == 6/ { printf(\"%s %d %d %d %d %d %d = %d\\n\", func, arg0, arg1, arg2, "
                "arg3, arg4, arg5, retval); print(reg(\"di\")) }"
                "ur:takes { print(reg(\"di\") + reg(\"r9\")) }"
                "call:takes /arg0 == 0/ { print(\"never\") }");
  CHECK(probed.end() == "exit 0");
  CHECK(has_line(probed.err, "takes 1 2 3 4 5 6 = 654321"));
  CHECK(has_line(probed.err, "1"));
  CHECK(has_line(probed.err, "0"));
  CHECK_FALSE(has_line(probed.err, "never"));
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  CHECK(total(summary, "filtered") == 1);
}

TEST_CASE("calls_arguments_recursion: each call has its own") {
  const Outcome probed = run_calls("values", "call:recurses { @[arg0] = sum(retval); @depth[arg0] = sum(depth) }");
  const auto got = numbers_of_maps(probed.err);
  for (long n = 0; n <= 5; ++n) {
    CAPTURE(n);
    CHECK(got.at("@[" + std::to_string(n) + "]") == n);
    CHECK(got.at("@depth[" + std::to_string(n) + "]") == 5 - n);
  }
}

TEST_CASE("calls_times: a sleep is in what is elapsed, and not the own time of who calls it") {
  const Outcome probed =
      run_probed({fixture("fx_calls"), "values", "1", "400"},  // ms: longer than others may hold the processor
                 "call:outer, call:sleeps, call:jumps_on, call:inner, call:leaf"
                 " { @e[func, arg0] = sum(elapsed); @s[func, arg0] = sum(self); @d[func, arg0] = max(depth) }");
  CHECK(probed.end() == "exit 0");
  auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@e[sleeps, 400]") >= 2 * 400 * kMillisecond);  // called twice
  CHECK(got.at("@e[sleeps, 400]") == got.at("@s[sleeps, 400]"));
  CHECK(got.at("@e[outer, 10]") >= 400 * kMillisecond);
  CHECK(got.at("@s[outer, 10]") < 200 * kMillisecond);
  CHECK(got.at("@e[jumps_on, 400]") >= 400 * kMillisecond);
  CHECK(got.at("@s[jumps_on, 400]") < 200 * kMillisecond);
  CHECK(got.at("@d[outer, 10]") == 0);
  CHECK(got.at("@d[inner, 10]") == 1);
  CHECK(got.at("@d[leaf, 10]") == 2);
  CHECK(got.at("@d[leaf, 77]") == 1);
  CHECK(got.at("@d[sleeps, 400]") == 1);
  // To the nanosecond.
  std::int64_t within = 0;
  for (const std::string name :
       {"inner, 10", "leaf, 10", "leaf, 11", "leaf, 77", "outer, 10", "sleeps, 400", "jumps_on, 400"})
    within += got.at("@s[" + name + "]");
  CHECK(within == got.at("@e[outer, 10]") + got.at("@e[jumps_on, 400]"));
}

TEST_CASE("calls_net: what the probes take is taken off, and the own times are still the outermost ones'") {
  struct Times {
    std::int64_t least, self, outermost;
  };
  const auto times_of = [](const std::string& optimize, const std::string& config) {
    const Outcome probed = run_calls("again",
                                     config +
                                         "call:recurses, call:leaf { @self = sum(self);"
                                         " if (depth == 0) { @least = min(elapsed); @outermost = sum(elapsed) } }"
                                         "call:leaf { @leaves = count() }",
                                     400, {{"UBP_OPTIMIZE", optimize}});
    CHECK(probed.end() == "exit 0");
    CHECK(adds_up(probed.summary()));
    const auto got = numbers_of_maps(probed.err);
    CHECK(got.at("@leaves") == 400 * 11);
    return Times{got.at("@least"), got.at("@self"), got.at("@outermost")};
  };
  // recurses(10): 22 calls. In the quickest of 400, whatever else the processor does.
  for (const std::string optimize : {"never", "always"}) {
    CAPTURE(optimize);
    const Times all = times_of(optimize, ""), net = times_of(optimize, "config = { count_probe_time = false }");
    CHECK(all.self == all.outermost);
    CHECK(net.self == net.outermost);
    CHECK(net.least < (optimize == "never" ? all.least / 2 : all.least));
  }
}

TEST_CASE("calls_exact: the own times of all calls are the time of the outermost ones, to the nanosecond") {
  const auto check = [](const char* program, const char* mode, long times, const char* outermost = "depth == 0") {
    CAPTURE(program);
    CAPTURE(mode);
    const Outcome probed = run_probed({fixture(program), mode, std::to_string(times)},
                                      "call:* { @n = count(); @self = sum(self); @all = sum(elapsed) } call:* /" +
                                          std::string(outermost) + "/ { @outermost = sum(elapsed) }");
    CHECK(probed.end() == "exit 0");
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    CHECK(total(summary, "missed") <= 4);  // what the compiler adds jumps away by a register
    const auto got = numbers_of_maps(probed.err);
    CHECK(got.at("@n") > times);
    CHECK(got.at("@outermost") > 0);
    CHECK(got.at("@self") == got.at("@outermost"));
    CHECK(got.at("@all") > got.at("@outermost"));
  };
  check("fx_calls", "values", 1);
  check("fx_calls", "threads", 300);
  check("fx_calls", "longjmp", 300);
  check("fx_returns", "assembler", 100);
  check("fx_returns", "exceptions", 500);
  check("fx_returns", "longjmp", 500);
  check("fx_returns", "threads", 300);
}

TEST_CASE("calls_coroutines: those that run by turns are not within each other, and take no time off twice") {
  const Outcome probed =
      run_probed({fixture("fx_returns"), "coroutines", "60"},
                 "call:* { @n[func] = count(); @ = min((int64)(elapsed - self)); @s[func] = sum(self) }"
                 "call:main { @main = sum(elapsed) } call:* /self > elapsed/ { @wrong = count() }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  const auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@n[yields]") == 20 * 60);
  CHECK_FALSE(got.contains("@wrong"));
  // What runs on the first stack: coroutines() but for its own calls.
  CHECK(got.at("@s[down]") < got.at("@main"));
}

TEST_CASE("calls_left: a call that was left counts so, and its time is its caller's") {
  constexpr long kTimes = 100;
  const Outcome probed = run_calls("longjmp",
                                   "call:jumps_out, call:comes_back, call:leaf { @n[func] = count(); @s = sum(self); "
                                   "if (depth == 0) { @outer = sum(elapsed) } }",
                                   kTimes);
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  const auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@n[comes_back]") == kTimes);
  CHECK(got.at("@n[leaf]") == 7 * kTimes);
  CHECK_FALSE(got.contains("@n[jumps_out]"));
  CHECK(got.at("@s") == got.at("@outer"));
  for (const auto& row : summary["probes"]) {
    CHECK(row["kind"] == "call");
    if (row["symbol"] != "jumps_out") continue;
    CHECK(row["entries"] == 6 * kTimes);
    CHECK(row["left"] == 6 * kTimes);
    CHECK(row["hits"] == 0);
  }
}

TEST_CASE("calls_bare: without a block returns are counted, and the report says so") {
  const Outcome probed = run_calls("many", "call:leaf; call:outer; leaf", 50);
  CHECK(probed.end() == "exit 0");
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  CHECK(hits(summary, "call:leaf") == 50);
  CHECK(hits(summary, "leaf") == 50);
  CHECK(hits(summary, "call:outer") == 0);
}

TEST_CASE("calls_fork: a child returns from the calls that its parent was in, with their times and arguments") {
  const Outcome probed =
      run_calls("fork",
                "call:forks, call:leaf { printf(\"%s %d %d %d\\n\", func, arg0, depth, retval); if (elapsed == 0) { "
                "print(\"none\") } if (self > elapsed) { print(\"wrong\") } }");
  CHECK(probed.end() == "exit 0");
  REQUIRE(probed.summaries.size() == 2);
  for (const auto& [pid, summary] : probed.summaries) CHECK(adds_up(summary));
  CHECK(has_line(probed.err, "forks 7 0 7"));
  CHECK(has_line(probed.err, "forks 7 0 0"));  // the child's
  CHECK(count_prefix(probed.err, "leaf 7 1 8") == 2);
  CHECK_FALSE(has_line(probed.err, "none"));
  CHECK_FALSE(has_line(probed.err, "wrong"));
}

TEST_CASE("calls_vfork: vfork's two returns have the time up to each") {
  const Outcome probed =
      run_probed({fixture("fx_returns"), "vfork"},
                 "call:libc:vfork { @[retval == 0 ? 0 : 1] = sum(elapsed) } call:elsewhere { @n = count() }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  const auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@n") == 1);
  CHECK(got.at("@[0]") > 0);
  CHECK(got.at("@[1]") > got.at("@[0]"));
}

TEST_CASE("calls_libraries: in libc, and beside returns and entries of the same functions") {
  const Outcome probed = run_calls("values",
                                   "call:libc:nanosleep { @ns = sum(elapsed); @n = max(elapsed) }"
                                   "ur:libc:nanosleep { @r = count() } libc:nanosleep { @e = count() }"
                                   "call:sleeps { @outer = max(elapsed) }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  const auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@ns") >= 40 * kMillisecond);
  CHECK(got.at("@r") == got.at("@e"));
  CHECK(got.at("@n") >= 20 * kMillisecond);
  CHECK(got.at("@outer") > got.at("@n") - kMillisecond);
}

TEST_CASE("calls_elapsed_elsewhere: without call: it is the time since the program began") {
  const Outcome probed =
      run_calls("values", "outer { @a = elapsed } call:outer { @b = elapsed } begin { @c = elapsed }");
  CHECK(probed.end() == "exit 0");
  const auto got = numbers_of_maps(probed.err);
  CHECK(got.at("@a") > 0);
  CHECK(got.at("@b") >= 20 * kMillisecond);
}

TEST_CASE("calls_run: the same under ubp run, with a histogram, and arguments by their names") {
  const std::string ubp = command_path();
  const auto ubp_run = [&](const std::string& program, const std::vector<std::string>& command) {
    std::vector<std::string> argv{ubp, "run", "-e", program, "--"};
    argv.insert(argv.end(), command.begin(), command.end());
    return run({.argv = argv, .env = {}, .preload = false, .timeout_s = 60});
  };
  const Outcome histogram =
      ubp_run("call:" + fixture("fx_calls") + ":sleeps { @ns[comm] = hist(elapsed); @n = count() }",
              {fixture("fx_calls"), "values"});
  CAPTURE(histogram.err);
  CHECK(has_line(histogram.out, "@ns[fx_calls]:"));
  CHECK(histogram.out.find("M, ") != std::string::npos);  // ms
  CHECK(has_line(histogram.out, "@n: 2"));
  for (const std::string level : {"fx_source0", "fx_source2"}) {
    const Outcome named =
        ubp_run("call:" + fixture(level) +
                    ":numbers { printf(\"%d %d %s %d %d\\n\", args.a, args.c, str(args.text), args.g, depth) }",
                {fixture(level)});
    CAPTURE(named.err);
    CHECK(has_line(named.out, "-1 -100000 text -6 0"));
  }
}

}  // namespace ubp::test::calls_test
