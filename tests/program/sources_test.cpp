// What programs import and include.
#include "runtime/analysis/sources.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "compiled.h"
#include "runtime/analysis/c_expression.h"
#include "runtime/analysis/headers.h"

namespace ubp::program {
namespace {

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/ubp-sources-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories(std::filesystem::path(path_ + '/' + name).parent_path());
    std::ofstream(path_ + '/' + name) << text;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string whole_text(const std::string& text, const Folder& folder, std::vector<Diagnostic>& diagnostics) {
  return with_sources("main.bt", text, {folder.path(), {folder.path() + "/inc"}, {}}, diagnostics);
}

std::string output(const std::string& text, const Folder& folder) {
  std::vector<Diagnostic> diagnostics;
  const std::string all = whole_text(text, folder, diagnostics);
  for (const Diagnostic& diagnostic : diagnostics) FAIL(diagnostic.message);
  return output_of_program(all);
}

}  // namespace

TEST_CASE("sources: macros, probes and maps of imported files") {
  const Folder folder;
  folder.write("a.bt", "import \"sub/b.bt\";\nmacro twice(x) { x + x }\nbegin { print(\"a\") }\n");
  folder.write("sub/b.bt", "import \"../a.bt\"; macro half(x) { x / 2 }");
  folder.write("sub/c.bt", "begin { print(\"c\") }");
  CHECK(output("import \"a.bt\"; begin { print(twice(half(8))) }", folder) == "a\n8\n");
  CHECK(output("import \"sub\"; begin { print(half(8)) }", folder) == "a\nc\n4\n");
  CHECK(output("begin { print(\"import \\\"no.bt\\\"\") }", folder) == "import \"no.bt\"\n");
  std::vector<Diagnostic> diagnostics;
  CHECK(whole_text("begin { }", folder, diagnostics) == "begin { }");
  CHECK(diagnostics.empty());
}

TEST_CASE("sources: a place is one of the file that it is in") {
  const Folder folder;
  folder.write("a.bt", "macro one() { 1 }\nmacro bad() { $no }\n");
  std::vector<Diagnostic> diagnostics;
  const std::string text = whole_text("import \"a.bt\";\nbegin {\n  bad() }", folder, diagnostics);
  REQUIRE(diagnostics.empty());
  Program::compile(tree_of(text), diagnostics);
  REQUIRE(diagnostics.size() == 1);
  const Sources sources("main.bt", text);
  CHECK(sources.place(diagnostics[0].span) == folder.path() + "/a.bt:2:15-18");
  REQUIRE(diagnostics[0].expanded_from.size() == 1);
  CHECK(sources.place(diagnostics[0].expanded_from[0]) == "main.bt:3:3-8");
}

TEST_CASE("sources: what is not there") {
  const Folder folder;
  const std::pair<std::string, std::string> cases[] = {
      {"import \"no.bt\"; begin { }", "failed to open file '" + folder.path() + "/no.bt'"},
      {"#include <no/such.h>\nbegin { }", "'no/such.h' file not found"},
      {"import \"x.bpf.c\"; begin { }",
       "'" + folder.path() + "/x.bpf.c' is C for the kernel: UBP runs in the program"}};
  for (const auto& [text, message] : cases) {
    std::vector<Diagnostic> diagnostics;
    whole_text(text, folder, diagnostics);
    REQUIRE(diagnostics.size() == 1);
    CHECK(diagnostics[0].message == message);
    CHECK(diagnostics[0].span.begin.line == 1);
  }
  folder.write("open/a.bt", "begin { }");
  chmod((folder.path() + "/open").c_str(), 0777);
  std::vector<Diagnostic> diagnostics;
  whole_text("import \"open/a.bt\"; begin { }", folder, diagnostics);
  REQUIRE(diagnostics.size() == 1);
  CHECK(diagnostics[0].message == "'" + folder.path() + "/open/a.bt' is in a directory that everybody can write to");
}

TEST_CASE("sources: a header's types and names") {
  const Folder folder;
  folder.write("inc/other.h", "#pragma once\n#define SIDE 3\ntypedef unsigned short u_side, *side_p;\n");
  folder.write("one.h",
               "#ifndef ONE_H\n#define ONE_H\n#include <other.h>\n#include <other.h>\n"
               "#define ADD(a, b) ((a) + \\\n  (b))\n#define AREA ADD(SIDE * SIDE, 1) /* ten */\n#define NAME \"it\"\n"
               "#if defined(NO) || SIDE > 5\n#error no\n#elif defined SIDE && (SIDE == 3)\n#define IS_THREE 1\n#else\n"
               "#define IS_THREE 0\n#endif\n"
               "extern int function(int a, struct point *b);\nstatic inline int other(void) { return ';'; }\n"
               "struct point { int x, y; u_side sides[SIDE + 1]; struct point *next; };\n"
               "struct odd { struct unknown inside; int a; };\n"
               "enum colour { RED, GREEN = AREA, BLUE };\n#define RED RED\n#endif\n");
  const std::string head = "#include \"one.h\"\nbegin { ";
  CHECK(output(head + "print((AREA, NAME, IS_THREE, GREEN, BLUE)) }", folder) == "(10, it, 1, GREEN, BLUE)\n");
  CHECK(output(head + "print(sizeof(struct point)); print(offsetof(struct point, sides)) }", folder) == "24\n8\n");
  CHECK(output("import \"one.h\"; begin { print(sizeof(u_side)) }", folder) == "2\n");
  std::vector<Diagnostic> diagnostics;
  const std::string text = whole_text(head + "print(sizeof(struct odd)) }", folder, diagnostics);
  CHECK(messages_of(text) == std::vector<std::string>{"22: Cannot resolve unknown type \"struct odd\""});
}

TEST_CASE("sources: the system's own headers") {
  const Folder folder;
  if (!std::filesystem::exists("/usr/include/errno.h")) {
    MESSAGE("skipped: no /usr/include here");
    return;
  }
  CHECK(output("#include <errno.h>\nbegin { print((ENOENT, EAGAIN, EWOULDBLOCK)) }", folder) ==
        "(" + std::to_string(ENOENT) + ", " + std::to_string(EAGAIN) + ", " + std::to_string(EWOULDBLOCK) + ")\n");
  CHECK(
      output("#include <sys/stat.h>\nbegin { print((sizeof(struct stat), offsetof(struct stat, st_size))) }", folder) ==
      "(" + std::to_string(sizeof(struct stat)) + ", " + std::to_string(offsetof(struct stat, st_size)) + ")\n");
}

TEST_CASE("sources: C's constant expressions") {
  const std::pair<std::string, std::int64_t> cases[] = {{"1 + 2 * 3", 7},
                                                        {"(1 + 2) * 3", 9},
                                                        {"1 << 4 | 3", 19},
                                                        {"~0", -1},
                                                        {"-7 / 2", -3},
                                                        {"5 % 3", 2},
                                                        {"0x10UL", 16},
                                                        {"010", 8},
                                                        {"1 ? 2 : 3", 2},
                                                        {"0 ? 2 : 3", 3},
                                                        {"!1 || 2 > 1 && 3 <= 3", 1},
                                                        {"'a'", 97},
                                                        {"sizeof(int) * 2", 8},
                                                        {"1 < 2 == 1", 1},
                                                        {"6 & 3 ^ 1", 3},
                                                        {"- - 1", 1},
                                                        {"sizeof (unsigned long)", 8}};
  for (const auto& [text, value] : cases) {
    CAPTURE(text);
    CHECK(evaluate(text, std::nullopt) == value);
  }
  for (const std::string_view text : {"", "1 +", "(1", "x", "1 / 0", "1.5", "sizeof(struct a)", "1 2"}) {
    CAPTURE(text);
    CHECK(!evaluate(text, std::nullopt));
  }
  CHECK(evaluate("x + __has(y) + 1", 0) == 1);
}

}  // namespace ubp::program
