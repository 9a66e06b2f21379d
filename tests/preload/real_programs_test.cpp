// Real, unmodified programs: same output as unprobed, and plausible counts. Each is skipped where it is
// missing.
#include <doctest/doctest.h>
#include <unistd.h>

#include "harness.h"

namespace ubp::test::real_programs_test {

namespace {

bool has(const char* path) {
  if (::access(path, X_OK) == 0) return true;
  MESSAGE("SKIP: no " << path);
  return false;
}

// 2,000 statements: tables, inserts, updates, queries whose results are printed.
std::string workload() {
  std::string sql = "create table t(a integer primary key, b text);\n";
  for (int i = 0; i < 1499; ++i) {
    sql += "insert into t values(" + std::to_string(i) + ", 'row " + std::to_string(i * 7919 % 1000) + "');\n";
  }
  for (int i = 0; i < 250; ++i) sql += "update t set b = b || 'x' where a % 250 = " + std::to_string(i) + ";\n";
  for (int i = 0; i < 249; ++i) {
    sql += "select count(*), min(b), sum(length(b)) from t where a > " + std::to_string(i * 6) + ";\n";
  }
  return sql + "select group_concat(b) from (select b from t order by b limit 100);\n";
}

void check_same(const std::vector<std::string>& argv, const std::string& input, const std::string& probes,
                const std::vector<std::pair<std::string, std::uint64_t>>& at_least) {
  Outcome plain = run({.argv = argv, .input = input, .preload = false});
  Outcome probed = run({.argv = argv, .env = {{"UBP_PROBES", probes}}, .input = input});
  CHECK(plain.end() == "exit 0");
  CHECK(probed.end() == plain.end());
  CHECK(probed.out == plain.out);
  CHECK(count_prefix(probed.err, "ubp: error: ") == 0);
  for (const auto& [item, count] : at_least) {
    CAPTURE(item);
    std::uint64_t got = hits(probed.summary(), item);
    CHECK(got != ~0ull);
    CHECK(got >= count);
  }
  CHECK(adds_up(probed.summary()));
  MESSAGE(argv[0] << ": " << total(probed.summary(), "hits") << " hits, "
                  << total(probed.summary(), "probepoints_armed") << " probepoints");
}

// Newer Debians build SQLite into the program.
bool has_sqlite_library() {
  if (!has("/usr/bin/sqlite3")) return false;
  if (run_plain({"/usr/bin/ldd", "/usr/bin/sqlite3"}).out.find("libsqlite3") != std::string::npos) return true;
  MESSAGE("skipped: sqlite3 has no library here");
  return false;
}

}  // namespace

TEST_CASE("sqlite3: 2,000 statements in memory") {
  if (!has_sqlite_library()) return;
  check_same({"/usr/bin/sqlite3", ":memory:"}, workload(), "libsqlite3:sqlite3_*; libc:malloc; libc:free",
             {{"libsqlite3:sqlite3_*", 10000}, {"libc:malloc", 1000}, {"libc:free", 1000}});
}

TEST_CASE("sqlite3: the statements prepared are counted exactly") {
  if (!has_sqlite_library()) return;
  Outcome probed = run({.argv = {"/usr/bin/sqlite3", ":memory:"},
                        .env = {{"UBP_PROBES", "libsqlite3:sqlite3_prepare_v2; libsqlite3:sqlite3_finalize"}},
                        .input = "select 1;\nselect 2;\nselect 3;\n"});
  Outcome more = run({.argv = {"/usr/bin/sqlite3", ":memory:"},
                      .env = {{"UBP_PROBES", "libsqlite3:sqlite3_prepare_v2; libsqlite3:sqlite3_finalize"}},
                      .input = "select 1;\nselect 2;\nselect 3;\nselect 4;\nselect 5;\n"});
  CHECK(probed.out == "1\n2\n3\n");
  CHECK(hits(more.summary(), "libsqlite3:sqlite3_prepare_v2") ==
        hits(probed.summary(), "libsqlite3:sqlite3_prepare_v2") + 2);
}

TEST_CASE("python3: a small script") {
  if (!has("/usr/bin/python3")) return;
  const char* script =
      "import json, re, threading\n"
      "out = []\n"
      "def work(n):\n"
      "    out.append(sum(len(json.dumps({str(i): [i] * 3})) for i in range(n)))\n"
      "threads = [threading.Thread(target=work, args=(200,)) for _ in range(4)]\n"
      "[t.start() for t in threads]; [t.join() for t in threads]\n"
      "print(sorted(out), re.sub('a+', 'b', 'xaay'), sum(bytearray(100000)))\n";
  check_same({"/usr/bin/python3", "-c", script}, "", "libc:malloc; libc:free", {{"libc:malloc", 1000}});
}

TEST_CASE("shell pipelines: children are unprobed unless asked for, and work") {
  if (!has("/bin/dash")) return;
  check_same({"/bin/dash", "-c", "for i in 1 2 3; do echo $i | cat; done; ls / | sort | head -2"}, "", "libc:malloc",
             {{"libc:malloc", 1}});
}

}  // namespace ubp::test::real_programs_test
