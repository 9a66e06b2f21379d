// Returns and calls on goroutines: in whichever thread a call ends, and wherever its stack has been copied to, it is
// told with its own time and arguments. By a program that imitates Go's runtime, and by programs of Go.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::goroutines_test {

namespace {

nlohmann::json row_of(const nlohmann::json& summary, std::string_view symbol) {
  for (const auto& row : summary["probes"]) {
    if (row["symbol"] == symbol && row.contains("entries")) return row;
  }
  return nlohmann::json::object();
}

struct Expected {
  const char* function;
  long entries, hits;
};
// Runs a mode of fx_moves_goroutines, by ur: and by call:, which also compares what was returned with the first
// argument: a call of moves and shifts returns twice as much and one more, of the others so much more.
void check_mode(const std::string& mode, long times, const std::vector<Expected>& functions) {
  const std::vector<std::string> argv = {fixture("fx_moves_goroutines"), mode, std::to_string(times)};
  const Outcome plain = run_plain(argv);
  for (const std::string kind : {"ur", "call"}) {
    CAPTURE(mode);
    CAPTURE(kind);
    std::string probes;
    for (const Expected& its : functions) {
      const std::string name = its.function;
      const std::string first = name == "moves" ? "retval - 2 * arg0" : "retval - arg0";
      probes += kind + ":" + name + (kind == "ur" ? "" : " { @[func, " + first + "] = count() }") + "\n";
    }
    const Outcome probed = run_probed(argv, probes);
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == plain.out);
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    for (const Expected& its : functions) {
      const std::string name = its.function;
      CAPTURE(name);
      const nlohmann::json row = row_of(summary, name);
      CHECK(row["entries"] == its.entries);
      CHECK(row["hits"] == its.hits);
      CHECK(row["left"] <= its.entries - its.hits);
      const char* const more = name == "wanders" ? "3" : name == "visits" ? "4" : name == "stays" ? "2" : "1";
      const std::string line = "@[" + name + ", " + more + "]: " + std::to_string(its.hits);
      if (kind == "call") CHECK_MESSAGE(has_line(probed.err, line), probed.err);
    }
  }
}

}  // namespace

TEST_CASE("goroutines_move: calls that end in another thread, or where their stack was copied to") {
  check_mode("move", 20, {{"crosses", 20, 20}, {"moves", 20, 20}, {"shifts", 20, 20}, {"stays", 20, 20}});
}
TEST_CASE("goroutines_wander: calls from one place that begin and end in two threads, either way") {
  check_mode("wander", 5, {{"wanders", 10, 10}, {"visits", 5, 5}});
}
TEST_CASE("goroutines_land: a stack that is copied to where an earlier call began") {
  check_mode("land", 20, {{"moves", 20, 20}, {"shifts", 20, 20}});
  // Where nobody knows of goroutines, the call that is left there passes for the one that has come.
  const Outcome wrong =
      run_probed({fixture("fx_moves"), "land", "20"}, "call:moves { @[retval - 2 * arg0] = count() }");
  CHECK(has_line(wrong.err, "@[3]: 19"));
}
TEST_CASE("goroutines_drop: one that is never gone on with, and another in its place") {
  check_mode("drop", 20, {{"crosses", 40, 20}});
}

TEST_CASE("goroutines_crowd: more of them in calls than there are lists: the others are missed") {
  constexpr long kCount = 1500;
  const Outcome probed = run_probed({"/bin/sh", "-c", "ulimit -v 4000000; exec \"$0\" crowd " + std::to_string(kCount),
                                     fixture("fx_moves_goroutines")},
                                    "ur:crosses { @n = count() }", {{"UBP_FOLLOW", "exec"}, {"UBP_MISSING", "ignore"}});
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == "crowd " + std::to_string(kCount * (kCount + 1) / 2) + "\n");
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  const nlohmann::json row = row_of(summary, "crosses");
  CAPTURE(probed.err);
  const auto missed = total(summary, "missed"), recorded = total(summary, "recorded");
  CHECK(row["entries"] == kCount);
  CHECK(row["left"] == 0);
  CHECK(recorded + missed == kCount);
  CHECK(missed > 0);
  CHECK(recorded >= 256);
}

TEST_CASE("goroutines_unknown: where what runs cannot be found, calls of Go code are refused, and others are not") {
  const std::vector<std::string> argv = {fixture("fx_moves_go"), "5"};
  for (const std::string probe : {"ur:stays", "call:crosses"}) {
    const Outcome refused = run_probed(argv, probe);
    CHECK(refused.end() == "exit 0");
    CHECK_MESSAGE(refused.err.find(": goroutines: ") != std::string::npos, refused.err);
  }
  const Outcome probed = run_probed(argv, "stays; ur:libc:free; ur:*");
  CHECK(probed.end() == "exit 0");
  const nlohmann::json summary = probed.summary();
  CHECK(hits(summary, "stays") == 5);
  CHECK(hits(summary, "ur:libc:free") > 0);
  CHECK(total(summary, "refused") > 5);
}

TEST_CASE("goroutines_go: a program of Go's, with panics, Goexit, deep recursion and naps of known length") {
  ScratchFolder folder;
  const std::string program = build_go(folder.path(), R"(package main

// static int twice(int x) { return 2 * x; }
import "C"
import ("fmt"; "runtime"; "sync"; "time")

// As long as it has slept, at least.
//go:noinline
func nap(ms int) int {
	start := time.Now()
	time.Sleep(time.Duration(ms) * time.Millisecond)
	return int(time.Since(start))
}

//go:noinline
func deep(n int) int {
	var pad [100]byte
	pad[n % 100] = byte(n)
	if n == 0 { nap(1); return int(pad[1]) }
	return deep(n - 1) + 1 + 0 * int(pad[n % 100])
}

//go:noinline
func throws(n int) int {
	if n % 3 == 0 { panic("no") }
	return n
}

//go:noinline
func catches(n int) (r int) {
	defer func() { if recover() != nil { r = -1 } }()
	return throws(n)
}

//go:noinline
func exits(n int) int {
	if n % 2 == 0 { runtime.Goexit() }
	return n
}

func main() {
	var group sync.WaitGroup
	sums := make([]int, 100)
	for g := range sums {
		group.Add(1)
		go func(g int) {
			defer group.Done()
			for i := 0; i < 6; i++ {
				nap(1 + (g + i) % 10)
				sums[g] += catches(i) + deep(60 * i)
				runtime.Gosched()
			}
			sums[g] += exits(g)
		}(g)
	}
	group.Wait()
	fmt.Println(sums, C.twice(21))
}
)");
  if (program.empty()) return;
  const Outcome plain = run_plain({program});
  REQUIRE(plain.end() == "exit 0");
  for (const std::string all : {"main.*", "*"}) {
    CAPTURE(all);
    const Outcome probed = run_probed(
        {program}, "call:program:" + all + " { @n = count() } call:main.nap { @[elapsed < retval] = count() }");
    CHECK(probed.end() == "exit 0");
    CHECK(probed.out == plain.out);
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    long functions = 0;
    for (const auto& row : summary["probes"]) {
      CAPTURE(row);
      CHECK(row["hits"].get<long>() + row["left"].get<long>() <= row["entries"].get<long>());
      ++functions;
    }
    CHECK(functions > (all == "*" ? 500 : 5));
    CHECK(total(summary, "missed") == 0);
    CHECK(row_of(summary, "main.nap")["hits"] == 1200);
    CHECK(row_of(summary, "main.deep")["hits"] == 100 * (6 + 60 * 15));
    CHECK(row_of(summary, "main.catches")["hits"] == 600);
    CHECK(row_of(summary, "main.throws")["hits"] == 400);
    CHECK(row_of(summary, "main.exits")["hits"] == 50);
    CHECK_MESSAGE(has_line(probed.err, "@[false]: 1200"), probed.err);
  }
}

}  // namespace ubp::test::goroutines_test
