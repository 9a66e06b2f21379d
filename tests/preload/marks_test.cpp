// Static marks in real processes: what their arguments are, whether the program learns that somebody listens, and what
// the marks of libc count.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::marks_test {

namespace {

Outcome marks(std::vector<std::string> words, const std::string& probes, Environment more = {}) {
  words.insert(words.begin(), fixture("fx_marks"));
  return run_probed(std::move(words), probes, std::move(more));
}

// "@v[usdt:fx_marks:form:reg_s1]: -16" -> {reg_s1: -16}
std::map<std::string, std::int64_t> values_by_mark(std::string_view text) {
  std::map<std::string, std::int64_t> values;
  for (const std::string& line : lines(text)) {
    if (line.rfind("@v[", 0) != 0) continue;
    const std::size_t end = line.find("]: ");
    const std::size_t begin = line.rfind(':', end) + 1;
    values[line.substr(begin, end - begin)] = std::stoll(line.substr(end + 3));
  }
  return values;
}

std::string times(int number) { return std::to_string(number); }

}  // namespace

TEST_CASE("mark_values: each form, size and sign of an argument is what the program gave") {
  const Outcome plain = run_plain({fixture("fx_marks"), "values"});
  const auto expected = numbers(plain.out);
  REQUIRE(expected.size() == 8 * 7 + 2);
  const Outcome probed = marks({"values"}, "usdt::form:* { @v[probe] = arg0 }");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == plain.out);
  CHECK(values_by_mark(probed.err) == expected);
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "hits") == expected.size());
}

TEST_CASE("mark_types: an argument is of its own size and sign") {
  const Outcome probed = marks({"values"},
                               "usdt::form:mem_s4 /arg0 < 0/ { @s4 = arg0; @size = sizeof(arg0) }"
                               "usdt::form:mem_u4 /arg0 > 0/ { @u4 = arg0 }"
                               "usdt::form:mem_u8 /arg0 > 0/ { @u8 = arg0 }"
                               "usdt::form:mem_u4, usdt::form:mem_s2 { @least = min(arg0) }");
  CHECK(has_line(probed.err, "@s4: -202182160"));
  CHECK(has_line(probed.err, "@size: 4"));
  CHECK(has_line(probed.err, "@u4: 4092785136"));
  CHECK(has_line(probed.err, "@u8: 17867739004052632048"));
  CHECK(has_line(probed.err, "@least: -3600"));
}

TEST_CASE("mark_arguments: 0 to 12 of them, and a mark beside a function") {
  const Outcome probed =
      marks({"many"},
            "usdt::many:m12 { printf(\"a %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld %ld\\n\", arg0, "
            "arg1, arg2, arg3, arg4, arg5, arg6, arg7, arg8, arg9, arg10, arg11) }"
            "usdt::many:m6 { printf(\"b %ld %ld\\n\", arg0, arg5) }"
            "usdt::many:m0 { @none = count() }"
            "usdt::many:m1, many { @first[probetype] = arg0 }");
  CHECK(probed.end() == "exit 0");
  std::string all = "a", some = "b";
  const auto expected = numbers(probed.out);
  for (int i = 0; i < 12; ++i) all += " " + std::to_string(expected.at("a" + times(i)));
  some += " " + std::to_string(expected.at("a0")) + " " + std::to_string(expected.at("a5"));
  CHECK(has_line(probed.err, all));
  CHECK(has_line(probed.err, some));
  CHECK(has_line(probed.err, "@none: 1"));
  CHECK(has_line(probed.err, "@first[usdt]: 1"));
  CHECK(count_prefix(probed.err, "@first[uprobe]: ") == 1);
}

TEST_CASE("mark_refused: arguments that are not there, or no integers") {
  const auto reason = [](const std::string& probes) {
    const Outcome probed = marks({"values"}, probes);
    CHECK(probed.end() == "exit 0");
    return probed.err;
  };
  const std::string number = reason("usdt::float:float { @ = arg0 }");
  CHECK(number.find("arg0 of float:float, '8f@%xmm0', is a floating-point value") != std::string::npos);
  CHECK(reason("usdt::float:float { @ = arg2 }").find("arg2: float:float has 2") != std::string::npos);
  CHECK(reason("usdt::float:float { @ = arg1 }").find("@: -7\n") != std::string::npos);
  // Of several the others are armed.
  const Outcome some = marks({"many"}, "usdt::many:* { @[probe] = arg1 }");
  CHECK(total(some.summary(), "refused") == 2);
  CHECK(total(some.summary(), "hits") == 3);
  CHECK(some.summary()["refusals"][0]["reason"].get<std::string>().rfind("no-argument: ", 0) == 0);
}

TEST_CASE("mark_unknown: the nearest one, and whether there are any") {
  const std::string misspelt = marks({"values"}, "usdt::place:thre { @ = count() }").err;
  CHECK(misspelt.find("no static mark 'place:thre' in ") != std::string::npos);
  CHECK(misspelt.find("did you mean 'place:three'?") != std::string::npos);
  const std::string other = marks({"values"}, "usdt::form:three").err;
  CHECK(other.find("did you mean 'place:three'") != std::string::npos);
  const std::string none = run_probed({fixture("fx_hello")}, "usdt::*").err;
  CHECK(none.find("fx_hello: there are none") != std::string::npos);
}

TEST_CASE("mark_places: all places of a mark, exactly, by traps and by jumps") {
  constexpr int kTimes = 20'000;
  const Outcome probed =
      marks({"places", times(kTimes)}, "usdt::place:three; usdt:*:thr?e { @n = count(); @s = sum(arg0) }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(hits(probed.summary(), "usdt::place:three") == 3 * kTimes);
  CHECK(has_line(probed.err, "@n: " + times(3 * kTimes)));
  CHECK(has_line(probed.err, "@s: " + times(111 * kTimes)));
  // Without one that is excluded.
  const Outcome some = marks({"places", "10"}, "usdt::*; !usdt::place:*");
  CHECK(total(some.summary(), "hits") == 0);
  CHECK(total(some.summary(), "probepoints_armed") > 60);
}

TEST_CASE("mark_semaphore: raised once for each probe that is armed, and nothing else is changed") {
  struct Case {
    std::string probes;
    int listening, hits;
  };
  for (const Case& c : {Case{"usdt::guard:guarded", 1, 1}, Case{"usdt::place:three", 0, 0},
                        Case{"usdt::guard:guarded; usdt:fx_marks:guarded { @[arg0] = count() }", 2, 2}}) {
    CAPTURE(c.probes);
    const Outcome probed = marks({"semaphore"}, c.probes);
    CHECK(probed.end() == "exit 0");
    const auto said = numbers(probed.out);
    CHECK(said.at("listening") == c.listening);
    CHECK(said.at("child") == c.listening);
    CHECK(said.at("after") == c.listening + 3);
    CHECK(total(probed.summary(), "hits") == static_cast<std::uint64_t>(c.hits));
  }
}

TEST_CASE("mark_threads: by several threads at once, exactly") {
  constexpr int kTimes = 20'000;
  const Outcome probed = marks({"threads", times(kTimes)},
                               "usdt::place:three { @n = count(); @s = sum(arg0); @by[tid] = count() }"
                               "usdt::guard:guarded { @guarded = count() }");
  CHECK(probed.end() == "exit 0");
  CHECK(adds_up(probed.summary()));
  CHECK(total(probed.summary(), "hits") == 4 * (3 * kTimes + 1));
  CHECK(total(probed.summary(), "missed") == 0);
  CHECK(has_line(probed.err, "@n: " + times(4 * 3 * kTimes)));
  CHECK(has_line(probed.err, "@s: " + times(4 * 111 * kTimes)));
  CHECK(has_line(probed.err, "@guarded: 4"));
  int threads = 0;
  for (const std::string& line : lines(probed.err))
    threads += line.starts_with("@by[") && line.ends_with("]: " + times(3 * kTimes)) ? 1 : 0;
  CHECK(threads == 4);
}

TEST_CASE("mark_semaphore_end: what others have counted is left when the process ends") {
  for (const std::string probes : {"usdt::guard:guarded", "usdt::guard:guarded; usdt::guard:guarded { @ = count() }"}) {
    CAPTURE(probes);
    const Outcome probed = marks({"end", fixture("libfx_mark_plugin.so")}, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(numbers(probed.out).at("before") == (probes.find('{') == std::string::npos ? 4 : 5));
    CHECK(numbers(probed.out).at("end") == 3);
  }
}

TEST_CASE("mark_check: ubp check says what is wrong with a mark, and runs nothing") {
  const std::string program = fixture("fx_marks");
  const auto check = [&](const std::string& text) {
    return run({.argv = {command_path(), "check", "-e", text, "--", program, "values"}, .preload = false});
  };
  const Outcome good = check("usdt:" + program + ":form:reg_s1 { @ = arg0 }");
  CAPTURE(good.out);
  CHECK(good.end() == "exit 0");
  CHECK(count_prefix(good.out, "int3  fx_marks!forms_global_s1+0x") == 1);
  CHECK(good.out.find("-16") == std::string::npos);  // it has not run
  const Outcome absent = check("usdt:" + program + ":form:nothing { @ = arg0 }");
  CHECK(absent.end() == "exit 1");
  CHECK(absent.err.find("stdin:1:1-") != std::string::npos);
  CHECK(absent.err.find("ERROR: No matches for usdt " + program + ":form:nothing.") != std::string::npos);
  const Outcome floating = check("usdt:" + program + ":float:float { @ = arg0 }");
  CHECK(floating.end() == "exit 1");
  CHECK(floating.err.find("arg0 of float:float, '8f@%xmm0', is a floating-point value") != std::string::npos);
}

TEST_CASE("mark_library: of one that is loaded later, again and again") {
  constexpr int kTimes = 50;
  const std::string library = fixture("libfx_mark_plugin.so");
  const std::string probes = "usdt:libfx_mark_plugin:plugin:passed [missing=pending] { @n = count(); @s = sum(arg0) }";
  const Outcome probed = marks({"library", library, times(kTimes)}, probes);
  CHECK(probed.end() == "exit 0");
  const auto said = numbers(probed.out);
  CHECK(said.at("passed") == kTimes);  // each time, one was listening
  CHECK(has_line(probed.err, "@n: " + times(kTimes)));
  CHECK(has_line(probed.err, "@s: " + std::to_string(said.at("sum"))));
  CHECK(numbers(run_plain({fixture("fx_marks"), "library", library, "3"}).out).at("passed") == 0);
}

TEST_CASE("mark_programs: python's and libstdc++'s marks count what is done") {
  constexpr int kTimes = 300;
  const std::string script =
      "def inner(n): return n\n"
      "def outer(n): return inner(n) + inner(n)\n"
      "print('sum', sum(outer(n) for n in range(" +
      times(kTimes) + ")))";
  const std::vector<std::string> words{"/usr/bin/python3", "-S", "-c", script};
  const Outcome plain = run_plain(words);
  const Outcome python =
      run_probed(words,
                 "usdt::python:function__return /str(arg1) == \"inner\"/ { @in = count() }"
                 "usdt::python:function__return /str(arg1) == \"outer\"/ { @out[str(arg0)] = count() }"
                 "usdt::python:function__* { @lines = max(arg2) }");
  if (plain.end() != "exit 0" || python.err.find("no static mark") != std::string::npos) {
    MESSAGE("skipped: there is no python3, or one without marks");
  } else {
    CHECK(python.end() == "exit 0");
    CHECK(python.out == plain.out);
    CHECK(has_line(python.err, "@in: " + times(2 * kTimes)));
    CHECK(has_line(python.err, "@out[<string>]: " + times(kTimes)));
    CHECK(adds_up(python.summary()));
  }
  const Outcome thrown =
      run_probed({fixture("fx_throw"), "t", times(kTimes)},
                 "usdt:libstdc++:throw { @thrown = count() } usdt:libstdc++:catch { @caught = count() }");
  if (thrown.err.find("no static mark") != std::string::npos) {
    MESSAGE("skipped: this libstdc++ has no marks");
    return;
  }
  CHECK(thrown.end() == "exit 0");
  const std::string caught = std::to_string(numbers(thrown.out).at("caught"));
  CHECK(has_line(thrown.err, "@thrown: " + caught));
  CHECK(has_line(thrown.err, "@caught: " + caught));
}

}  // namespace ubp::test::marks_test
