// Bad input: one clear line on standard error, nothing armed, and the program's own output and exit status.
// A second line may give a hint; it is indented ("ubp:   did you mean ...").
#include <doctest/doctest.h>

#include <unistd.h>

#include <random>

#include "harness.h"

namespace ubp::test::bad_input_test {

namespace {

constexpr uid_t kNobody = 65534;

// What UBP said: the program's own lines are taken out.
std::string said_by_ubp(const Outcome& outcome) {
  std::string text;
  for (const std::string& line : lines(outcome.err)) {
    if (line.rfind("ubp", 0) == 0) text += line + "\n";
  }
  return text;
}

bool is_printable(std::string_view text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 && c != '\n') return false;
  }
  return true;
}

// The program ran as if the library was not there; UBP said one error line that holds all of `words`.
void check_untouched(const Outcome& probed, const std::vector<std::string>& words, bool makes_summary = true) {
  Outcome plain = run_plain({fixture("fx_hello")});
  std::string said = said_by_ubp(probed);
  CAPTURE(said);
  CHECK(probed.end() == plain.end());
  CHECK(probed.out == plain.out);
  CHECK(count_prefix(probed.err, "ubp: error: ") == 1);
  if (makes_summary) CHECK(probed.summary().contains("error"));
  CHECK(lines(said).size() <= 2);
  for (const std::string& line : lines(said)) {
    bool is_known = line.rfind("ubp: error: ", 0) == 0 || line.rfind("ubp:   ", 0) == 0;
    CHECK(is_known);
    CHECK(line.size() <= 520);
  }
  CHECK(is_printable(said));
  for (const std::string& word : words) {
    CAPTURE(word);
    CHECK(said.find(word) != std::string::npos);
  }
  CHECK(count_prefix(probed.err, "this is the program's own line") == 1);
  nlohmann::json summary = probed.summary();
  if (!summary.contains("totals")) return;
  CHECK(total(summary, "probepoints_armed") == 0);
  CHECK(summary["version"] == "0.1.0");
  CHECK(summary["program"].get<std::string>().ends_with("fx_hello"));
  REQUIRE(summary.contains("error"));
  for (const char* part : {"what", "where", "why"}) CHECK(summary["error"][part].get<std::string>() != "");
  CHECK(summary["error"].contains("hint"));
  std::string told = summary["error"].dump();
  for (const std::string& word : words) {
    CAPTURE(word);
    CHECK(told.find(word) != std::string::npos);
  }
}

void check_bad(const std::string& probes, const std::vector<std::string>& words) {
  CAPTURE(probes);
  check_untouched(run_probed({fixture("fx_hello")}, probes), words);
}

std::string random_bytes(std::size_t size, bool with_nul) {
  std::mt19937 random(20250101);
  std::string bytes(size, '\0');
  for (char& c : bytes) {
    do c = static_cast<char>(random());
    while (c == '\0' && !with_nul);
  }
  return bytes;
}

}  // namespace

TEST_CASE("bad input: empty") {
  check_bad("", {"UBP_PROBES"});
  check_bad(" \t\n ; ;\n", {"UBP_PROBES"});
  check_bad("# only a comment", {"UBP_PROBES"});
}

TEST_CASE("bad input: unknown module") {
  check_bad("libnothere:malloc", {"UBP_PROBES:1:1", "libnothere"});
  check_bad("compute; libnothere:malloc", {"UBP_PROBES:1:10", "libnothere"});
}

TEST_CASE("bad input: unknown symbol, with the nearest name") {
  check_bad("comput", {"UBP_PROBES:1:1", "'comput'", "fx_hello", "did you mean", "'compute'"});
  check_bad("fx_hello:comptue", {"UBP_PROBES:1:10", "'comptue'", "'compute'"});
  check_bad("libc:mallocc", {"'mallocc'", "libc.so.6", "malloc"});
  check_bad("zzz_no_such_*", {"zzz_no_such_*"});
}

TEST_CASE("bad input: syntax, with line and column") {
  check_bad("compute; fx_hello:", {"UBP_PROBES:1:19"});
  check_bad("compute\n  main+zz", {"UBP_PROBES:2:8"});
  check_bad("\"compute", {"UBP_PROBES:1:1"});
  check_bad("compute]", {"UBP_PROBES:1:8"});
  check_bad("main+0x99999999999999999", {"UBP_PROBES:1:6"});
  check_bad("!", {"UBP_PROBES:1:"});
}

TEST_CASE("bad input: what later versions will know is told by name") {
  check_bad("compute n=arg0", {"UBP_PROBES:1:9"});
}

TEST_CASE("bad input: an address inside an instruction, with the nearest boundaries") {
  check_bad("fixed_length+1", {"UBP_PROBES:1:1", "inside an instruction", "fixed_length+0x0", "fixed_length+0x5"});
  check_bad("fixed_length+0x7", {"fixed_length+0x5", "fixed_length+0xa"});
}

TEST_CASE("bad input: an address outside text") {
  check_bad("fx_hello:0x10", {"UBP_PROBES:1:10", "0x10"});
  check_bad("fx_hello:0x7fffffff0000", {"0x7fffffff0000"});
  check_bad("fx_hello:0xffffffffffffffff", {"0xffffffffffffffff"});
  check_bad("compute+0x100000", {"compute", "0x100000"});
}

TEST_CASE("bad input: a data symbol") {
  check_bad("shared_counter", {"UBP_PROBES:1:1", "shared_counter", "data"});
  check_bad("libc:environ", {"environ", "data"});
}

TEST_CASE("bad input: an undefined symbol says where it is defined") { check_bad("printf", {"printf", "libc.so.6"}); }

TEST_CASE("bad input: a good item beside a bad one is not armed either") {
  check_bad("compute; comput", {"UBP_PROBES:1:10"});
  check_bad("main\nnothing_like_this\ncompute", {"UBP_PROBES:2:1"});
}

TEST_CASE("bad input: options with values that they do not have") {
  for (const auto& [name, value] : Environment{{"UBP_SLOTS", "0"},
                                               {"UBP_SLOTS", "many"},
                                               {"UBP_SLOTS", "-1"},
                                               {"UBP_MISSING", "perhaps"},
                                               {"UBP_XOL", "none"},
                                               {"UBP_SLOT", "4"},
                                               {"UBP_PROBES_FILE", "/nonexistent/probes"}}) {
    CAPTURE(name);
    CAPTURE(value);
    check_untouched(run_probed({fixture("fx_hello")}, "compute", {{name, value}}), {name});
  }
}

TEST_CASE("bad input: an output directory that cannot be written") {
  Environment to_proc = {{"UBP_OUTPUT", "/proc/self/nothing/ubp.out"}};
  check_untouched(run_probed({fixture("fx_hello")}, "compute", to_proc), {"UBP_OUTPUT", "/proc/self/nothing"});
  check_untouched(run_probed({fixture("fx_hello")}, "compute", {{"UBP_OUTPUT", "/etc/passwd/x"}}), {"UBP_OUTPUT"});
  check_untouched(run_probed({fixture("fx_hello")}, "compute", {{"UBP_OUTPUT", "ubp.%q.out"}}), {"UBP_OUTPUT", "%q"});
  if (::getuid() != 0) return;
  Outcome denied = run({.argv = {fixture("fx_hello")},
                        .env = {{"UBP_PROBES", "compute"}, {"UBP_OUTPUT", "/root-only-ubp/x.out"}},
                        .uid = kNobody});
  if (denied.exit_status == 127 || denied.err.find("cannot be preloaded") != std::string::npos) {
    MESSAGE("SKIP: the build folder cannot be read by another user");
    return;
  }
  check_untouched(denied, {"UBP_OUTPUT", "/root-only-ubp", "ermission denied"});
}

TEST_CASE("bad input: random bytes") {
  ScratchFolder folder;
  std::string path = folder.path() + "/probes";
  for (bool with_nul : {true, false}) {
    write_file(path, random_bytes(1 << 20, with_nul));
    Outcome probed = run({.argv = {fixture("fx_hello")}, .env = {{"UBP_PROBES_FILE", path}}, .timeout_s = 10});
    check_untouched(probed, {});
  }
  check_untouched(run_probed({fixture("fx_hello")}, random_bytes(120000, false)), {"UBP_PROBES:"});
  std::string brackets(1 << 20, '[');
  for (const std::string& content : {brackets, std::string(1 << 20, '(')}) {
    write_file(path, content);
    Outcome probed = run({.argv = {fixture("fx_hello")}, .env = {{"UBP_PROBES_FILE", path}}, .timeout_s = 10});
    check_untouched(probed, {});
  }
}

TEST_CASE("UBP_MISSING=error: the program is not started, exit status 125") {
  for (std::string probes : {"", "comput", "libnothere:x", "main+zz", "fixed_length+1", "shared_counter"}) {
    CAPTURE(probes);
    Outcome probed = run_probed({fixture("fx_hello")}, probes, {{"UBP_MISSING", "error"}});
    CHECK(probed.end() == "exit 125");
    CHECK(probed.out == "");
    CHECK(probed.summary().contains("error"));
    int errors = count_prefix(probed.err, "ubp: error: ");  // what is wrong, and maybe what it led to
    CHECK((errors == 1 || errors == 2));
    CHECK(count_prefix(probed.err, "this is the program's own line") == 0);
  }
  Outcome good = run_probed({fixture("fx_hello")}, "compute", {{"UBP_MISSING", "error"}});
  CHECK(good.end() == "exit 7");
  CHECK(hits(good.summary(), "compute") == 2);
}

TEST_CASE("a program that forks runs untouched after a bad specification") {
  Outcome probed = run_probed({"/bin/sh", "-c", "(echo child); echo parent"}, "libc:no_such_function_here");
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "child\nparent\n");
}

TEST_CASE("what waits for modules, and is in none of those that its name fits, is told") {
  struct Waiting {
    std::string probes, line;
  };
  for (const Waiting& waiting :
       {Waiting{"libc:mallocc [missing=pending]", "UBP_PROBES:1:6: no function 'mallocc' in libc.so.6"},
        Waiting{"zzz_none [missing=pending]", "UBP_PROBES:1:1: no function 'zzz_none' in "},
        Waiting{"compute; zzz_none [missing=pending]", "UBP_PROBES:1:10: no function 'zzz_none' in "}}) {
    CAPTURE(waiting.probes);
    Outcome probed = run_probed({fixture("fx_hello")}, waiting.probes);
    CHECK(probed.end() == "exit 7");
    CHECK(count_prefix(probed.err, "ubp: warning: " + waiting.line) == 1);
  }
  Outcome later = run_probed({fixture("fx_hello")}, "*_bz2*:PyInit_* [missing=pending]; compute");
  CHECK(count_prefix(later.err, "ubp: warning: ") == 0);
}

TEST_CASE("UBP_LOG=off: not a word, hints included") {
  Outcome probed = run_probed({fixture("fx_hello")}, "comput", {{"UBP_LOG", "off"}});
  CHECK(probed.end() == "exit 7");
  CHECK(said_by_ubp(probed) == "");
}

TEST_CASE("what people write when they mean something else") {
  struct Meant {
    std::string probes, hint;
  };
  for (const Meant& meant :
       {Meant{"libc", "libc.so.6 is a module: 'libc:FUNCTION'"}, Meant{"libc::malloc", "did you mean 'libc:malloc'?"},
        Meant{"libpthread:pthread_create", "it is part of libc.so.6 since glibc 2.34: 'libc:pthread_create'"},
        Meant{"malloc@plt", "leads to another module's function"},
        Meant{"libc:fopen@", "expected a version, which is no glob, after '@'"},
        Meant{"libc:realpath@GLIBC_9", "'realpath' in libc.so.6 has no version 'GLIBC_9'"},
        Meant{"libc:realpath@GLIBC_9", "there is 'realpath@@GLIBC_2.3', 'realpath@GLIBC_2.2.5'"},
        Meant{"libc:realpath@@GLIBC_2.2.5", "'realpath' in libc.so.6 has no default version 'GLIBC_2.2.5'"},
        Meant{"libc:realpat@GLIBC_2.3", "did you mean 'realpath'?"},
        Meant{"fx_hello:parse:v", "UBP_PROBES:1:15: unexpected ':' after 'fx_hello:parse'"},
        Meant{"libc:malloc libc:free",
              "UBP_PROBES:1:13: unexpected 'libc:free' after the target; separate probes with ';'"}}) {
    CAPTURE(meant.probes);
    Outcome probed = run_probed({fixture("fx_hello")}, meant.probes);
    CHECK(probed.end() == "exit 7");
    CHECK(said_by_ubp(probed).find(meant.hint) != std::string::npos);
    CHECK(said_by_ubp(probed).find("nothing is probed") != std::string::npos);
  }
  Outcome unknown = run_probed({fixture("fx_hello")}, "libnothere:malloc");
  CHECK(unknown.err.find("libZydis") == std::string::npos);  // UBP's own
  ScratchFolder folder;
  write_file(folder.path() + "/probes",
             "\xef\xbb\xbf"
             "compute\n");
  Outcome marked = run({.argv = {fixture("fx_hello")}, .env = {{"UBP_PROBES_FILE", folder.path() + "/probes"}}});
  CHECK(hits(marked.summary(), "compute") == 2);
  Outcome dash = run_probed({fixture("fx_hello")}, "compute", {{"UBP_OUTPUT", "-"}});
  CHECK(count_prefix(dash.err, "ubp: hits ") == 1);
}

}  // namespace ubp::test::bad_input_test
