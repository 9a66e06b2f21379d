// Debug information that is spread over several files: an alternative one as dwz makes it, split units and packages.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <map>

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

namespace {

// A program of two units whose debug information is in .dwo files. false: there is no compiler.
bool split(const std::string& folder, const std::string& options) {
  if (!has_command("gcc")) {
    MESSAGE("there is no gcc: not tested");
    return false;
  }
  write_file(folder + "/first.c",
             "struct At { int line; const char* file; };\n"
             "int g(struct At* at, long times);\n"
             "__attribute__((noipa)) int f(int number) { return number + 1; }\n"
             "int main(void) {\n"
             "  struct At at = {7, \"a file's name\"};\n"
             "  return f(41) + g(&at, 3) - 52;\n"
             "}\n");
  write_file(folder + "/second.c",
             "struct At { int line; const char* file; };\n"
             "enum Kind { kNone, kSome = 3 };\n"
             "static inline int inlined(int x) { return x * 3; }\n"
             "__attribute__((noipa)) void use(int* y) { ++*y; }\n"
             "__attribute__((noipa)) int g(struct At* at, long times) {\n"
             "  enum Kind kind = (enum Kind)times;\n"
             "  int y = inlined(at->line);\n"
             "  use(&y);\n"
             "  return y - (kind == kSome ? 12 : 0);\n"
             "}\n");
  const Outcome made = run_shell("cd " + folder + " && gcc -g -O1 -gsplit-dwarf " + options +
                                 " -c first.c second.c && gcc first.o second.o -o program");
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
  return true;
}

template <typename Number>
void append(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

// A package of DWARF 5 from .dwo files of one unit each. GNU dwp makes none.
void write_package(const std::string& folder, const std::vector<std::string>& units, const std::string& package) {
  constexpr unsigned kStrings = 6;
  const std::vector<std::pair<unsigned, std::string>> kinds = {
      {1, "info"}, {3, "abbrev"}, {4, "line"}, {5, "loclists"}, {kStrings, "str_offsets"}, {8, "rnglists"}};
  std::map<unsigned, std::string> sections;
  std::string strings, slots, rows, offsets, sizes, index;
  const auto part = [&](const std::string& unit, const std::string& name) {
    const std::string to = folder + "/part";
    std::filesystem::remove(to);
    run_shell("cd " + folder + " && objcopy --dump-section .debug_" + name + ".dwo=part " + unit + " /dev/null");
    return std::filesystem::exists(to) ? read_file(to) : "";
  };
  for (const auto& [kind, name] : kinds) append(index, kind);
  for (std::size_t i = 0; i < units.size(); ++i) {
    for (const auto& [kind, name] : kinds) {
      std::string bytes = part(units[i], name);
      if (kind == 1) slots.append(bytes, 12, 8);  // the unit's dwo_id
      for (std::size_t at = 8; kind == kStrings && at + 4 <= bytes.size(); at += 4) {
        std::uint32_t offset = 0;
        std::memcpy(&offset, &bytes[at], sizeof offset);
        offset += static_cast<std::uint32_t>(strings.size());
        std::memcpy(&bytes[at], &offset, sizeof offset);
      }
      append(offsets, static_cast<std::uint32_t>(sections[kind].size()));
      append(sizes, static_cast<std::uint32_t>(bytes.size()));
      sections[kind] += bytes;
    }
    append(rows, static_cast<std::uint32_t>(i + 1));
    strings += part(units[i], "str");
  }
  const auto count = static_cast<std::uint32_t>(units.size());
  std::string head;
  for (const std::uint32_t number : {5U, static_cast<std::uint32_t>(kinds.size()), count, count}) append(head, number);
  write_file(folder + "/index", head + slots + rows + index + offsets + sizes);
  write_file(folder + "/empty.c", "");
  write_file(folder + "/strings", strings);
  std::string words = "cd " + folder + " && gcc -c empty.c && objcopy --add-section .debug_cu_index=index" +
                      " --add-section .debug_str.dwo=strings";
  for (const auto& [kind, name] : kinds) {
    write_file(folder + "/" + name, sections[kind]);
    words += " --add-section .debug_" + name + ".dwo=" + name;
  }
  const Outcome made = run_shell(words + " empty.o " + package);
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
}

}  // namespace

TEST_CASE("split_debug_units: split units are read; without them it is said where they belong") {
  const ScratchFolder folder;
  const std::string program = folder.path() + "/program", unit = folder.path() + "/first.dwo";
  if (!split(folder.path(), "")) return;
  const auto asks = [&] { return ubp({"run", "-e", program + ":f { print(args.number) }", "--", program}); };
  CHECK(has_line(asks().out, "41"));
  std::filesystem::rename(unit, folder.path() + "/away");
  std::filesystem::remove(folder.path() + "/second.dwo");
  Outcome lacking = asks();
  CAPTURE(lacking.err);
  CHECK(lacking.end() == "exit 1");
  CHECK(lacking.err.find("ERROR: the debug information of " + program + " is in " + unit +
                         " and 1 more files, which are not there") != std::string::npos);
  CHECK(lacking.err.find("or in a package beside the program: " + program + ".dwp") != std::string::npos);
  write_file(program + ".dwp", "");
  lacking = asks();
  CAPTURE(lacking.err);
  CHECK(lacking.end() == "exit 1");
  CHECK(lacking.err.find("HINT: " + program + ".dwp is no package") != std::string::npos);
}

TEST_CASE("split_debug_package: split units that are in a package are read from there") {
  for (const std::string version : {"4", "5"}) {
    CAPTURE(version);
    const ScratchFolder folder;
    const std::string program = folder.path() + "/program", package = program + ".dwp";
    if (version == "4" && !has_command("dwp")) {
      MESSAGE("there is no dwp: DWARF 4 is not tested");
      continue;
    }
    if (!split(folder.path(), "-gdwarf-" + version)) return;
    const std::string block = program + ":g { print(args.at->line); print(str(args.at->file)); print(args.times) } " +
                              program + "@second.c:9 { print(args.kind); print(args.y) } inline:" + program +
                              ":inlined { @inlined = count() }";
    const auto asks = [&] {
      return std::vector<Outcome>{ubp({"run", "-e", block, "--", program}), ubp({"vars", program + "@second.c:9"}),
                                  ubp({"lines", program + ":g"}), ubp({"list", "-v", program + ":*"})};
    };
    const std::vector<Outcome> by_units = asks();
    CAPTURE(by_units[0].err);
    for (const char* line : {"7", "a file's name", "3", "kSome", "22", "@inlined: 1"})
      CHECK(has_line(by_units[0].out, line));
    if (version == "4") {
      REQUIRE(run_shell("cd " + folder.path() + " && dwp -e program").end() == "exit 0");
    } else {
      write_package(folder.path(), {"first.dwo", "second.dwo"}, package);
    }
    for (const char* unit : {"/first.dwo", "/second.dwo"}) std::filesystem::remove(folder.path() + unit);
    const std::vector<Outcome> by_package = asks();
    for (std::size_t i = 0; i < by_units.size(); ++i) {
      CAPTURE(by_package[i].err);
      CHECK(by_package[i].end() == "exit 0");
      CHECK(by_package[i].out == by_units[i].out);
    }
    // One that is cut off anywhere is no crash, and what is left of it may be told.
    const std::string whole = read_file(package);
    for (std::size_t size = 0; size < whole.size(); size += whole.size() / 23) {
      write_file(package, whole.substr(0, size));
      CHECK(ubp({"vars", program + "@second.c:9"}).end().starts_with("exit "));
    }
  }
}

}  // namespace ubp::test::split_debug_test
