// uaddr(): variables by the names that symbol tables have, with what the program has left in them.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::uaddr_test {

namespace {

constexpr const char* kPrograms[] = {"fx_symbols", "fx_symbols_fixed"};  // PIE, and not

Outcome run_symbols(const std::string& program, const std::string& file) {
  return run({.argv = {command_path(), "run", "-q", "-e", program, "--", file}, .env = {}, .preload = false});
}

// What a block at an attach point is told; FILE stands for the program.
void check_mistake(std::string program, const std::string& message, const std::string& hint) {
  const std::string file = fixture(kPrograms[0]);
  for (std::size_t at = 0; (at = program.find("FILE")) != std::string::npos;) program.replace(at, 4, file);
  const Outcome outcome = run_symbols(program, file);
  CAPTURE(program);
  CAPTURE(outcome.err);
  CHECK(outcome.exit_status == 1);
  CHECK(outcome.err.find("ERROR: " + message) != std::string::npos);
  CHECK((hint.empty() || outcome.err.find("HINT: " + hint) != std::string::npos));
  CHECK(outcome.out.empty());  // it has not run
}

}  // namespace

TEST_CASE("uaddr_values: variables of each size, as wide as their symbols") {
  for (const char* const name : kPrograms) {
    CAPTURE(name);
    const std::string file = fixture(name);
    const Outcome outcome = run_symbols(
        "uprobe:" + file +
            ":step { @one = *uaddr(\"of_one\"); @two = *uaddr(\"of_two\"); @four = *uaddr(\"of_four\"); " +
            "@eight = *uaddr(\"of_eight\"); @widths = (sizeof(*uaddr(\"of_one\")), sizeof(*uaddr(\"of_two\")), " +
            "sizeof(*uaddr(\"of_four\")), sizeof(*uaddr(\"of_eight\")), sizeof(*uaddr(\"of_twenty\"))); " +
            "@third = ((int32*)uaddr(\"of_twenty\"))[2]; @bare = *uaddr(\"without_size\"); " +
            "@alone[arg0] = *uaddr(\"alone\") }",
        file);
    CAPTURE(outcome.err);
    CHECK(outcome.end() == "exit 0");
    for (const char* const line :
         {"@one: 145", "@two: 37428", "@four: 2452903544", "@eight: 1311768467463790320", "@widths: (1, 2, 4, 8, 8)",
          "@third: 9", "@bare: 77", "@alone[1]: 0", "@alone[2]: 1", "@alone[4]: 6", "alone 10"}) {
      CAPTURE(line);
      CHECK(has_line(outcome.out, line));
    }
  }
}

TEST_CASE("uaddr_probes: at returns, calls, and in a library; in a filter") {
  for (const char* const name : kPrograms) {
    CAPTURE(name);
    const std::string file = fixture(name);
    const std::string library = fixture("libfx_symbols_library.so");
    const Outcome outcome =
        run_symbols("ur:" + file + ":step { @after = *uaddr(\"alone\") } call:" + file +
                        ":step /arg0 == 3/ { @call = *uaddr(\"alone\") } uprobe:" + library +
                        ":library_step, ur:" + library + ":library_step " + "/*uaddr(\"library_own\") > 1002/ { " +
                        "@own = max(*uaddr(\"library_own\")); @count = *uaddr(\"library_count\"); " + "@n = count() }",
                    file);
    CAPTURE(outcome.err);
    CHECK(outcome.end() == "exit 0");
    for (const char* const line :
         {"@after: 10", "@call: 6", "@own: 1010", "@count: 110", "@n: 5", "sum 1120", "both 11"}) {
      CAPTURE(line);
      CHECK(has_line(outcome.out, line));
    }
  }
}

TEST_CASE("uaddr_marks: beside the arguments of static marks, and at lines") {
  const std::string value = std::to_string(numbers(run_plain({fixture("fx_marks"), "values"}).out).at("reg_u2"));
  const Outcome marks =
      run({.argv = {command_path(), "run", "-q", "-e",
                    "usdt:" + fixture("fx_marks") +
                        ":form:reg_u2 { @mark[arg0] = (*uaddr(\"global_u2\"), *uaddr(\"global_u8\")) }",
                    "--", fixture("fx_marks"), "values"},
           .env = {},
           .preload = false});
  CAPTURE(marks.err);
  CHECK(has_line(marks.out, "@mark[" + value + "]: (" + value + ", 0)"));
  const std::string file = fixture("fx_vars2");
  const std::string line = std::to_string(numbers(run_plain({file}).out).at("late"));
  const Outcome lines =
      run_symbols("uprobe:" + file + "@fx_vars.cpp:" + line +
                      " { @args = args.global_count; @x = *uaddr(\"global_count\"); @file = *uaddr(\"file_count\"); "
                      "@deep = ((int32*)uaddr(\"deep::origin\"))[1] }",
                  file);
  CAPTURE(lines.err);
  for (const char* const said : {"@args: 7", "@x: 7", "@file: 40000", "@deep: -4"}) {
    CAPTURE(said);
    CHECK(has_line(lines.out, said));
  }
}

TEST_CASE("uaddr_alone: preloaded without a command") {
  const Outcome plain = run_plain({fixture("fx_symbols")});
  const Outcome probed =
      run_probed({fixture("fx_symbols")}, "step { @own = *uaddr(\"alone\"); @four = *uaddr(\"of_four\") }");
  CHECK(probed.out == plain.out);
  CAPTURE(probed.err);
  CHECK(has_line(probed.err, "@own: 6"));
  CHECK(has_line(probed.err, "@four: 2452903544"));
  CHECK(adds_up(probed.summary()));
}

TEST_CASE("uaddr_refused: names of nothing, of several, and probes of several files") {
  check_mistake("uprobe:FILE:step { print(*uaddr(\"of_eigth\")) }", "no symbol 'of_eigth' in ",
                "did you mean 'of_eight'?");
  check_mistake("uprobe:FILE:step { print(*uaddr(\"both\")) }", "'both' is 2 symbols in ", "they are at 0x");
  check_mistake("uprobe:FILE:step { print(*uaddr(\"of_each_thread\")) }", "'of_each_thread' is thread-local in ", "");
  check_mistake("uprobe:FILE:step { print(*uaddr(\"library_sum\")) }", "'library_sum' is not defined in ", "");
  check_mistake("uprobe:FILE:step, uprobe:libc:puts { print(*uaddr(\"of_one\")) }",
                "uaddr() takes the symbols of one file, and this probe is in 2", "give ");
  check_mistake("begin { print(*uaddr(\"of_one\")) } FILE:step",
                "uaddr() can not be used with 'begin' and 'end' probes", "");
  check_mistake("i:s:1 { print(*uaddr(\"of_one\")) } FILE:step", "uaddr() can not be used with 'interval' probes", "");
  check_mistake("uprobe:FILE:step { $name = \"of_one\"; print(*uaddr($name)) }",
                "uaddr() takes a symbol's name, as a literal", "");
  check_mistake("macro it(name) { *uaddr(name) } uprobe:FILE:step { print(it(\"of_one\")) }",
                "nothing is known of the symbol 'of_one'", "uaddr() takes its name where it stands, also in a macro");
}

}  // namespace ubp::test::uaddr_test
