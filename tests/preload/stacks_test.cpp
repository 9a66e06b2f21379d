// ustack(), usym(): who called, in every mode of theirs, by traps and by jumps, and when the process is gone.
#include <doctest/doctest.h>

#include <cstdlib>
#include <regex>
#include <set>
#include <utility>

#include "harness.h"

namespace ubp::test::stacks_test {

namespace {

using Words = std::vector<std::string>;

// What it prints under a program, without the command's own line.
std::string output(const std::string& program, const Words& more = {}, const std::string& optimize = "never",
                   const std::string& name = "fx_walk") {
  const std::string ubp = command_path();
  Words all{ubp, "run", "-e", program, "--", fixture(name)};
  all.insert(all.end(), more.begin(), more.end());
  const Outcome outcome =
      run({.argv = std::move(all), .env = {{"UBP_OPTIMIZE", optimize}}, .preload = false, .timeout_s = 60});
  CAPTURE(outcome.err);
  CHECK((outcome.end() == "exit 0" || more.size() > 1));
  return outcome.out;
}

void check_output(const std::string& text, const std::string& pattern) {
  CAPTURE(text);
  CHECK(std::regex_search(text, std::regex(pattern)));
}

const std::string kInner = "uprobe:" + fixture("fx_walk") + ":inner";
const std::string kFrame = "\n        ", kOffset = "\\+[0-9]+";

}  // namespace

TEST_CASE("stacks_text: calls, a signal's handler and libc's own, by traps and by jumps") {
  const std::string calls = kFrame + "inner\\+0" + kFrame + "middle" + kOffset + kFrame + "outer" + kOffset + kFrame;
  for (const char* const optimize : {"never", "auto", "always"}) {
    CAPTURE(optimize);
    const std::string text = output(kInner + " { @[ustack] = count(); @frames = max(len(ustack)) }", {}, optimize);
    check_output(text, "@\\[" + calls + "main" + kOffset + kFrame + "(.*\n)*?\\]: 1\n");
    check_output(text, "@\\[" + calls + "handler" + kOffset + kFrame + "(.*\n)*?" + kFrame.substr(1) + "main" +
                           kOffset + kFrame + "(.*\n)*?\\]: 1\n");
    check_output(text,
                 "@\\[" + calls + "compare" + kOffset + kFrame + "(.*\n)*?" + kFrame.substr(1) + "main" + kOffset);
    check_output(text, "@frames: [0-9]+\n");
    CHECK(text.find("failure") == std::string::npos);
    // As many frames as are asked for.
    const std::string two = output(kInner + " { @[ustack(2)] = count() }", {}, optimize);
    check_output(two, "^(.*\n)*@\\[" + kFrame + "inner\\+0" + kFrame + "middle" + kOffset + "\n\\]: 4\n$");
  }
}

TEST_CASE("stacks_everywhere: the caller is the same at each instruction of a function") {
  for (const char* const optimize : {"never", "always"}) {
    for (const auto& [function, caller] : {std::pair("inner", "middle"), {"middle", "outer"}}) {
      CAPTURE(optimize);
      CAPTURE(function);
      const std::string text = output(
          std::string("insn:") + fixture("fx_walk") + ":" + function + " { @[ustack(2)] = count() }", {}, optimize);
      std::set<std::string> instructions, callers;
      const std::vector<std::string> all = lines(text);
      for (std::size_t i = 0; i + 2 < all.size(); ++i) {
        if (all[i] != "@[") continue;
        instructions.insert(all[i + 1]);
        callers.insert(all[i + 2]);
      }
      CAPTURE(text);
      CHECK(instructions.size() >= 2);
      REQUIRE(callers.size() == 1);
      check_output(*callers.begin(), std::string("^        ") + caller + kOffset + "$");
    }
  }
}

TEST_CASE("stacks_modes: perf, raw, build_id, and by a setting") {
  const std::string perf = output(kInner + " { printf(\"%s|\", ustack(perf, 2)) }");
  check_output(perf,
               "\n\t[0-9a-f]+ inner\\+0 \\(/.*/fx_walk\\)\n\t[0-9a-f]+ middle" + kOffset + " \\(/.*/fx_walk\\)\n\\|");
  check_output(output("config = { stack_mode = raw } " + kInner + " { print(ustack(2)) }"),
               "\n[0-9a-f]+\n[0-9a-f]+\n\n");
  check_output(output(kInner + " { print(ustack(build_id, 1)) }"), "\n[0-9a-f]{40} 0x[0-9a-f]+\n\n");
  check_output(output(kInner + " { print((usym(reg(\"ip\")), usym(1), ustack(0))) }"), "\\(inner, 0x1, \n\\)\n");
  check_output(output("begin { print(ustack); @ = len(ustack) }"), "@: 0\n");
}

TEST_CASE("stacks_later: modules that come later have names, and the dead have theirs") {
  const std::string plugin = fixture("libfx_plugin.so");
  const std::string program = "uprobe:" + plugin + ":plugin_work { @[ustack(2)] = count() } " + kInner +
                              " { @inner[ustack(perf, 1)] = count() }";
  for (const bool is_killed : {false, true}) {
    CAPTURE(is_killed);
    const std::string text = output(program, is_killed ? Words{plugin, "kill"} : Words{plugin});
    check_output(text, "@\\[" + kFrame + "plugin_work\\+0" + kFrame + "main" + kOffset + "\n\\]: 1\n");
    check_output(text, "@inner\\[\n\t[0-9a-f]+ inner\\+0 \\(/.*/fx_walk\\)\n\\]: 4\n");
  }
}

TEST_CASE("stacks_preloaded: a report has them, too") {
  const Outcome outcome = run_probed({fixture("fx_walk")}, "inner { @[ustack(2), usym(reg(\"ip\"))] = count() }");
  CHECK(outcome.end() == "exit 0");
  check_output(outcome.err, "@\\[" + kFrame + "inner\\+0" + kFrame + "middle" + kOffset + "\n, inner\\]: 4\n");
}

TEST_CASE("stacks_source: frames have lines, and what is inlined in them, where there is debug information") {
  auto said = numbers(run_plain({fixture("fx_lines2")}).out);
  const std::string line = std::to_string(said["header"]);
  const std::string probe = "uprobe:" + fixture("fx_lines2") + "@fx_lines.h:" + line + " { print(ustack(";
  const std::string header = "@/.*/fx_lines\\.h:" + line;
  const std::string source = "@/.*/fx_lines\\.c:[0-9]+";
  const auto lines_of = [&](const std::string& program) { return output(program, {}, "never", "fx_lines2"); };
  check_output(lines_of(probe + "2)); exit() }"), kFrame + "\\[inlined\\] twice" + header + kFrame + "both" + kOffset +
                                                      source + kFrame + "main" + kOffset + source + "\n");
  check_output(lines_of(probe + "perf, 1)); exit() }"),
               "\n\t[0-9a-f]+ twice \\(inlined\\)\n\t[0-9a-f]+ both" + kOffset + " \\(/.*/fx_lines2\\)\n");
  check_output(lines_of("config = { show_debug_info = 0 } " + probe + "2)); exit() }"),
               kFrame + "both" + kOffset + kFrame + "main" + kOffset + "\n");
}

}  // namespace ubp::test::stacks_test
