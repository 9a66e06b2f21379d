// Macros, parameters, settings, declared maps.
#include <cstdlib>

#include "compiled.h"

namespace ubp::program {

TEST_CASE("program: macros") {
  const std::pair<std::string, std::string> cases[] = {
      {"macro twice(x) { x + x } begin { print(twice(3 + 1)) }", "8\n"},
      {"begin { $n = 1; more($n, 4); print($n) } macro more($v, by) { $v += by; }", "5\n"},
      {"macro put(@m, k) { @m[k] = 1; } begin { put(@x, 3); put(@y, 4) }", "@x[3]: 1\n@y[4]: 1\n"},
      // Its own variables are none of its user's, even where what is passed has their names.
      {"macro f(x) { $y = 10; $y + x } begin { $y = 1; print(f($y)); print($y) }", "11\n1\n"},
      {"macro f(x) { let $y = 10; for ($i : 0..2) { $y += x } $y } begin { $i = 5; print(f($i)); print($i) }",
       "20\n5\n"},
      {"macro one() { 1 } macro two() { one + one() } begin { print(two) }", "2\n"},
      {"macro f(x) { x } macro f(x, y) { x * y } begin { print(f(2)); print(f(2, 5)) }", "2\n10\n"},
      {"macro g(a) { a } macro f(a) { g(a + 1) * 2 } begin { print(f(f(g(1)))) }", "10\n"},
      {"macro pid() { \"mine\" } begin { print(pid); print(__builtin_pid == pid2()); } macro pid2() { __builtin_pid }",
       "mine\ntrue\n"},
      {"macro out() { exit(); } begin { out(); print(1) }", ""},
      {"macro f(pid) { pid } begin { print(f(7)) }", "7\n"},
      {"macro form() { \"%d;\" } macro times() { 3 } begin { unroll(times) { printf(form, 1) } }", "1;1;1;"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of_program(text) == printed);
  }
}

TEST_CASE("program: what is wrong with macros") {
  const std::pair<std::string, std::string> cases[] = {
      {"macro f(x) { f(x) } begin { f(1) }", "14: Recursive macro call detected. Call chain: f > f"},
      {"macro a() { b() } macro b() { a() } begin { a() }", "31: Recursive macro call detected. Call chain: a > b > a"},
      {"macro f($x) { $x } begin { f(1) }",
       "30: Mismatched arg. f() expects a variable for arg $x but got an expression."},
      {"macro f(@x) { @x } begin { $a = 1; f($a) }",
       "38: Mismatched arg. f() expects a map for arg @x but got a variable."},
      {"macro f(x) { x } begin { f(1, 2) }",
       "26: Call to f() has the wrong number of arguments. Expected: 1 but got 2."},
      {"macro f() { @x = 1; } begin { f() }",
       "13: Unhygienic access to map: @x. Maps must be passed into the macro as arguments."},
      {"macro f() { 1 } macro f() { 2 } begin { f() }", "23: Redefinition of macro: f"},
      {"macro f(x, x) { 1 } begin { f(1, 2) }", "7: The parameter x has already been used"},
      {"macro f($x) { let $x = 1; } begin { $a = 1; f($a) }", "15: Variable declaration shadows macro arg $x"},
      {"macro f() { $y } begin { $y = 1; print(f()) }", "13: Undefined or undeclared variable: $y"},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK(messages_of(text) == std::vector{message});
  }
}

TEST_CASE("program: a mistake in a macro says where the macro was used") {
  std::vector<Diagnostic> diagnostics;
  const std::string text = "macro f(x) { x + $no }\nmacro g(x) { f(x) }\nbegin { print(g(1)) }";
  CHECK(Program::compile(tree_of(text), diagnostics) == nullptr);
  REQUIRE(diagnostics.size() == 1);
  CHECK(diagnostics[0].span.begin.line == 1);
  REQUIRE(diagnostics[0].expanded_from.size() == 2);
  CHECK(diagnostics[0].expanded_from[0].begin.line == 2);
  CHECK(diagnostics[0].expanded_from[1].begin.line == 3);
}

TEST_CASE("program: macros that double each time are refused in time") {
  std::string text = "macro m0(x) { x + x } ";
  for (int i = 1; i < 40; ++i) {
    const std::string before = "m" + std::to_string(i - 1);
    text += "macro m" + std::to_string(i) + "(x) { " + before + "(x) + " + before + "(x) } ";
  }
  const auto messages = messages_of(text + "begin { print(m39(1)) }");
  REQUIRE(!messages.empty());
  CHECK(messages[0].find("The macros expand to too much") != std::string::npos);
}

TEST_CASE("program: parameters") {
  const Inputs inputs{{"text", "--n=-7", "0x10", "017", "-5", "--flag", "--word=a b", "--off=False"}, {}};
  const std::pair<std::string, std::string> cases[] = {
      {"print(($1, $2, $3, $4, $5, $#))", "(text, 16, 15, -5, 0, 4)\n"},
      {"print(str($1)); print(str($2)); print(str($9)); print(str($1 + 2)); print(str($1, 3)); print(str($1, $2))",
       "text\n0x10\n\nxt\nte\ntext\n"},
      {"print(str($1) == \"text\"); unroll($3) { @n++ }", "true\n@n: 15\n"},
      {"print((getopt(\"n\", 1), getopt(\"flag\"), getopt(\"word\", \"\"), getopt(\"off\", true)))",
       "(-7, true, a b, false)\n"},
      {"print((getopt(\"m\", -2, \"help\"), getopt(\"k\"), getopt(\"j\", \"x\")))", "(-2, false, x)\n"},
  };
  const std::string known = "_ = (getopt(\"n\", 1), getopt(\"flag\"), getopt(\"word\", \"\"), getopt(\"off\", true)); ";
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(known + text, inputs) == printed);
  }
  CHECK(output_of_program("macro p() { $1 } begin { print(p()) }", {{"5"}, {}}) == "5\n");
  CHECK(messages_of("begin { _ = getopt(\"n\", 1) }", {{"--n=x"}, {}}) ==
        std::vector<std::string>{"0: program command line option --n invalid integer (value: x)"});
  CHECK(messages_of("begin { _ = getopt(1) }") ==
        std::vector<std::string>{"20: First argument to 'getopt' must be a string literal."});
}

TEST_CASE("program: options that it does not know") {
  std::vector<Diagnostic> diagnostics;
  const std::string text = "begin { _ = (getopt(\"b\"), getopt(\"a\", 1, \"what a is\")) }";
  CHECK(Program::compile(tree_of(text), diagnostics, nullptr, {{"--x", "--y=1"}, {}}) == nullptr);
  REQUIRE(diagnostics.size() == 1);
  CHECK(diagnostics[0].message == "unexpected program command line options: --x, --y");
  CHECK(diagnostics[0].hint == "expected program options:\n--a: what a is\n--b");
  CHECK(Program::compile(tree_of(text), diagnostics, nullptr, {{"--help"}, {}}) == nullptr);
  REQUIRE(diagnostics.size() == 1);
  CHECK(diagnostics[0].message.empty());
}

TEST_CASE("program: settings") {
  const Inputs shorter{{}, {{"BPFTRACE_MAX_STRLEN", "8"}, {"BPFTRACE_OTHER", "1"}}};
  CHECK(output_of_program("config = { max_strlen = 16; } begin { print(config().max_strlen) }") == "16\n");
  CHECK(output_of_program("config = { max_strlen = 16 } begin { print(__builtin_config.max_strlen) }", shorter) ==
        "8\n");
  CHECK(output_of_program("config = { BPFTRACE_PRINT_MAPS_ON_EXIT = false } begin { @ = 1 }") == "");
  CHECK(output_of_program(
            "config = { max_map_keys = 2 } begin { for ($i : 0..5) { @[$i] = 1 } print(len(@)); clear(@) }") == "2\n");
  CHECK(compiled("config={missing_probes=\"warn\"; log_size = 5} begin { }")->analysis().config.missing_probes ==
        Config::Missing::kWarn);
  const std::pair<std::string, std::string> cases[] = {
      {"config = { maximum = 1 } begin { }", "12: maximum: not a known configuration option"},
      {"config = { max_strlen = a } begin { }", "12: max_strlen: expecting a number, got a"},
      {"config = { max_strlen = 99999999 } begin { }", "12: max_strlen is 1 to 10240"},
      {"config = { max_map_keys = 0 } begin { }", "12: max_map_keys is 1 to 4194304"},
      {"config = { show_debug_info = 2 } begin { }",
       "12: show_debug_info: Invalid bool value: valid values are true, false, 1 or 0."},
      {"begin { print(config().no) }", "15: no: not a known configuration option"},
      {"config = { max_strlen = 4 } begin { print(\"long\") }", "43: String is too long (over 4 bytes): long"},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK(messages_of(text) == std::vector{message});
  }
}

TEST_CASE("session: a program's inputs come with it") {
  const Inputs inputs{{"a b", "", "--x"}, {{"BPFTRACE_MAX_STRLEN", "64"}, {"BPFTRACE_STACK_MODE", ""}}};
  const auto session = Session::create("name", "begin { }", inputs, 1);
  const auto same = Session::open(session->path().c_str());
  REQUIRE(same != nullptr);
  CHECK(same->texts()[1] == "begin { }");
  CHECK(same->inputs().parameters == inputs.parameters);
  CHECK(same->inputs().settings == inputs.settings);
}

TEST_CASE("program: the environment's settings") {
  setenv("BPFTRACE_MAX_MAP_KEYS", "5", 1);
  const auto settings = settings_of_environment();
  unsetenv("BPFTRACE_MAX_MAP_KEYS");
  CHECK(settings == std::vector<std::pair<std::string, std::string>>{{"BPFTRACE_MAX_MAP_KEYS", "5"}});
}

TEST_CASE("program: maps of a declared size") {
  const auto full = compiled("let @m = hash(3); begin { for ($i : 0..9) { @m[$i] = $i } print(len(@m)) }");
  full->run(language::Probe::Event::kBegin);
  CHECK(full->printed() == "3\n");
  CHECK(run_time_errors(full->analysis(), full->place(), false).size() == 1);
  // Keys that are used stay, and others make room for new ones.
  const auto lru = compiled(
      "let @m = lruhash(10); begin { for ($i : 0..1000) { @m[$i] = ($i, \"value\"); @m[5] = (5, \"a\") } "
      "print(len(@m)); print(has_key(@m, 5)); print(has_key(@m, 999)); clear(@m) }");
  lru->run(language::Probe::Event::kBegin);
  CHECK(lru->printed() == "10\ntrue\ntrue\n");
  CHECK(run_time_errors(lru->analysis(), lru->place(), false).empty());
  const std::pair<std::string, std::string> cases[] = {
      {"let @m = hash(1); begin { }", "5: Unused map: @m"},
      {"let @m = tree(1); begin { @m[1] = 1 }", "5: Invalid map type: tree"},
      {"let @m = hash(0); begin { @m[1] = 1 }", "15: a map holds 1 to 4194304 keys"},
  };
  for (const auto& [text, message] : cases) {
    CAPTURE(text);
    CHECK(messages_of(text) == std::vector{message});
  }
}

TEST_CASE("program: parameters in targets") {
  const auto names = [](std::string_view text, const std::vector<std::string>& parameters) {
    language::Program tree;
    const auto parsed = language::parse(text, language::kMaxItems, &tree, parameters);
    if (const auto* error = std::get_if<language::Error>(&parsed)) return error->message;
    std::string all;
    for (const language::Item& item : std::get<std::vector<language::Item>>(parsed)) all += item.text + ';';
    return all + std::to_string(tree.probes.size());
  };
  CHECK(names("$1:m$2 { print($2) } x$3", {"libc", "--n", "alloc", "y"}) == "libc:malloc;xy;1");
  CHECK(names("BEG$1 { }", {"IN"}) == "1");
  CHECK(names("a /$1 == 1/ { }", {"{"}) == "a;1");
  CHECK(names("$2 { }", {"a"}) == "there is no parameter $2");
  // What stands behind it has the text's columns.
  language::Program tree;
  const auto parsed = language::parse("$1 { print(#) }", language::kMaxItems, &tree, {"function"});
  REQUIRE(std::holds_alternative<language::Error>(parsed));
  CHECK(std::get<language::Error>(parsed).position.column == 12);
}

TEST_CASE("program: records") {
  const std::pair<std::string, std::string> cases[] = {
      {"$r = (a=1, b=\"x\", c=(2, 3)); print($r.b); print($r.c.1); print($r)",
       "x\n3\n{ .a = 1, .b = x, .c = (2, 3) }\n"},
      {"$r = (a=1, b=\"x\"); $r = (b=\"longer\", a=70000); print($r)", "{ .a = 70000, .b = longer }\n"},
      {"@[(k=1)] = (v=(w=2)); print(@[(k=1)].v.w)", "2\n@[{ .k = 1 }]: { .v = { .w = 2 } }\n"},
      {"$r = (a={ print(1); 5 }, b={ print(2); 6 }); print($r.a)", "1\n2\n5\n"},
  };
  for (const auto& [text, printed] : cases) {
    CAPTURE(text);
    CHECK(output_of(text) == printed);
  }
  CHECK(messages_of("begin { $r = (a=1); print($r.b) }").size() == 1);
  CHECK(messages_of("begin { $r = (a=1, a=2) }").size() == 1);
  CHECK(messages_of("begin { $r = (a=1); $r = (b=1) }").size() == 1);
  CHECK(messages_of("begin { $r = (a=1); $r = (1,) }").size() == 1);
  Type record = tuple_of({integer(8, true), string_of(8)});
  record.fields = {"a", "b"};
  const std::uint64_t words[] = {7, 'x'};
  CHECK(json_of(record, words) == "{\"a\": 7, \"b\": \"x\"}");
}

TEST_CASE("program: named probes, and functions with the names of what stands before probes") {
  language::Program tree;
  const auto items =
      language::parse("first = begin { } second=a { } config; let; macro\nb", language::kMaxItems, &tree);
  REQUIRE(std::holds_alternative<std::vector<language::Item>>(items));
  CHECK(std::get<std::vector<language::Item>>(items).size() == 5);
  CHECK(tree.probes.size() == 2);
}

}  // namespace ubp::program
