// Types over the whole program, and mistakes with their places.
#include "compiled.h"

namespace ubp::program {

TEST_CASE("program: types of maps and variables are those of all their uses") {
  const std::pair<std::string, std::string> cases[] = {
      {"begin { @ = 1 }", "int8"},
      {"begin { @ = 1; @ = 1000 }", "int16"},
      {"begin { @ = @y; @y = 70000 }", "int32"},
      {"begin { @ = \"ab\" } end { @ = \"longer\" }", "string[7]"},
      {"begin { @ = (1, \"a\"); @ = (300, \"abc\") }", "(int16,string[4])"},
      {"begin { @ = 1 + 1 }", "int64"},
      {"begin { @ = pid }", "uint32"},
      {"begin { @ = pid + 1 }", "uint64"},
      {"begin { @ = nsecs - 1 }", "int64"},
      {"begin { @ = 1 < 2 }", "bool"},
      {"begin { @++ }", "int64"},
      {"begin { @ = ~1 }", "uint64"},
      {"begin { $x = 1; $x = -70000; @ = $x }", "int32"},
      {"begin { @ = count() }", "count_t"},
      {"begin { @ = hist(1) }", "hist_t"},
      {"begin { @ = 18446744073709551615 }", "uint64"},
      {"begin { @ = (uint8)5; @ = (int8)5 }", "int16"},
      {"begin { @ = comm }", "string[16]"},
  };
  for (const auto& [text, type] : cases) {
    CAPTURE(text);
    language::Program tree = tree_of(text);
    const Analysis analysis = analyse(tree);
    CHECK(!analysis.has_errors());
    REQUIRE(!analysis.maps.empty());
    CHECK(name_of(analysis.maps.front().value) == type);
  }
}

TEST_CASE("program: mistakes and their places") {
  struct Case {
    std::string text;
    int column, end;
    std::string message;
  };
  const Case cases[] = {
      {"begin { print($x) }", 15, 17, "Undefined or undeclared variable: $x"},
      {"begin { if (1) { $x = 1 } print($x) }", 33, 35, "Undefined or undeclared variable: $x"},
      {"begin { print(@x) }", 15, 17, "Undefined map: @x"},
      {"begin { f() }", 9, 12, "Unknown function: 'f'"},
      {"begin { print(foo) }", 15, 18, "Unknown identifier: 'foo'"},
      {"begin { $x = 1; $x = \"a\" }", 17, 25,
       "Type mismatch for $x: trying to assign value of type 'string[2]' when variable already has a type 'int8'"},
      {"begin { @x = 1; @x = \"a\" }", 17, 25,
       "Type mismatch for @x: trying to assign value of type 'string[2]' when map already has a type 'int8'"},
      {"begin { @a[1] = 1; @a[\"a\"] = 1 }", 20, 27,
       "Argument mismatch for @a: trying to access with arguments: 'string[2]' when map expects arguments: 'int8'"},
      {"begin { @a = 1; @a[1] = 1 }", 17, 22,
       "@a used as a map with an explicit key (non-scalar map), previously used without an explicit key (scalar map)"},
      {"begin { @a = 1; print(len(@a)) }", 23, 30, "call to len() expects a map with explicit keys (non-scalar map)"},
      {"begin { printf(\"%d\") }", 9, 21, "not enough arguments for format string (0 supplied, 1 expected)"},
      {"begin { printf(\"a\", 1) }", 9, 23, "too many arguments for format string (1 supplied, 0 expected)"},
      {"begin { printf(\"%d\", \"abc\") }", 9, 28, "unsupported format specifier for type 'string[4]': d"},
      {"begin { printf(\"%f\", 1) }", 9, 24, "unsupported format specifier: f"},
      {"begin { print(1, 2) }", 9, 20, "Non-map print() only takes 1 argument, 2 found"},
      {"begin { @ = hist(1); print(@ + 1) }", 28, 29,
       "Map type hist_t cannot print the value of individual keys. You must print the whole map."},
      {"begin { unroll(101) { } }", 16, 19, "unroll maximum value is 100"},
      {"begin { unroll(0) { } }", 16, 17, "unroll minimum value is 1"},
      {"begin { print(count()) }", 15, 22, "count() should be assigned to a map"},
      {"begin { break }", 9, 14, "break is only possible in a loop"},
      {"begin { print(arg0) }", 15, 19, "The arg0 builtin can not be used with 'begin' and 'end' probes"},
      {"begin { print((1,2).2) }", 15, 22, "Invalid tuple index: 2. Found 2 elements in tuple."},
      {"begin { print(\"a\" + 1) }", 15, 22, "The operation can not be used on 'string[2]' and 'int8'"},
      {"begin { @ = lhist(1, 5, 2, 1) }", 13, 30, "lhist() takes a minimum below its maximum, and a step above 0"},
      {"begin { @ = hist(1, 6) }", 13, 23, "hist() takes 0 to 5 bits, not 6"},
      {"begin { exit(1, 2) }", 9, 19, "exit() takes at most 1 argument, 2 found"},
      {"f { print(self) }", 11, 15, "The self builtin can only be used with 'call' probes"},
      {"f { print(outermost) }", 11, 20, "The outermost builtin can only be used with 'call' probes"},
      {"ur:f { print(depth) }", 14, 19, "The depth builtin can only be used with 'call' probes"},
      {"call:f, ur:g { print(depth) }", 22, 27, "The depth builtin can only be used with 'call' probes"},
      {"call:f, g { print(elapsed) }", 19, 26,
       "The elapsed builtin of 'call' probes is another one than that of others"},
      {"call:f { override(1) }", 10, 21, "override() can not be used with 'call' probes: the call is over"},
      {"call:f, ur:g { print(arg0) }", 22, 26, "The arg0 builtin can not be used with 'uretprobe' probes"},
      {"call:f, g { print(retval) }", 19, 25, "The retval builtin can only be used with 'uretprobe' and 'call' probes"},
      {"f { print(reg(\"xx\")) }", 11, 20, "reg() takes a register's name: ip sp ax bx cx dx si di bp r8 ... r15"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    std::vector<Diagnostic> diagnostics;
    CHECK(Program::compile(tree_of(c.text), diagnostics) == nullptr);
    REQUIRE(diagnostics.size() == 1);
    CHECK(diagnostics[0].message == c.message);
    CHECK(diagnostics[0].span.begin.column == c.column);
    CHECK(diagnostics[0].span.end.column == c.end);
    CHECK(!diagnostics[0].is_warning);
  }
}

TEST_CASE("program: what is to be kept of calls, from their entries on") {
  const auto kept = [](const std::string& text) {
    language::Program tree = tree_of(text);
    const Analysis analysis = analyse(tree);
    CHECK_FALSE(analysis.has_errors());
    return std::pair(analysis.keeps_calls, static_cast<bool>(analysis.keeps_arguments[0]));
  };
  CHECK(kept("call:f { @ = retval }") == std::pair(false, false));
  CHECK(kept("call:f { @ = elapsed }") == std::pair(true, false));
  CHECK(kept("call:f { @ = outermost }") == std::pair(true, false));
  CHECK(kept("call:f { @ = self } begin { @x = elapsed }") == std::pair(true, false));
  CHECK(kept("call:f /arg3/ { @ = depth }") == std::pair(true, true));
  CHECK(kept("call:f { @ = reg(\"si\") }") == std::pair(true, true));
  CHECK(kept("f { @ = elapsed + arg0 }") == std::pair(false, false));
}

TEST_CASE("program: a value that nobody uses is a warning") {
  language::Program tree = tree_of("begin { len(@x); @x[1] = 1 }");
  const Analysis analysis = analyse(tree);
  REQUIRE(analysis.diagnostics.size() == 1);
  CHECK(analysis.diagnostics[0].is_warning);
  CHECK(analysis.diagnostics[0].message == "Return value discarded.");
}

TEST_CASE("program: what would need more stack than a hit has is an error") {
  std::string text = "begin { printf(\"";
  for (int i = 0; i < 40; ++i) text += "%s";
  text += '"';
  for (int i = 0; i < 40; ++i) text += ", str(1)";
  std::vector<Diagnostic> diagnostics;
  CHECK(Program::compile(tree_of(text + ") }"), diagnostics) == nullptr);
  REQUIRE(!diagnostics.empty());
  CHECK(diagnostics[0].message.find("bytes of stack") != std::string::npos);
}

TEST_CASE("program: only what needs a hit's kept registers asks for them") {
  const auto program = compiled("a { @ = arg0 + arg5 + reg(\"sp\") } b { @ = reg(\"bx\") }");
  CHECK(!program->reads_registers(0));
  CHECK(program->reads_registers(1));
}

TEST_CASE("diagnostic: the line and its marker") {
  CHECK(excerpt("ab\n\tcd ef\ngh", {{2, 5}, {2, 7}}) == "    cd ef\n       ~~");
  CHECK(excerpt("abc", {{1, 4}, {1, 4}}) == "abc\n   ~");
  CHECK(excerpt("abc\ndef", {{1, 2}, {2, 3}}) == "abc\n ~~");
}

}  // namespace ubp::program
