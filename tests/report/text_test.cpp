// The block and the table a person reads.
#include <doctest/doctest.h>

#include <sstream>
#include <string>
#include <vector>

#include "runtime/report/report.h"

namespace ubp::report {
namespace {

std::vector<std::string> lines_of(const Summary& summary) {
  std::istringstream text(format_text(summary));
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  return lines;
}

bool has_line(const Summary& summary, const std::string& wanted) {
  for (const std::string& line : lines_of(summary)) {
    if (line == wanted) return true;
  }
  return false;
}

Summary text_sample() {
  Summary summary;
  summary.version = "0.1.0";
  summary.pid = 42;
  summary.program = "/usr/bin/app";
  summary.totals = {4, 3, 0, 1, 1100, 1000, 50, 30, 20};
  summary.xol = {"thread", 64, 900, 200, 200, 136, 8192, 2};
  summary.optimised = {1, 275};
  summary.refusals = {{"libc.so.6", "memcpy+0x3", 0xa1b23, "mid-instruction: inside the one at 0xa1b20"}};
  summary.probes = {{"app:f", "uprobe", "app", "f", 0x1000, 100},
                    {"libc:malloc", "uprobe", "/lib/x86_64-linux-gnu/libc.so.6", "malloc", 0x2000, 1000},
                    {"app:0x1234", "uprobe", "app", "", 0x1234, 0}};
  return summary;
}

Summary with_rows(std::size_t rows, std::size_t hit) {
  Summary summary = text_sample();
  summary.probes.clear();
  for (std::size_t i = 0; i < rows; ++i) {
    summary.probes.push_back({"app:f*", "uprobe", "app", "f" + std::to_string(i), i, i < hit ? 1u : 0u});
  }
  return summary;
}

TEST_CASE("report text: the whole of a small report") {
  CHECK(format_text(text_sample()) ==
        "ubp: /usr/bin/app (pid 42), UBP 0.1.0\n"
        "ubp: probes     4 requested, 3 probepoints armed, 0 pending, 1 refused\n"
        "ubp:   refused  libc.so.6!memcpy+0x3 (0xa1b23): mid-instruction: inside the one at 0xa1b20\n"
        "ubp: hits       1100 = 1000 recorded + 50 filtered + 30 missed + 20 dropped\n"
        "ubp: slots      thread: 900 hits, 200 misses, 200 refills, 136 evictions (64 a thread, 2 threads, "
        "8192 bytes)\n"
        "ubp: optimised  1 of 3 probepoints (33.3 %), 275 of 1100 hits (25.0 %)\n"
        "ubp: output     standard error\n"
        "ubp: \n"
        "ubp:   hits  probepoint        spec\n"
        "ubp:   1000  libc.so.6!malloc  libc:malloc\n"
        "ubp:    100  app!f             app:f\n"
        "ubp:      0  app!0x1234        app:0x1234\n");
}

TEST_CASE("report text: the output path is told") {
  Summary summary = text_sample();
  summary.output_path = "/tmp/out.txt";
  CHECK(has_line(summary, "ubp: output     /tmp/out.txt"));
}

TEST_CASE("report text: the overhead is all traps, the runtime's own too") {
  Summary summary = text_sample();
  summary.traps = {1000, 2'000'000, 1500};
  CHECK(has_line(
      summary,
      "ubp: overhead   about 3.002 s: 1000 traps of hits and 2000000 of UBP's own, 1.50 us each, measured at exit"));
  summary.traps.cost_ns = 0;  // could not be measured
  for (const std::string& line : lines_of(summary)) CHECK(line.find("overhead") == std::string::npos);
}

TEST_CASE("report text: threads without counters are told, where there were any") {
  Summary summary = text_sample();
  CHECK(format_text(summary).find("uncounted") == std::string::npos);
  summary.xol.uncounted_tasks = 2;
  CHECK(has_line(
      summary,
      "ubp: uncounted  more tasks than counters: what 2 threads hit by jumps (a smaller UBP_SLOTS leaves room for more)"));
}

TEST_CASE("report text: without probes there is a block and no table") {
  CHECK(lines_of(Summary{}).size() == 6);
  CHECK(has_line(Summary{}, "ubp: optimised  0 of 0 probepoints (0.0 %), 0 of 0 hits (0.0 %)"));
}

TEST_CASE("report text: one of a thing is singular") {
  Summary summary;
  summary.totals.probepoints_armed = 1;
  summary.totals.hits = 1;
  summary.optimised = {1, 1};
  CHECK(has_line(summary, "ubp: optimised  1 of 1 probepoint (100.0 %), 1 of 1 hit (100.0 %)"));
}

TEST_CASE("report text: equal hits are in a fixed order") {
  Summary summary = with_rows(0, 0);
  summary.probes = {{"s", "uprobe", "b", "a", 1, 5}, {"s", "uprobe", "a", "b", 1, 5}, {"s", "uprobe", "a", "a", 1, 5}};
  const std::vector<std::string> lines = lines_of(summary);
  CHECK(lines[lines.size() - 3].find("a!a") != std::string::npos);
  CHECK(lines[lines.size() - 2].find("a!b") != std::string::npos);
  CHECK(lines[lines.size() - 1].find("b!a") != std::string::npos);
}

TEST_CASE("report text: up to 200 probes are all shown, of more only those with hits") {
  const std::size_t above_rows = lines_of(with_rows(1, 1)).size() - 1;
  CHECK(lines_of(with_rows(200, 3)).size() == above_rows + 200);
  const Summary large = with_rows(201, 3);
  CHECK(lines_of(large).size() == above_rows + 3 + 1);
  CHECK(lines_of(large).back() == "ubp:   198 of 201 probes had no hits (UBP_SUMMARY lists all)");
  CHECK(lines_of(with_rows(201, 201)).size() == above_rows + 201);
}

TEST_CASE("report text: many probes without any hit give no empty table") {
  const std::vector<std::string> lines = lines_of(with_rows(1000, 0));
  CHECK(lines.back() == "ubp:   1000 of 1000 probes had no hits (UBP_SUMMARY lists all)");
  CHECK(lines[lines.size() - 2] == "ubp: ");
}

TEST_CASE("report text: a very long name moves only its own line") {
  Summary summary = text_sample();
  summary.probes.push_back({"app:*", "uprobe", "app", std::string(300, 'x'), 0x5000, 7});
  CHECK(has_line(summary, "ubp:      7  app!" + std::string(300, 'x') + "  app:*"));
  CHECK(has_line(summary, "ubp:    100  app!f" + std::string(43, ' ') + "  app:f"));
}

TEST_CASE("report text: what else a function is called stands behind the item, without the library's inner names") {
  Summary summary = text_sample();
  summary.probes.push_back({"libc:memcpy", "uprobe", "libc", "memcpy", 0x6000, 8});
  summary.probes.back().aliases = {"__new_memcpy", "memmove", "bcopy", "copy", "mempcpy"};
  CHECK(format_text(summary).find("  libc:memcpy (also memmove, bcopy, copy, ...)\n") != std::string::npos);
  summary.probes.back().aliases = {"__new_memcpy"};
  CHECK(format_text(summary).find("  libc:memcpy\n") != std::string::npos);
}

TEST_CASE("report text: refusals of one reason share a line, unless all are asked for") {
  Summary summary = text_sample();
  summary.refusals.assign(25, {"app", "f", 1, "rseq: inside a restartable sequence"});
  summary.refusals.push_back({"app", std::string(300, 'g'), 2, "privileged: hlt"});
  std::vector<std::string> lines = lines_of(summary);
  CHECK(lines[2] == "ubp:   refused  25 rseq: inside a restartable sequence: app!f, app!f, app!f, ...");
  CHECK(lines[3] == "ubp:   refused  app!" + std::string(41, 'g') + "... (0x2): privileged: hlt");
  CHECK(lines[4] == "ubp:   refused  all of them in UBP_SUMMARY, and here with UBP_LOG=info");
  set_level(Level::kInfo);
  lines = lines_of(summary);
  set_level(Level::kWarning);
  CHECK(lines[26] == "ubp:   refused  app!f (0x1): rseq: inside a restartable sequence");
  CHECK(lines[27] == "ubp:   refused  app!" + std::string(300, 'g') + " (0x2): privileged: hlt");
}

TEST_CASE("report text: names from files cannot write to the terminal") {
  Summary summary = text_sample();
  summary.program = "/tmp/a\033[2Jb\nubp: error: forged";
  summary.probes[0].symbol = "f\tg\x7f";
  const std::string text = format_text(summary);
  CHECK(text.find("/tmp/a?[2Jb?ubp: error: forged (pid") != std::string::npos);
  CHECK(text.find("app!f?g?") != std::string::npos);
  for (const std::string& line : lines_of(summary)) CHECK(line.rfind("ubp: ", 0) == 0);
}

TEST_CASE("report text: where returns are probed, jumps are a share of what passed, not of the returns") {
  Summary summary = text_sample();
  summary.totals.hits = 100;
  summary.optimised.hits = 150;
  summary.traps.hits = 50;
  CHECK(has_line(summary, "ubp: optimised  1 of 3 probepoints (33.3 %), 150 of 200 hits (75.0 %)"));
}

TEST_CASE("report text: the largest counts fit") {
  Summary summary = text_sample();
  summary.totals.hits = UINT64_MAX;
  summary.optimised.hits = UINT64_MAX;
  summary.probes[0].hits = UINT64_MAX;
  CHECK(has_line(summary, "ubp:   18446744073709551615  app!f             app:f"));
  CHECK(has_line(summary,
                 "ubp: optimised  1 of 3 probepoints (33.3 %), 18446744073709551615 of "
                 "18446744073709551615 hits (100.0 %)"));
}

}  // namespace
}  // namespace ubp::report
