// Statements, source lines and inlined instances, by debug information: which places there are, and how often they are
// hit; and what is said where there are none.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <sstream>

#include "harness.h"

namespace ubp::test::lines_test {

namespace {

constexpr const char* kLineLevels[] = {"fx_lines0", "fx_lines2"};

Outcome run_lines(const std::string& program, const std::string& command) {
  const std::string ubp = command_path();
  return run({.argv = {ubp, "run", "-e", program, "--", command}, .env = {}, .preload = false, .timeout_s = 60});
}

// The addresses at which readelf says that a statement of a file begins; empty: there is no readelf here.
std::set<std::string> statements_of(const std::string& program, const std::string& file) {
  std::set<std::string> addresses;
  std::FILE* const pipe = popen(("readelf -wL " + program + " 2>/dev/null").c_str(), "r");
  REQUIRE(pipe != nullptr);
  char text[512];
  while (std::fgets(text, sizeof text, pipe) != nullptr) {
    std::istringstream line(text);
    std::string name, number, address, word, last;
    line >> name >> number >> address;
    while (line >> word) last = word;
    if (name == file && number != "-" && last == "x") addresses.insert(address);
  }
  pclose(pipe);
  return addresses;
}

}  // namespace

TEST_CASE("lines_statements: each address of the line table once, and the program is what it is") {
  for (const std::string level : kLineLevels) {
    CAPTURE(level);
    const auto known = statements_of(fixture(level), "fx_lines.c");
    if (known.empty()) {
      MESSAGE("no readelf here: statements are not compared");
      return;
    }
    const Outcome plain = run_plain({fixture(level)});
    const Outcome probed = run_probed({fixture(level)}, "stmt:" + level + "@fx_lines.c:*");
    CAPTURE(probed.err);
    CHECK(probed.out == plain.out);
    CHECK(total(probed.summary(), "probes_requested") == known.size());
    CHECK(adds_up(probed.summary()));
    // All of the program's, by functions: main, both and the others, of all units.
    const Outcome all = run_probed({fixture(level)}, "stmt:" + level + ":*");
    CHECK(all.out == plain.out);
    CHECK(total(all.summary(), "probes_requested") > known.size());
    const Outcome some = run_probed({fixture(level)}, "stmt:" + level + ":straight, stmt:" + level +
                                                          ":from_* { @[func] = count() }; !stmt:" + level +
                                                          "@fx_lines_other.c:*; stmt:straight");
    CHECK(some.err.find("@[straight") != std::string::npos);
    // An exclusion takes out all of a unit; what is inlined from the header stays.
    CHECK((some.err.find("@[from_other") != std::string::npos) == (level == "fx_lines2"));
  }
}

TEST_CASE("lines_counts: a line without optimisation is hit as often as it is executed") {
  const auto said = numbers(run_plain({fixture("fx_lines0")}).out);
  const std::string at = "uprobe:" + fixture("fx_lines0") + "@fx_lines.c:";
  const std::string times = std::to_string(said.at("times")), printed = std::to_string(said.at("printed"));
  const Outcome outcome = run_lines(at + times + " { @times = count(); @first = lhist(args.number, 0, 8, 1) }" + at +
                                        printed + " { @printed = count() } " + at + "* { @all = count() }",
                                    fixture("fx_lines0"));
  CAPTURE(outcome.out);
  CAPTURE(outcome.err);
  CHECK(has_line(outcome.out, "@times: 7"));
  CHECK(has_line(outcome.out, "@printed: 1"));
  CHECK(outcome.out.find("\n[6]                    1 ") != std::string::npos);
}

TEST_CASE("lines_inlined: every instance, in every unit, and the lines of headers") {
  for (const std::string level : kLineLevels) {
    CAPTURE(level);
    const auto said = numbers(run_plain({fixture(level)}).out);
    const std::string calls = std::to_string(said.at("twice"));
    const std::string program = "inline:" + fixture(level) + ":twice { @calls = count(); @sum = sum(args.number) } " +
                                "inline:" + fixture(level) + ":tw?ce { @again = count() } uprobe:" + fixture(level) +
                                "@fx_lines.h:" + std::to_string(said.at("header")) + " { @lines = count() }";
    const Outcome outcome = run_lines(program, fixture(level));
    CAPTURE(outcome.out);
    CAPTURE(outcome.err);
    CHECK(has_line(outcome.out, "@calls: " + calls));
    CHECK(has_line(outcome.out, "@again: " + calls));
    CHECK(has_line(outcome.out, "@lines: " + calls));
    CHECK(has_line(outcome.out, "@sum: 2376"));  // 0 to 39, the doubles of these, and 0 to 8
    const Outcome alone = run_probed({fixture(level)}, "inline:" + level + ":twice { @calls = count() }; inline:both");
    CHECK(has_line(alone.err, "@calls: " + calls));
    CHECK(hits(alone.summary(), "inline:both") == 40);
  }
}

TEST_CASE("lines_apart: a line of which some was put elsewhere is where it is executed") {
  const auto said = numbers(run_plain({fixture("fx_lines2")}).out);
  const Outcome outcome = run_probed({fixture("fx_lines2")},
                                     "fx_lines2@fx_lines.c:" + std::to_string(said.at("checked")) + " { @ = count() }");
  CAPTURE(outcome.err);
  CHECK(has_line(outcome.err, "@: 40"));
}

TEST_CASE("lines_cached: a stripped program, by what debuginfod has fetched for it") {
  const ScratchFolder folder;
  const std::string program = folder.path() + "/program", debug = folder.path() + "/debug";
  const std::string copy = "objcopy --only-keep-debug " + fixture("fx_lines2") + ' ' + debug +
                           " 2>/dev/null && objcopy --strip-all " + fixture("fx_lines2") + ' ' + program +
                           " && readelf -n " + program + " | sed -n 's/.*Build ID: //p'";
  std::FILE* const pipe = popen(copy.c_str(), "r");
  REQUIRE(pipe != nullptr);
  char id[128] = {};
  const bool has_tools = std::fgets(id, sizeof id, pipe) != nullptr;
  pclose(pipe);
  const std::string build_id = std::string(id).substr(0, std::string(id).find('\n'));
  if (!has_tools || build_id.empty()) {
    MESSAGE("no objcopy and readelf here, or no build-id");
    return;
  }
  const auto said = numbers(run_plain({program}).out);
  const auto ask = [&] {
    return run({.argv = {command_path(), "run", "-e", "inline:" + program + ":twice { @ = count() }", "--", program},
                .env = {{"DEBUGINFOD_CACHE_PATH", folder.path() + "/cache"}},
                .preload = false,
                .timeout_s = 60});
  };
  CHECK(ask().err.find("no debug information says where twice is") != std::string::npos);
  REQUIRE(std::system(("mkdir -p " + folder.path() + "/cache/" + build_id + " && mv " + debug + ' ' + folder.path() +
                       "/cache/" + build_id + "/debuginfo")
                          .c_str()) == 0);
  const Outcome outcome = ask();
  CAPTURE(outcome.err);
  CHECK(has_line(outcome.out, "@: " + std::to_string(said.at("twice"))));
}

namespace {

// Functions whose linkage names spell little of them.
constexpr const char* kNamedSource = R"(
#include <map>
#include <string>
#include <vector>
namespace deep {
namespace { __attribute__((noinline)) int hidden(int n) { return n + 1; } }
struct Thing {
  __attribute__((noinline)) explicit Thing(int n) : value(n) {}
  __attribute__((noinline)) ~Thing() { value = 0; }
  __attribute__((noinline)) int operator()(int n) const { return value + n; }
  __attribute__((noinline)) operator long() const { return value; }
  template <class T> __attribute__((noinline)) T cast(T other) const { return static_cast<T>(value) + other; }
  int value;
};
template <class T> __attribute__((noinline)) T largest(T a, T b) { return a < b ? b : a; }
static inline int twice(int n) { __asm__ volatile("" : "+r"(n)); return n * 2; }
static __attribute__((noinline)) int (*pick(int n))(int) { return n > 1 ? hidden : twice; }
}
struct string {
  __attribute__((noinline)) explicit string(int n) : value(n) {}
  int value;
};
static __attribute__((noinline)) int f(int n) { return n + 3; }
static __attribute__((noinline)) int prefix_f(int n) { return n + 4; }
template <int N> __attribute__((noinline)) int (*choose())(int) { return N > 1 ? f : prefix_f; }
int UNIT(int n) {
  deep::Thing thing(n);
  std::string text(static_cast<std::size_t>(n), 'a');
  std::map<std::string, std::vector<long>> all;
  all[text].push_back(thing.cast(5L));
  const auto each = [&](int more) __attribute__((noinline)) { return thing(more) + deep::largest(more, n); };
  return each(deep::pick(n)(n)) + static_cast<int>(thing) + string(n).value + choose<2>()(n) + deep::twice(n);
}
)";

// Every function that debug information has, by its names.
void compare_names(const std::string& compiler) {
  CAPTURE(compiler);
  const ScratchFolder folder;
  const std::string program = folder.path() + "/program";
  write_file(folder.path() + "/named.cpp", kNamedSource);
  write_file(
      folder.path() + "/main.cpp",
      "int one(int);\nint other(int);\nextern \"C\" __attribute__((noinline)) int go(int n) { return one(n) + other(n); }\n"
      "int main(int count, char**) { return go(count) & 1; }\n");
  const Outcome made = run_shell("cd " + folder.path() + " && " + compiler + " -DUNIT=one -c named.cpp -o one.o && " +
                                 compiler + " -DUNIT=other -c named.cpp -o other.o && " + compiler +
                                 " main.cpp one.o other.o -o program && nm program > raw && nm -C program > shown");
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
  const auto names_in = [](const std::string& text) {  // of sections: "name (file:line)"
    std::set<std::string> names;
    for (const std::string& line : lines(text)) {
      if (const std::size_t end = line.rfind(" ("); end != std::string::npos && line.ends_with(')') && line[0] != ' ')
        names.insert(line.substr(0, end));
    }
    return names;
  };
  const auto ask = [&](const std::set<std::string>& wanted, const std::string& before, const std::string& behind) {
    std::vector<std::string> words{command_path(), "lines"};
    for (const std::string& name : wanted) words.push_back(program + ":" + before + name + behind);
    return run({.argv = words, .env = {}, .preload = false, .timeout_s = 60});
  };
  const std::set<std::string> all = names_in(ask({"*"}, "", "").out);  // every unit is looked at
  CHECK(all.size() > 40);
  const Outcome full = ask(all, "\"", "\"");
  CHECK(full.err.empty());
  CHECK(names_in(full.out) == all);
  std::set<std::string> raw, bare, parts;
  const std::vector<std::string> symbols = lines(read_file(folder.path() + "/raw"));
  const std::vector<std::string> shown = lines(read_file(folder.path() + "/shown"));
  REQUIRE(symbols.size() == shown.size());
  for (std::size_t i = 0; i < symbols.size(); ++i) {
    constexpr std::size_t kName = 19;  // behind the address and the kind
    if (shown[i].size() > kName && all.contains(shown[i].substr(kName))) raw.insert(symbols[i].substr(kName));
  }
  for (const std::string& name : all) {
    if (name.find_first_of("({") == 0 || name.find("operator") != std::string::npos) continue;
    const std::string its = name.substr(0, name.find('('));
    if (its.find_first_of("<{ ") != std::string::npos) continue;
    bare.insert(its);
    parts.insert(its.substr(its.rfind(':') + 1));
  }
  CHECK(raw.size() > 5);
  CHECK(bare.size() > 1);
  // A glob with a class has every unit looked at.
  const auto same = [&](const std::set<std::string>& wanted, const std::string& before, const std::string& behind) {
    std::set<std::string> everywhere;
    for (const std::string& name : wanted) everywhere.insert('[' + name.substr(0, 1) + ']' + name.substr(1));
    const std::string out = ask(wanted, before, behind).out;
    CHECK(!out.empty());
    CHECK(out == ask(everywhere, before, behind).out);
  };
  same(raw, "", "");
  same(bare, "", "");
  same(parts, "*", "*");
}

}  // namespace

TEST_CASE("lines_names: a function is found by each form of its name, as among all of them") {
  if (!has_command("g++")) {
    MESSAGE("there is no g++: not tested");
    return;
  }
  compare_names("g++ -std=c++17 -g -O1");
  compare_names("g++ -std=c++17 -gdwarf-4 -O0 -D_GLIBCXX_USE_CXX11_ABI=0");
  if (has_command("clang++")) compare_names("clang++ -std=c++17 -gdwarf-5 -O1");
}

TEST_CASE("lines_refused: what is not there, and what would help") {
  const auto message = [](const std::string& program, const std::string& command) {
    const Outcome outcome = run_lines(program, command);
    CHECK(outcome.end() != "exit 0");
    return outcome.err;
  };
  const std::string optimised = fixture("fx_lines2");
  const auto has = [](const std::string& text, const std::string& part) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  has(message("uprobe:" + optimised + ":twice { }", optimised), ":twice: it is inlined only (3 instances)");
  has(message("uprobe:" + optimised + ":twice { }", optimised), "HINT: use inline:" + optimised + ":twice");
  has(message("twice { }", optimised), "'twice' is inlined only (3 instances)");
  const Outcome alone = run_probed({optimised}, "twice");
  has(alone.err, "'twice' is inlined only (3 instances)");
  has(alone.err, "use inline:twice");
  has(message("inline:" + optimised + ":nothing { }", optimised), "knows no function 'nothing'");
  has(message("stmt:" + optimised + "@other.c:* { }", optimised), "no source file 'other.c' is part of ");
  has(message("stmt:" + fixture("fx_hello") + ":compute { }", fixture("fx_hello")), "compile it with -g");
  // A library that a package has.
  const std::string packaged = message("stmt:libc:memcpy { }", fixture("fx_hello"));
  if (packaged.find("no debug information says") != std::string::npos) has(packaged, "HINT: ");
}

}  // namespace ubp::test::lines_test
