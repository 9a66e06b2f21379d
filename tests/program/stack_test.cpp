// Stacks, names of addresses and addresses of names as values: what they print where there is no hit, and what they do
// not take.
#include "tests/program/compiled.h"

namespace ubp::program {

TEST_CASE("stacks: without a hit they have no frames") {
  CHECK(output_of("print(ustack); print((ustack(raw), \"a\"))") == "\n\n(\n, a)\n");
  CHECK(output_of("printf(\"%s|%d\", ustack(perf, 3), len(ustack))") == "\n|0");
  CHECK(output_of("$x = ustack(3); @ = len($x); @s = $x") == "@: 0\n@s: \n\n");
  CHECK(output_of("@[ustack, 1] = count(); @[ustack, 1] = count()") == "@[\n, 1]: 2\n");
  CHECK(output_of("print(dw_ustack(build_id, 5))") == "\n\n");
}

TEST_CASE("stacks: an address without a name is a number") {
  CHECK(output_of("print(usym(1)); @[usym(1)] = count(); @x = (1, usym(0xffffffffffffffff))") ==
        "0x1\n@[0x1]: 1\n@x: (1, 0xffffffffffffffff)\n");
}

TEST_CASE("stacks: the mode is a setting, which a call has its own of") {
  CHECK(messages_of("config = { stack_mode = raw } begin { $x = ustack; $x = ustack(raw) }").empty());
  CHECK(messages_of("config = { stack_mode = dog } begin { print(ustack) }").front() ==
        "45: Invalid value for stack_mode: dog");
  check_mistake("$x = ustack(perf); $x = ustack(raw)",
                "Type mismatch for $x: trying to assign value of type 'ustack(raw)' when variable already has a type "
                "'ustack(perf)'");
}

TEST_CASE("stacks: what they do not take") {
  const std::pair<std::string, std::string> cases[] = {
      {"print(ustack(dog))", "Invalid value for stack_mode: dog"},
      {"print(ustack(5, raw))", "Expected stack mode as first argument"},
      {"print(ustack(raw, \"a\"))", "ustack: invalid limit value"},
      {"$n = 3; print(ustack($n))", "ustack: invalid limit value"},
      {"print(ustack(1025))", "ustack([int limit]): limit shouldn't exceed 1024, 1025 given"},
      {"print(ustack(1, 2, 3))", "ustack() takes at most 2 arguments, 3 found"},
      {"print(ustack + 1)", "The operation can not be used on 'ustack(bpftrace)' and 'int8'"},
      {"printf(\"%d\", ustack)", "unsupported format specifier for type 'ustack(bpftrace)': d"},
      {"print(usym(\"a\"))", "an address is a number or a bool, not 'string[2]'"},
      {"print(len(usym(1)))", "len() expects a map"},
  };
  for (const auto& [block, message] : cases) check_mistake(block, message);
}

TEST_CASE("symbols: pointers to numbers as wide as the symbol") {
  const std::string rows =
      "#symbol 0 ab 4010 1 one\t\t\n#symbol 0 ab 4020 2 two\t\t\n#symbol 0 ab 4030 4 four\t\t\n"
      "#symbol 0 ab 4040 8 eight\t\t\n#symbol 0 ab 4050 20 row\t\t\n#symbol 0 ab 0 0 gone\tno symbol 'gone'\t\n"
      "#symbol 1 ab 4060 4 other\t\t\n";
  const auto program = compiled(rows +
                                "f { $x = uaddr(\"one\"); @ = *uaddr(\"two\"); print((sizeof(*$x), "
                                "sizeof(*uaddr(\"two\")), sizeof(*uaddr(\"four\")), sizeof(*uaddr(\"eight\")), "
                                "sizeof(*uaddr(\"row\")))) } g { print(uaddr(\"other\")) }");
  CHECK(program->analysis().variables[0] == pointer_to(integer(8, false)));
  CHECK(program->analysis().maps[0].value == integer(16, false));
  CHECK(program->analysis().symbol_files == std::vector<std::string>{"ab", "ab"});
  CHECK(program->needs_names(0));
  CHECK(messages_of(rows + "f { print(uaddr(\"gone\")) }").front() == "11: no symbol 'gone'");
  CHECK(messages_of(rows + "f { print(uaddr(\"other\")) }").front() == "11: nothing is known of the symbol 'other'");
  CHECK(messages_of(rows + "f { print(uaddr(1)) }").front() == "17: uaddr() takes a symbol's name, as a literal");
  CHECK(messages_of(rows + "f { print(uaddr(\"a\\n\")) }").front() ==
        "17: uaddr() takes a symbol's name, as a literal");
  check_mistake("print(uaddr(\"one\"))", "uaddr() can not be used with 'begin' and 'end' probes");
}

}  // namespace ubp::program
