// A program that is started by another: the wrapper that has nothing of what is to be probed passes it on; what several
// processes have to say in the same words is said once; and what they print goes where the first one's goes.
#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "harness.h"

namespace ubp::test::family_test {

namespace {

const std::string kProbes = "fx_hello:compute";

std::string hello() { return fixture("fx_hello"); }

// What UBP said.
std::string said(const Outcome& outcome) {
  std::string text;
  for (const std::string& line : lines(outcome.err)) {
    if (line.rfind("ubp", 0) == 0) text += line + "\n";
  }
  return text;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// How many of the processes counted, and what.
void check_counts(const Outcome& outcome, int processes) {
  int found = 0;
  for (const auto& [pid, summary] : outcome.summaries) {
    if (hits(summary, kProbes) == ~0ull) continue;
    ++found;
    CHECK(hits(summary, kProbes) == 2);
    CHECK(adds_up(summary));
  }
  CHECK(found == processes);
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

TEST_CASE("wrappers that have nothing of what is to be probed pass it on") {
  const std::vector<std::vector<std::string>> wrappers = {
      {"/bin/sh", "-c", "exec " + hello()},
      {"/bin/sh", "-c", hello() + "; exit $?"},
      {"/bin/bash", "-c", hello() + "; exit $?"},
      {"/usr/bin/timeout", "60", hello()},
      {"/usr/bin/nice", hello()},
      {"/usr/bin/env", "A=b", hello()},
      {"/usr/bin/timeout", "60", "/usr/bin/nice", "/bin/sh", "-c", hello() + "; exit $?"}};
  for (const std::vector<std::string>& argv : wrappers) {
    CAPTURE(argv[0]);
    CAPTURE(argv[1]);
    Outcome plain = run_plain(argv), probed = run_probed(argv, kProbes);
    CHECK(probed.end() == "exit 7");
    CHECK(probed.out == plain.out);
    check_counts(probed, 1);
    CHECK(count_prefix(probed.err, "ubp: hits       2 = 2 recorded") == 1);
    CHECK(has(said(probed), "unless what this program executes has it"));
  }
}

TEST_CASE("a relative path in LD_PRELOAD finds libubp from another folder, too") {
  ScratchFolder folder;
  const std::string name = std::filesystem::path(library()).filename();
  Outcome probed = run({.argv = {"/bin/sh", "-c", "cd /; " + hello() + "; exit $?"},
                        .env = {{"LD_PRELOAD", "./" + name}, {"UBP_PROBES", kProbes}},
                        .preload = false,
                        .folder = folder_of(library())});
  CHECK(probed.end() == "exit 7");
  CHECK(count_prefix(probed.err, "ubp: hits       2 = 2 recorded") == 1);
  CHECK_FALSE(has(probed.err, "cannot be preloaded"));
}

TEST_CASE("a program that is probed passes nothing on") {
  Outcome probed = run_probed({"/bin/sh", "-c", "env; " + hello() + "; exit $?"}, "libc:malloc");
  CHECK(probed.end() == "exit 7");
  CHECK(probed.summaries.size() == 1);
  CHECK_FALSE(has(probed.out, "UBP_"));
  CHECK_FALSE(has(probed.out, "LD_PRELOAD"));
}

TEST_CASE("a wrapper that is probed itself does not lose the program without a word") {
  for (const std::vector<std::string>& argv :
       std::vector<std::vector<std::string>>{{"/usr/bin/nice", hello()}, {"/bin/sh", "-c", "exec " + hello()}}) {
    CAPTURE(argv[0]);
    Outcome replaced = run_probed(argv, "libc:malloc; libc:str*");
    CHECK(replaced.end() == "exit 7");
    CHECK(lines(said(replaced)).size() == 1);
    CHECK(has(said(replaced), " is replaced by " + hello() + ": it leaves no report"));
    CHECK(has(said(replaced), "UBP_FOLLOW=exec probes it, too"));
  }
  for (const std::vector<std::string>& argv : std::vector<std::vector<std::string>>{
           {"/usr/bin/timeout", "60", hello()}, {"/bin/sh", "-c", hello() + "; exit $?"}}) {
    CAPTURE(argv[0]);
    Outcome child = run_probed(argv, "libc:malloc; libc:str*");
    CHECK(child.end() == "exit 7");
    CHECK(count_prefix(child.err, "ubp: executed   1 program by its children, unprobed (UBP_FOLLOW=exec") == 1);
    CHECK(count_prefix(run_probed(argv, "libc:malloc", {{"UBP_FOLLOW", "exec"}}).err, "ubp: executed ") == 0);
  }
  Outcome spawns =
      run_probed({"/usr/bin/python3", "-S", "-E", "-c",
                  "import os\nfor i in range(3): os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"},
                 "libc:malloc");
  CHECK(spawns.end() == "exit 0");
  CHECK(count_prefix(spawns.err, "ubp: executed   3 programs by its children") == 1);
  Outcome fails = run_probed(
      {"/usr/bin/python3", "-S", "-E", "-c", "import os\ntry: os.execv('/nonexistent', ['x'])\nexcept OSError: pass"},
      "libc:malloc");
  CHECK(fails.end() == "exit 0");
  CHECK_FALSE(has(said(fails), "is replaced"));
}

TEST_CASE("what executed programs do not have is said once, with a count") {
  const std::string script = "/bin/ls / >/dev/null; /bin/true; /bin/true; " + hello() + "; exit $?";
  for (const char* missing : {"warn", ""}) {
    CAPTURE(missing);
    Environment more = {{"UBP_FOLLOW", "exec"}};
    if (*missing != '\0') more.emplace_back("UBP_MISSING", missing);
    Outcome probed = run_probed({"/bin/sh", "-c", script}, kProbes, more);
    const std::string text = said(probed);
    CAPTURE(text);
    CHECK(probed.end() == "exit 7");
    check_counts(probed, 1);
    CHECK(has(
        text,
        "3 of 4 executed programs lack what is to be probed, first /usr/bin/ls: UBP_PROBES:1:1: no module 'fx_hello'"));
    int told = 0;
    for (const std::string& line : lines(text)) told += has(line, "no module") ? 1 : 0;
    CHECK(told == 2);  // the shell's own, and that
  }
}

TEST_CASE("... and an item that fits some of them only") {
  Outcome probed = run_probed({"/bin/sh", "-c", "/bin/true; /bin/true; " + hello() + "; exit $?"},
                              "libc:malloc; " + kProbes, {{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "warn"}});
  CHECK(probed.end() == "exit 7");
  check_counts(probed, 1);
  CHECK(probed.summaries.size() == 4);
  int told = 0;
  for (const std::string& line : lines(said(probed))) told += has(line, "no module 'fx_hello'") ? 1 : 0;
  CHECK(told == 2);  // the shell's own, and that of the others
  CHECK(has(said(probed), "2 of 3 executed programs lack what is to be probed"));
}

TEST_CASE("what is said of programs without it is said of one that comes near") {
  Outcome probed = run_probed({"/bin/sh", "-c", "/bin/true; " + hello() + "; exit $?"}, "fx_hello:nothing_of_that_name",
                              {{"UBP_FOLLOW", "exec"}});
  CHECK(probed.end() == "exit 7");
  CHECK(
      has(said(probed), "2 of 2 executed programs lack what is to be probed, nearest " + hello() + ": UBP_PROBES:1:"));
  CHECK(has(said(probed), "nothing_of_that_name"));
}

TEST_CASE("nobody finds it: the first says so, and that the others had none either") {
  Outcome probed = run_probed({"/bin/sh", "-c", "/bin/ls / >/dev/null; /bin/true; exit 3"}, "fx_hallo:compute");
  CHECK(probed.end() == "exit 3");
  CHECK(has(said(probed), "no module 'fx_hallo'"));
  CHECK(has(said(probed), "2 of 2 executed programs lack what is to be probed"));
  CHECK(count_prefix(probed.err, "ubp: error: ") == 1);
}

TEST_CASE("what a script captures is what its programs wrote") {
  // In a pipe, in a file, in the terminal's place, and in nothing at all.
  const std::string script = "x=$(" + hello() + " 2>&1); echo \"<$x>\"; " + hello() +
                             " 2>report; cat report; rm report; " + hello() + " 2>/dev/null; " + hello() + " 2>&-; " +
                             hello() + "; exit $?";
  for (Environment more : {Environment{{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "ignore"}}, Environment{}}) {
    ScratchFolder folder;
    more.emplace_back("UBP_PROBES", kProbes);
    const std::vector<std::string> argv = {"/bin/sh", "-c", script};
    Outcome plain = run({.argv = argv, .preload = false, .folder = folder.path()});
    Outcome probed = run({.argv = argv, .env = more, .folder = folder.path()});
    CHECK(probed.end() == plain.end());
    CHECK(probed.out == plain.out);
    check_counts(probed, 5);
    CHECK(count_prefix(probed.err, "ubp: hits       2 = 2 recorded") == 5);  // where the first one's standard error is
  }
}

TEST_CASE("executed programs keep each other's files") {
  ScratchFolder folder;
  const std::string output = folder.path() + "/report", summary = folder.path() + "/summary";
  const std::string script = hello() + "; " + hello() + "; " + hello() + "; exit $?";
  Outcome probed = run(
      {.argv = {"/bin/sh", "-c", script},
       .env = {{"UBP_PROBES", "libc:malloc"}, {"UBP_FOLLOW", "exec"}, {"UBP_OUTPUT", output}, {"UBP_SUMMARY", summary}},
       .summary = false});
  CHECK(probed.end() == "exit 7");
  CHECK(has(read_file(output), "(pid " + std::to_string(probed.pid) + ")"));
  CHECK(read_json(summary)["pid"] == probed.pid);
  int reports = 0, summaries = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    reports += entry.path().string().rfind(output + ".", 0) == 0 ? 1 : 0;
    summaries += entry.path().string().rfind(summary + ".", 0) == 0 ? 1 : 0;
  }
  CHECK(reports == 3);
  CHECK(summaries == 3);
}

TEST_CASE("behind a wrapper the file's name is the probed program's") {
  ScratchFolder folder;
  const std::string output = folder.path() + "/report";
  Outcome probed = run_probed({"/usr/bin/timeout", "60", hello()}, kProbes, {{"UBP_OUTPUT", output}});
  CHECK(probed.end() == "exit 7");
  CHECK(has(read_file(output), "ubp: hits       2 = 2 recorded"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("two files of one name are refused; an old report does not outlive a run that has none") {
  ScratchFolder folder;
  const std::string path = folder.path() + "/report";
  write_file(path, "ubp: hits       1000000\n");
  const auto start = [&](Environment env) { return run({.argv = {hello()}, .env = std::move(env), .summary = false}); };
  Outcome same = start({{"UBP_PROBES", "compute"}, {"UBP_OUTPUT", path}, {"UBP_SUMMARY", path}});
  CHECK(same.end() == "exit 7");
  CHECK(has(said(same), "UBP_SUMMARY: '" + path + "' is where UBP_OUTPUT goes"));
  CHECK(has(said(same), "nothing is probed"));
  const std::vector<Environment> mistakes = {
      {{"UBP_PROBES", "comput"}}, {{"UBP_PROBES", "compute]"}}, {{"UBP_PROBES", "compute"}, {"UBP_SLOTS", "many"}}};
  for (Environment mistake : mistakes) {
    write_file(path, "ubp: hits       1000000\n");
    mistake.emplace_back("UBP_OUTPUT", path);
    Outcome probed = start(mistake);
    CHECK(probed.end() == "exit 7");
    CHECK_FALSE(has(read_file(path), "1000000"));
    CHECK(has(read_file(path), "(pid " + std::to_string(probed.pid) + ")"));
    CHECK(has(read_file(path), "; nothing was probed"));
  }
}

TEST_CASE("children that cannot write their reports say so once, and not into what the program prints") {
  if (geteuid() != 0) {
    MESSAGE("skipped: changing the user needs root");
    return;
  }
  ScratchFolder folder;
  const std::string output = folder.path() + "/%p.txt";
  const std::string drop =
      "import os\nfor i in range(3):\n  if os.fork() == 0:\n    os.setuid(65534)\n    os._exit(0)\n  os.wait()\n";
  Outcome probed =
      run({.argv = {"/usr/bin/python3", "-S", "-E", "-c", drop},
           .env = {{"UBP_PROBES", "libc:malloc"}, {"UBP_OUTPUT", output}, {"UBP_SUMMARY", folder.path() + "/%p.json"}},
           .summary = false});
  CHECK(probed.end() == "exit 0");
  CHECK(lines(said(probed)).size() == 1);
  CHECK(has(said(probed), "3 of its children could not write their reports, first python3"));
  CHECK(has(said(probed), "ermission denied"));
}

}  // namespace ubp::test::family_test
