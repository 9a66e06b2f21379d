// Debug information that is spread over several files: an alternative one as dwz makes it, split units and packages.
#include <doctest/doctest.h>

#include <filesystem>

#include "harness.h"

namespace ubp::test::split_debug_test {
namespace {

constexpr const char* kPrograms[] = {"fx_vars0", "fx_vars2", "fx_source2"};

Outcome ubp(std::vector<std::string> words) {
  words.insert(words.begin(), command_path());
  return run({.argv = std::move(words), .preload = false, .timeout_s = 60});
}

// Copies of programs whose common debug information is in another file; false: there is no dwz.
bool share(const std::string& folder) {
  if (!has_command("dwz")) {
    MESSAGE("there is no dwz: not tested");
    return false;
  }
  std::string words = "cd " + folder + " && dwz -m common.dwz";
  for (const std::string name : kPrograms) {
    std::filesystem::copy_file(fixture(name), folder + "/" + name);
    words += " " + name;
  }
  const Outcome made = run_shell(words);
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
  REQUIRE(std::filesystem::exists(folder + "/common.dwz"));
  return true;
}

// Without the program's path, which differs.
std::string without(std::string text, const std::string& path) {
  for (std::size_t at = 0; (at = text.find(path)) != std::string::npos;) text.erase(at, path.size());
  return text;
}

}  // namespace

TEST_CASE("split_debug_alternative: what dwz has moved to another file is read from there") {
  const ScratchFolder folder;
  if (!share(folder.path())) return;
  for (const std::string name : kPrograms) {
    CAPTURE(name);
    const std::string own = fixture(name), shared = folder.path() + "/" + name;
    const auto said = numbers(run_plain({own}).out);
    const bool has_lines = said.contains("loop");
    const std::string target =
        has_lines ? std::string("@fx_vars.cpp:") + std::to_string(said.at("loop")) : std::string(":main");
    const Outcome vars = ubp({"vars", own + target}), lines = ubp({"lines", own + ":main"});
    CHECK(vars.end() == "exit 0");
    CHECK(lines.end() == "exit 0");
    CHECK(without(ubp({"vars", shared + target}).out, shared) == without(vars.out, own));
    CHECK(without(ubp({"lines", shared + ":main"}).out, shared) == without(lines.out, own));
    if (!has_lines) continue;
    const std::string block = " { @total = args.total; @next = args.first->next->at.y; @kind = args.first->kind }";
    const Outcome values = ubp({"run", "-e", shared + target + block, "--", shared});
    CAPTURE(values.err);
    for (const char* line : {"@next: -6", "@kind: 5"}) CHECK(has_line(values.out, line));
  }
}

TEST_CASE("split_debug_alternative_missing: it is said which file is not there") {
  const ScratchFolder folder;
  if (!share(folder.path())) return;
  std::filesystem::remove(folder.path() + "/common.dwz");
  const std::string shared = folder.path() + "/fx_vars2";
  const std::string what =
      "ERROR: a part of the debug information of " + shared + " is in common.dwz, which is not there";
  CHECK(ubp({"vars", shared + ":main"}).err.find(what) != std::string::npos);
  const Outcome values = ubp({"run", "-e", shared + ":main { print(args) }", "--", shared});
  CHECK(values.end() == "exit 1");
  CHECK(values.err.find(what) != std::string::npos);
}

TEST_CASE("split_debug_units: split units are read; without them, or in a package, it is said where they are") {
  if (!has_command("gcc")) {
    MESSAGE("there is no gcc: not tested");
    return;
  }
  const ScratchFolder folder;
  const std::string program = folder.path() + "/program", unit = folder.path() + "/program.dwo";
  write_file(folder.path() + "/program.c",
             "__attribute__((noipa)) int f(int number) { return number + 1; }\n"
             "int main(void) { return f(41) - 42; }\n");
  const Outcome made =
      run_shell("cd " + folder.path() + " && gcc -g -O1 -gsplit-dwarf -c program.c && gcc program.o -o program");
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
  const auto asks = [&] { return ubp({"run", "-e", program + ":f { print(args.number) }", "--", program}); };
  CHECK(has_line(asks().out, "41"));
  std::filesystem::rename(unit, folder.path() + "/away");
  Outcome lacking = asks();
  CAPTURE(lacking.err);
  CHECK(lacking.end() == "exit 1");
  CHECK(lacking.err.find("ERROR: the debug information of " + program + " is in " + unit + ", which is not there") !=
        std::string::npos);
  write_file(program + ".dwp", "");  // as any is to a libdw that reads none
  lacking = asks();
  CAPTURE(lacking.err);
  CHECK(lacking.end() == "exit 1");
  CHECK(lacking.err.find("ERROR: the debug information of " + program + " is in " + program +
                         ".dwp, which cannot be read: libdw ") != std::string::npos);
  CHECK(lacking.err.find("HINT: elfutils 0.191 and later do; or keep the .dwo files that it was made of: " + unit) !=
        std::string::npos);
  CHECK(ubp({"lines", program + ":f"}).err.find(program + ".dwp, which cannot be read") != std::string::npos);
}

}  // namespace ubp::test::split_debug_test
