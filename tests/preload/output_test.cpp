// Where the report goes: never to standard output, to standard error or a private file, even when the program
// closes its streams; and the stable schema of UBP_SUMMARY.
#include <doctest/doctest.h>

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "harness.h"

namespace ubp::test::output_test {

namespace {

Outcome run_to(const std::string& output, std::vector<std::string> argv, const std::string& probes) {
  return run_probed(std::move(argv), probes, {{"UBP_OUTPUT", output}});
}

unsigned mode_of(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_mode : 0;
}

// Every line is UBP's and the table names the probe with its hits.
void check_report(const std::string& text, const std::string& symbol, const std::string& hits) {
  CAPTURE(text);
  CHECK(count_prefix(text, "ubp: ") == static_cast<int>(lines(text).size()));
  bool has_row = false;
  for (const std::string& line : lines(text)) {
    has_row = has_row || (line.find(symbol) != std::string::npos && line.find(" " + hits + " ") != std::string::npos);
  }
  CHECK(has_row);
}

}  // namespace

TEST_CASE("output: standard output untouched, the report after the program's own lines on standard error") {
  Outcome plain = run_plain({fixture("fx_hello")});
  Outcome probed = run_probed({fixture("fx_hello")}, "compute");
  CHECK(probed.out == plain.out);
  CHECK(probed.end() == plain.end());
  REQUIRE(probed.err.rfind(plain.err, 0) == 0);
  check_report(probed.err.substr(plain.err.size()), "compute", "2");
}

TEST_CASE("output: one function under two names says so, in the report and in the summary") {
  Outcome probed = run_probed({fixture("fx_hello")}, "libc:fopen");
  CHECK(probed.err.find("libc.so.6!fopen  libc:fopen (also fopen64)") != std::string::npos);
  const nlohmann::json aliases = probed.summary()["probes"][0]["aliases"];
  CHECK(std::find(aliases.begin(), aliases.end(), "fopen64") != aliases.end());
}

TEST_CASE("output: functions of one name are told apart by their versions") {
  Outcome probed = run_probed({"/bin/bash", "-c", "[[ abc =~ b ]]"},
                              "libc:getpid; libc:regexec; libc:regexec@@GLIBC_2.3.4; libc:regexec@GLIBC_2.2.5");
  CHECK(probed.end() == "exit 0");
  CHECK(hits(probed.summary(), "libc:regexec@@GLIBC_2.3.4") == 1);
  CHECK(hits(probed.summary(), "libc:regexec@GLIBC_2.2.5") == 0);
  CHECK(hits(probed.summary(), "libc:regexec") == 1);
  CHECK(probed.err.find("libc.so.6!regexec@@GLIBC_2.3.4  libc:regexec@@GLIBC_2.3.4") != std::string::npos);
  CHECK(probed.err.find("libc.so.6!regexec@GLIBC_2.2.5   libc:regexec@GLIBC_2.2.5") != std::string::npos);
  CHECK(probed.err.find("libc.so.6!getpid  ") != std::string::npos);  // there is one
}

TEST_CASE("output: standard input is the program's") {
  Outcome probed = run({.argv = {fixture("fx_hello"), "echo"}, .env = {{"UBP_PROBES", "compute"}}, .input = "abc\n"});
  CHECK(probed.out == "hello 14\nabc\n");
}

TEST_CASE("output: UBP_OUTPUT with %p, %n, %t and %%, mode 0600, directories made") {
  ScratchFolder folder;
  Outcome probed = run_to(folder.path() + "/a/b/%n.%p.%%.out", {fixture("fx_hello")}, "compute");
  CHECK(probed.err == run_plain({fixture("fx_hello")}).err);
  std::string path = folder.path() + "/a/b/fx_hello." + std::to_string(probed.pid) + ".%.out";
  CHECK(mode_of(path) == (S_IFREG | 0600));
  check_report(read_file(path), "compute", "2");
  run_to(folder.path() + "/t/%t", {fixture("fx_hello")}, "compute");
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path() + "/t")) {
    ++files;
    CHECK(std::stoll(entry.path().filename()) > 1000000000);
  }
  CHECK(files == 1);
}

TEST_CASE("output: an existing file is replaced and keeps its mode; nothing else is left in the folder") {
  ScratchFolder folder;
  std::string path = folder.path() + "/report";
  write_file(path, std::string(100000, 'x'));
  ::chmod(path.c_str(), 0664);
  run_to(path, {fixture("fx_hello")}, "compute");
  CHECK(mode_of(path) == (S_IFREG | 0664));
  check_report(read_file(path), "compute", "2");
  auto files = std::filesystem::directory_iterator(folder.path());
  CHECK(std::distance(begin(files), end(files)) == 1);
}

TEST_CASE("output: never through a symbolic link") {
  ScratchFolder folder;
  std::string victim = folder.path() + "/victim", link = folder.path() + "/link";
  write_file(victim, "precious");
  REQUIRE(::symlink(victim.c_str(), link.c_str()) == 0);
  Outcome probed = run_to(link, {fixture("fx_hello")}, "compute");
  CHECK(probed.end() == "exit 7");
  CHECK(read_file(victim) == "precious");
  CHECK(count_prefix(probed.err, "ubp: error: ") == 1);
}

TEST_CASE("output: a program that closes standard error still reports") {
  Outcome closes = run_probed({fixture("fx_hello"), "close"}, "compute");
  CHECK(closes.end() == "exit 7");
  check_report(closes.err, "compute", "2");
  Outcome ls = run_probed({"/bin/ls", "/"}, "libc:malloc");
  CHECK(ls.end() == "exit 0");
  CHECK(ls.out == run_plain({"/bin/ls", "/"}).out);
  CHECK(ls.err.find("malloc") != std::string::npos);
  CHECK(hits(ls.summary(), "libc:malloc") > 0);
}

TEST_CASE("output: a relative path is the one at the start, whatever the program's folder at exit") {
  ScratchFolder folder;
  Outcome probed = run({.argv = {fixture("fx_hello"), "chdir"},
                        .env = {{"UBP_PROBES", "compute"}, {"UBP_OUTPUT", "below/report.out"}},
                        .folder = folder.path()});
  CHECK(probed.end() == "exit 7");
  check_report(read_file(folder.path() + "/below/report.out"), "compute", "2");
}

TEST_CASE("summary: the schema") {
  Outcome probed = run_probed({fixture("fx_hello")}, "compute; fx_hello:comp*");
  nlohmann::json s = probed.summary();
  REQUIRE(s.is_object());
  CHECK(s["version"].is_string());
  CHECK(s["pid"] == probed.pid);
  CHECK(s["program"].get<std::string>().find("fx_hello") != std::string::npos);
  for (std::string name : {"probes_requested", "probepoints_armed", "pending", "refused", "hits", "recorded",
                           "filtered", "missed", "dropped"}) {
    CAPTURE(name);
    CHECK(s["totals"][name].is_number_unsigned());
  }
  CHECK(s["xol"]["policy"].is_string());
  for (std::string name :
       {"slots_per_thread", "hits", "misses", "refills", "evictions", "area_bytes", "threads_seen"}) {
    CAPTURE(name);
    CHECK(s["xol"][name].is_number_unsigned());
  }
  CHECK(s["optimised"]["probepoints"].is_number_unsigned());
  CHECK(s["optimised"]["hits"].is_number_unsigned());
  CHECK(s["refusals"].is_array());
  REQUIRE(s["probes"].is_array());
  for (const auto& probe : s["probes"]) {
    for (std::string name : {"spec", "kind", "module", "symbol", "address"}) CHECK(probe[name].is_string());
    CHECK(probe["address"].get<std::string>().rfind("0x", 0) == 0);
    CHECK(probe["hits"].is_number_unsigned());
  }
  CHECK(total(s, "probes_requested") == 3);  // compute twice, compare_lengths once
  CHECK(total(s, "probepoints_armed") == 2);
  CHECK(hits(s, "compute") == 2);
  CHECK(hits(s, "fx_hello:comp*") == 3);
  CHECK(adds_up(s));
}

TEST_CASE("summary: 0600, never through a link") {
  ScratchFolder folder;
  std::string path = folder.path() + "/s.json";
  auto start = [](const std::string& to) {
    return run(
        {.argv = {fixture("fx_hello")}, .env = {{"UBP_PROBES", "compute"}, {"UBP_SUMMARY", to}}, .summary = false});
  };
  start(path);
  CHECK(mode_of(path) == (S_IFREG | 0600));
  CHECK(read_json(path).is_object());
  std::string link = folder.path() + "/link", victim = folder.path() + "/victim";
  write_file(victim, "precious");
  REQUIRE(::symlink(victim.c_str(), link.c_str()) == 0);
  Outcome probed = start(link);
  CHECK(probed.end() == "exit 7");
  CHECK(read_file(victim) == "precious");
}

TEST_CASE("output: a glob over everything says how much of the code is known") {
  Outcome stripped = run_probed({fixture("fx_stripped")}, "*");
  CHECK(stripped.end() == "exit 4");
  CHECK(count_prefix(stripped.err, "ubp: coverage   ") == 1);
  CHECK(stripped.err.find(" % of the code of fx_stripped is in its ") != std::string::npos);
  const nlohmann::json summary = stripped.summary();
  REQUIRE(summary.contains("coverage"));
  REQUIRE(summary["coverage"].size() == 1);
  CHECK(summary["coverage"][0]["known_bytes"].get<std::uint64_t>() * 2 <
        summary["coverage"][0]["code_bytes"].get<std::uint64_t>());
  Outcome whole = run_probed({"/bin/true"}, "libc:*");
  CHECK(count_prefix(whole.err, "ubp: coverage   ") == 0);
  CHECK_FALSE(whole.summary().contains("coverage"));
}

}  // namespace ubp::test::output_test
