// Programs in UBP_PROBES, in real processes: exact counts and maps on several threads, by traps and by jumps.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::program_test {

namespace {

// The lines that do not begin with "ubp:": what programs have printed.
std::string printed(const Outcome& outcome) {
  std::string text;
  for (const std::string& line : lines(outcome.err)) {
    if (line.rfind("ubp:", 0) != 0 && !line.empty()) text += line + '\n';
  }
  return text;
}

constexpr std::uint64_t kThreads = 4;

Outcome count_on_threads(const std::string& probes, std::uint64_t calls, Environment more = {}) {
  return run_probed({fixture("fx_count"), std::to_string(kThreads), std::to_string(calls)}, probes, std::move(more));
}

}  // namespace

TEST_CASE("program_exact: what several threads count in maps is what they hit") {
  const std::uint64_t calls = long_run() ? 1'000'000 : 20'000;
  const std::string all = std::to_string(calls * kThreads);
  const Outcome plain = run_plain({fixture("fx_count"), std::to_string(kThreads), std::to_string(calls)});
  const Outcome probed = count_on_threads(
      "f { @n++; @c = count(); @by[tid] = count(); @k[arg0 & 3]++; @s = stats(1); @h = hist(arg0) }", calls);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);
  CHECK(hits(probed.summary(), "f") == calls * kThreads);
  CHECK(total(probed.summary(), "recorded") == calls * kThreads);
  CHECK(adds_up(probed.summary()));
  const std::string text = printed(probed);
  CAPTURE(text);
  CHECK(text.find("@n: " + all + "\n") != std::string::npos);
  CHECK(text.find("@c: " + all + "\n") != std::string::npos);
  CHECK(text.find("@s: { .count = " + all + ", .average = 1, .total = " + all + " }\n") != std::string::npos);
  CHECK(count_prefix(text, "@by[") == static_cast<int>(kThreads));
  std::uint64_t keyed = 0, buckets = 0;
  for (const std::string& line : lines(text)) {
    if (line.rfind("@by[", 0) == 0) CHECK(line.substr(line.find("]: ") + 3) == std::to_string(calls));
    if (line.rfind("@k[", 0) == 0) keyed += std::stoull(line.substr(line.find("]: ") + 3));
    if (line.rfind('[', 0) == 0) buckets += std::stoull(line.substr(16, 8));
  }
  CHECK(keyed == calls * kThreads);
  CHECK(buckets == calls * kThreads);
}

TEST_CASE("program_filter: hits = recorded + filtered, and a block that none passes records nothing") {
  constexpr std::uint64_t kCalls = 10'000;
  const Outcome probed = count_on_threads("f /arg0 % 2 == 0/; f /tid == 0/ { @ = count() }", kCalls);
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "hits") == 2 * kCalls * kThreads);
  CHECK(total(probed.summary(), "filtered") > kCalls * kThreads);
  CHECK(total(probed.summary(), "recorded") + total(probed.summary(), "filtered") == 2 * kCalls * kThreads);
  CHECK(printed(probed).empty());
  // Without the filter all are recorded.
  CHECK(total(count_on_threads("f { }", kCalls).summary(), "recorded") == kCalls * kThreads);
}

// The argument of f is pseudo-random, the same in each thread.
TEST_CASE("program_shortcut: what a detour decides and counts by itself is what the program does at a trap") {
  constexpr std::uint64_t kCalls = 2'000;
  for (const char* program :
       {"f /arg0 % 4 == 1/ { @ = count() }", "f /arg0 > 5000000 && arg0 < 9000000 || arg0 == 0/ { @ = sum(arg0) }",
        "f /!(arg0 & 6) || (int16)arg0 > 20000/ { @ = hist(arg0) }", "f /(arg0 ^ arg1) >> 3 > arg0/ { @n++ }",
        "f /(int8)arg0 < -100 && arg0 * 77 % 16 != 3/", "f { @ = hist(arg0) }", "f { @ = hist((int32)arg0 - 8000000) }",
        "f { @ = sum((int16)arg0) }", "f { @ = count() }", "f /1/ { @ = count() }", "f /0/ { @ = count() }",
        "f /arg0 < 0x123456789abc/ { @ = sum(arg0 | 0x100000000000) }"}) {
    CAPTURE(program);
    const Outcome trapped = count_on_threads(program, kCalls, {{"UBP_OPTIMIZE", "never"}});
    const Outcome jumped = count_on_threads(program, kCalls, {{"UBP_OPTIMIZE", "always"}});
    for (const Outcome* outcome : {&trapped, &jumped}) {
      CHECK(outcome->end() == "exit 0");
      CHECK(adds_up(outcome->summary()));
      CHECK(total(outcome->summary(), "hits") == kCalls * kThreads);
    }
    CHECK(jumped.summary()["optimised"]["hits"].get<std::uint64_t>() >= (kCalls - 1) * kThreads);
    for (const char* what : {"recorded", "filtered"})
      CHECK(total(jumped.summary(), what) == total(trapped.summary(), what));
    CHECK(printed(jumped) == printed(trapped));
    CHECK(total(trapped.summary(), "recorded") + total(trapped.summary(), "filtered") == kCalls * kThreads);
  }
}

TEST_CASE("program_shards: more threads than have cells of their own lose nothing") {
  constexpr std::uint64_t kMany = 100, kCalls = 3'000;
  const std::string all = std::to_string(kMany * kCalls);
  for (const char* clears : {"", "end { clear(@never); zero(@c) }"}) {
    CAPTURE(clears);
    const Outcome probed =
        run_probed({fixture("fx_count"), std::to_string(kMany), std::to_string(kCalls)},
                   std::string("f { @c = count() }; f { @s = sum(1); @by[arg0 & 1] = count(); @m = max(1); "
                               "@a = avg(3); @never = count() } end { print((@c, @s, @a)) }") +
                       clears);
    CHECK(probed.end() == "exit 0");
    CHECK(adds_up(probed.summary()));
    const std::string text = printed(probed);
    CAPTURE(text);
    CHECK(text.find("(" + all + ", " + all + ", 3)\n") != std::string::npos);
  }
}

TEST_CASE("program_dropped: events beyond the room for them are counted, and the others printed") {
  constexpr std::uint64_t kCalls = 300'000;
  const Outcome probed = count_on_threads(
      "f { printf(\"%ld %s\\n\", arg0, \"a text that makes each event longer, so that the memory for them ends\") }",
      kCalls);
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  const std::uint64_t dropped = total(probed.summary(), "dropped");
  CHECK(dropped > 0);
  CHECK(total(probed.summary(), "recorded") == kCalls * kThreads - dropped);
  CHECK(lines(printed(probed)).size() == kCalls * kThreads - dropped);
}

TEST_CASE("program_mixed: programs beside bare targets, begin, end, and what is printed where") {
  const Outcome probed = run_probed({fixture("fx_hello")},
                                    "begin { printf(\"first\\n\") }\n"
                                    "compute { printf(\"%s %s\\n\", probe, func) }\n"
                                    "compute\n"
                                    "end { printf(\"last\\n\") }");
  CHECK(probed.end() == "exit 7");
  CHECK(probed.out == run_plain({fixture("fx_hello")}).out);
  CHECK(printed(probed).find("first\nuprobe:fx_hello:compute compute\nuprobe:fx_hello:compute compute\nlast\n") !=
        std::string::npos);
  CHECK(total(probed.summary(), "hits") == 4);
  CHECK(total(probed.summary(), "probes_requested") == 2);
}

TEST_CASE("program_exit: exit() closes the gate for good, and the program goes on") {
  constexpr std::uint64_t kCalls = 20'000;
  const Outcome probed = count_on_threads("f { @n++; if (@n >= 100) { exit() } } end { print(\"end\") }", kCalls);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == run_plain({fixture("fx_count"), "4", std::to_string(kCalls)}).out);
  CHECK(adds_up(probed.summary()));
  const std::string text = printed(probed);
  CAPTURE(text);
  CHECK(text.find("end\n") != std::string::npos);
  const std::size_t at = text.find("@n: ");
  REQUIRE(at != std::string::npos);
  const std::uint64_t counted = std::stoull(text.substr(at + 4));
  CHECK(counted >= 100);
  CHECK(counted < 100 + kThreads);
  CHECK(total(probed.summary(), "recorded") == counted);
  // In begin: nothing is armed at all.
  const Outcome none = count_on_threads("begin { exit() } f { @n++ }", 10);
  CHECK(none.end() == "exit 0");
  CHECK(total(none.summary(), "probepoints_armed") == 0);
}

TEST_CASE("program_fork: a child has maps of its own, empty at first") {
  for (const std::string how : {"fork", "clone"}) {
    CAPTURE(how);
    const Outcome probed = run_probed({fixture("fx_fork"), how, "50", "3", "5", "7", "exit"},
                                      "cycle_* { @all++; @c = count(); @by[func] = count(); @s[func] = probe }");
    CHECK(probed.end() == "exit 0");
    const std::string text = printed(probed);
    CAPTURE(text);
    CHECK(text.find("@all: 400\n") != std::string::npos);  // 50 functions, 3 + 5 calls; 7 in the child
    CHECK(text.find("@c: 400\n") != std::string::npos);
    CHECK(text.find("@by[cycle_7]: 8\n") != std::string::npos);
    CHECK(text.find("@all: 350\n") != std::string::npos);
    CHECK(text.find("@c: 350\n") != std::string::npos);
    CHECK(text.find("@by[cycle_7]: 7\n") != std::string::npos);
    CHECK(text.find("@s[cycle_7]: uprobe:fx_fork:cycle_7\n") != std::string::npos);
    CHECK(probed.summaries.size() == 2);
    for (const auto& [pid, summary] : probed.summaries) CHECK(adds_up(summary));
  }
}

TEST_CASE("program_arguments: registers are those of the hit, by trap and by jump") {
  const Outcome probed =
      run_probed({fixture("fx_count"), "1", "1000"},
                 "f { @a = sum(arg0); @b = sum(reg(\"di\")); @i = max(reg(\"ip\")); @j = min(reg(\"ip\")); "
                 "@s = count(); if (reg(\"sp\") % 16 == 8) { @aligned = count() } }");
  const std::string text = printed(probed);
  CAPTURE(text);
  const auto value = [&](const std::string& map) {
    const std::size_t at = text.find(map + ": ");
    return at != std::string::npos ? std::stoull(text.substr(at + map.size() + 2)) : 0;
  };
  std::uint64_t sum = 0, argument = 0;
  for (int i = 0; i < 1000; ++i) {
    sum += argument;
    argument = (argument * 3 + 1) & 0xffffff;
  }
  CHECK(value("@a") == sum);
  CHECK(value("@b") == sum);
  CHECK(value("@i") == value("@j"));
  CHECK(value("@i") != 0);
  CHECK(value("@s") == 1000);
  CHECK(value("@aligned") == 1000);
}

TEST_CASE("program_mistakes: one arms nothing, and is said with its place, line and marker") {
  const Outcome probed = run_probed({fixture("fx_hello")}, "compute { @ = count() }\ncompute { print($x); f() }");
  CHECK(probed.end() == "exit 7");
  CHECK(total(probed.summary(), "probepoints_armed") == 0);
  CHECK(probed.err.find("ubp: error: UBP_PROBES:2:17-19: Undefined or undeclared variable: $x; nothing is probed\n"
                        "ubp:   compute { print($x); f() }\n"
                        "ubp:                   ~~\n"
                        "ubp: error: UBP_PROBES:2:22-25: Unknown function: 'f'\n") != std::string::npos);
}

TEST_CASE("program_twice: a block of two attach points at one address runs for each, under each one's name") {
  constexpr std::uint64_t kCalls = 5'000;
  const std::string all = std::to_string(kCalls * kThreads), both = std::to_string(2 * kCalls * kThreads);
  const Outcome twice = count_on_threads("f, *count:f { @n++; @by[probe] = count() }", kCalls);
  CHECK(twice.end() == "exit 0");
  CHECK(total(twice.summary(), "hits") == 2 * kCalls * kThreads);
  CHECK(total(twice.summary(), "recorded") == 2 * kCalls * kThreads);
  CHECK(adds_up(twice.summary()));
  const std::string text = printed(twice);
  CAPTURE(text);
  CHECK(text.find("@n: " + both + "\n") != std::string::npos);
  CHECK(text.find("@by[uprobe:*count:f]: " + all + "\n") != std::string::npos);
  CHECK(count_prefix(text, "@by[") == 2);
}

TEST_CASE("program_missing: what is not found is an error, a warning, or nothing, as the program says") {
  constexpr std::uint64_t kCalls = 100;
  const std::string program = "f { @n++ } no_such_function { @never++ }";
  const Outcome strict = count_on_threads(program, kCalls);
  CHECK(strict.err.find("no_such_function") != std::string::npos);
  CHECK(printed(strict).empty());
  for (const std::string how : {"warn", "ignore"}) {
    CAPTURE(how);
    const Outcome probed = count_on_threads("config = { missing_probes = " + how + " } " + program, kCalls);
    CHECK(printed(probed) == "@n: " + std::to_string(kCalls * kThreads) + "\n");
    CHECK((probed.err.find("ubp: warning: ") != std::string::npos) == (how == "warn"));
  }
}

}  // namespace ubp::test::program_test
