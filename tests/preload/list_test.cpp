// `ubp list`: what files have that can be probed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "harness.h"

namespace ubp::test::list_test {

namespace {

Outcome ubp_list(std::vector<std::string> words, const std::string& folder = {}) {
  const std::string ubp = command_path();
  words.insert(words.begin(), {ubp, "list"});
  return run({.argv = std::move(words), .preload = false, .timeout_s = 60, .folder = folder});
}

}  // namespace

TEST_CASE("list_functions: by file and name, each with globs, sorted, spelt as the path is") {
  const std::string hello = fixture("fx_hello"), folder = hello.substr(0, hello.rfind('/'));
  const auto lines_of = [&](const std::string& kind, const std::string& path, std::vector<std::string> names) {
    std::string text;
    for (const std::string& name : names) text += kind + ":" + path + ":" + name + "\n";
    return text;
  };
  CHECK(ubp_list({"uprobe:" + hello + ":comp*"}).out == lines_of("uprobe", hello, {"compare_lengths", "compute"}));
  CHECK(ubp_list({"u:" + hello + ":compute"}).out == lines_of("uprobe", hello, {"compute"}));
  CHECK(ubp_list({"ur:" + hello + ":compute"}).out == lines_of("uretprobe", hello, {"compute"}));
  CHECK(ubp_list({"*:" + hello + ":compute"}).out == lines_of("uprobe", hello, {"compute"}));
  CHECK(ubp_list({"uprobe:" + hello + ":\"compute\", uprobe:" + hello + ":compar*"}).out ==
        lines_of("uprobe", hello, {"compute", "compare_lengths"}));
  CHECK(ubp_list({"uprobe:./fx_hell*:compute"}, folder).out == lines_of("uprobe", "./fx_hello", {"compute"}));
  CHECK(ubp_list({"-e", "uprobe:" + hello + ":compu*, uprobe:" + hello + ":compare_lengths { @ = count() }"}).out ==
        lines_of("uprobe", hello, {"compute", "compare_lengths"}));
  // A file by itself: all it has. Those of a program's text.
  const std::vector<std::string> all = lines(ubp_list({hello}).out);
  CHECK(std::is_sorted(all.begin(), all.end()));
  CHECK(std::count(all.begin(), all.end(), "uprobe:" + hello + ":compute") == 1);
  CHECK(ubp_list({"uprobe:" + hello + ":*"}).out == ubp_list({hello}).out);
  ScratchFolder scratch;
  write_file(scratch.path() + "/program.bt", "begin { }\nuprobe:" + hello + ":compute { }\n");
  CHECK(ubp_list({scratch.path() + "/program.bt"}).out == lines_of("uprobe", hello, {"compute"}));
}

TEST_CASE("list_libraries: by the name that the dynamic linker's cache knows; aliases too") {
  const Outcome found = ubp_list({"uprobe:libc:*malloc", "uprobe:libc.so.6:mem?py"});
  CHECK(found.end() == "exit 0");
  CHECK(found.err.empty());
  for (const std::string name : {":malloc\n", ":__libc_malloc\n", ":memcpy\n"}) {
    CAPTURE(name);
    CHECK(found.out.find("libc.so.6" + name) != std::string::npos);
  }
  CHECK(found.out.find('@') == std::string::npos);
}

TEST_CASE("list_lines: of a source file, and one of them") {
  const std::string program = fixture("fx_lines0");
  const auto said = numbers(run_plain({program}).out);
  const std::string times = std::to_string(said.at("times")), at = program + "@fx_lines.c:";
  const std::string all = ubp_list({"uprobe:" + at + "*"}).out;
  CHECK(has_line(all, "uprobe:" + at + times));
  CHECK(lines(all).size() > 10);
  CHECK(ubp_list({"u:" + program + "@fx_lines.c"}).out == all);
  CHECK(ubp_list({"uprobe:" + at + times}).out == "uprobe:" + at + times + "\n");
  CHECK(ubp_list({"-e", "stmt:" + program + "@fx_line?.c:" + times + " { }"}).out == "stmt:" + at + times + "\n");
  for (const std::string& nothing : {at + "1", program + "@other.c:*", fixture("fx_hello") + "@fx_hello.c:*"}) {
    const Outcome outcome = ubp_list({"uprobe:" + nothing});
    CHECK(outcome.out.empty());
    CHECK(outcome.end() == "exit 0");
  }
}

TEST_CASE("list_marks: static marks, by provider and name") {
  const std::string all = ubp_list({"usdt:libstdc++:*"}).out;
  CHECK(count_prefix(all, "usdt:/") == static_cast<int>(lines(all).size()));
  for (const std::string pattern : {"usdt:libstdc++:libstdcxx:throw", "usdt:libstdc++::throw", "U:libstdc++:thro*"}) {
    CAPTURE(pattern);
    const std::vector<std::string> found = lines(ubp_list({pattern}).out);
    REQUIRE(found.size() == 1);
    CHECK(found[0].substr(found[0].rfind('/')).find(":libstdcxx:throw") != std::string::npos);
    CHECK(all.find(found[0] + "\n") != std::string::npos);
  }
  CHECK(ubp_list({"usdt:libstdc++:other:throw"}).out.empty());
  CHECK(ubp_list({"usdt:" + fixture("fx_hello") + ":*"}).out.empty());
}

TEST_CASE("list_nothing: no output and status 0; a mistake in a program: status 1") {
  for (const std::string pattern :
       {"uprobe:./none:*", "uprobe:/etc/passwd:*", "uprobe:libc:no_such_function", "no.bt"}) {
    CAPTURE(pattern);
    const Outcome none = ubp_list({pattern});
    CHECK(none.end() == "exit 0");
    CHECK(none.out.empty());
    CHECK(none.err.empty() == (pattern != "no.bt"));
  }
  CHECK(ubp_list({"-e", "uprobe:libc:"}).end() == "exit 1");
  CHECK(ubp_list({}).end() == "exit 1");
}

TEST_CASE("list_verbose: arguments and their types, by debug information and of marks") {
  const std::string path = fixture("fx_source2");
  const std::string all = ubp_list({"-v", "uprobe:" + path + ":by_*"}).out;
  CHECK(all == "uprobe:" + path +
                   ":by_pointer\n    struct packed* packed\n    struct bits* bits\n    struct aligned* aligned\n" +
                   "    struct anonymous* anonymous\nuprobe:" + path +
                   ":by_value\n    Point p\n    struct two t\n    struct big b\n    Colour colour\n");
  CHECK(ubp_list({"-v", "uprobe:" + path + ":numbers"}).out.find("    const char* text\n    void* nothing\n") !=
        std::string::npos);
  CHECK(ubp_list({"-v", "uprobe:" + fixture("fx_hello") + ":compute"}).out ==
        "uprobe:" + fixture("fx_hello") + ":compute\n");
  const std::string marks = fixture("fx_marks");
  CHECK(ubp_list({"-v", "usdt:" + marks + ":float:float"}).out ==
        "usdt:" + marks + ":float:float\n    ? arg0 (8f@%xmm0 is a floating-point value)\n    int32 arg1\n");
}

}  // namespace ubp::test::list_test
