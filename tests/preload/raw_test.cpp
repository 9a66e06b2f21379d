// Programs that make their system calls themselves: their own sites pass the gate as libc's do, and they leave a
// report.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::raw_test {

namespace {

void check(const std::string& mode, const std::string& probes) {
  CAPTURE(mode);
  CAPTURE(probes);
  const Outcome plain = run_plain({fixture("fx_raw"), mode});
  REQUIRE(plain.end() == "exit 7");
  REQUIRE_MESSAGE(numbers(plain.out)["wrong"] == 0, plain.out);
  const Outcome probed = run_probed({fixture("fx_raw"), mode}, probes);
  CHECK(probed.end() == "exit 7");
  CHECK(probed.out == plain.out);
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  if (probes.rfind("f", 0) == 0) CHECK(hits(summary, "f") == static_cast<std::uint64_t>(numbers(plain.out)["calls"]));
}

}  // namespace

TEST_CASE("raw: a program that blocks every signal by its own system calls, and leaves by one") {
  for (const char* const mode : {"mask", "generic", "handler", "spawn", "alone"}) {
    check(mode, "f");
    check(mode, "f; libc:*");
    check(mode, "insn:*");
  }
}

TEST_CASE("raw: where only libc is probed, the program's own system calls are watched all the same") {
  for (const char* const mode : {"mask", "generic", "handler", "spawn"}) check(mode, "libc:*");
}

TEST_CASE("raw: a thread made on its maker's TLS") { check("clone", "f"); }

TEST_CASE("raw: rt_sigreturn by the program's own text, from handlers and with frames that it has made, all masked") {
  for (const char* const probes : {"f", "insn:*", "f; libc:*"}) check("return", probes);
}

TEST_CASE("raw: a hit whose signal's handler leaves by an rt_sigreturn of its own is counted once") {
  for (const char* const probes : {"f", "insn:f", "f; libc:*"}) {
    CAPTURE(probes);
    const Outcome probed = run_probed({fixture("fx_raw"), "interrupted"}, probes);
    CHECK(probed.end() == "exit 7");
    auto said = numbers(probed.out);
    CHECK(said["wrong"] == 0);
    CHECK(adds_up(probed.summary()));
    if (probes[0] == 'f') CHECK(hits(probed.summary(), "f") == static_cast<std::uint64_t>(said["calls"]));
    // Of a function's instructions, each is executed once a call.
    if (std::string(probes) == "insn:f")
      CHECK(hits(probed.summary(), probes) % static_cast<std::uint64_t>(said["calls"]) == 0);
  }
}

TEST_CASE("raw: system calls that cannot be watched are told in one line at load") {
  const Outcome probed = run_probed({fixture("fx_raw_many"), "mask"}, "f");
  CHECK(probed.end() == "exit 7");  // its own come first
  CHECK(count_prefix(probed.err, "ubp: warning: ") == 1);
  CHECK(probed.err.find(" system calls of the program cannot be watched, first fx_raw_many:0x") != std::string::npos);
  CHECK(run_probed({fixture("fx_raw"), "mask"}, "f").err.find("watched") == std::string::npos);
}

TEST_CASE("raw: names with slashes and colons, as Go has them, need no quotes") {
  for (const std::string item : {"pkg/inner.Call", "pkg/*.Call", "fx_raw:pkg/inner.*", "type:.eq.T", "type:.eq.*",
                                 "fx_raw:\"type:.eq.T\"", "\"pkg/inner.*\""}) {
    CAPTURE(item);
    const Outcome probed = run_probed({fixture("fx_raw")}, item);
    CHECK(total(probed.summary(), "probepoints_armed") == 1);
    CHECK(hits(probed.summary(), item) == 1);
  }
  const Outcome probed = run_probed({fixture("fx_raw")}, "type:.eq.U");
  CHECK(probed.err.find("no module 'type' is loaded") != std::string::npos);
}

TEST_CASE("raw: Go's programs, every function of their runtime's own system calls probed") {
  ScratchFolder folder;
  const std::string program = build_go(folder.path(), R"(package main

// static int twice(int x) { return 2 * x; }
import "C"
import ("fmt"; "os"; "os/exec"; "sync"; "time")

//go:noinline
func work(x int) int { return x + 1 }

func main() {
	var group sync.WaitGroup
	sums := make([]int, 8)
	for g := range sums {
		group.Add(1)
		go func(g int) {
			defer group.Done()
			for i := 0; i < 1000; i++ {
				sums[g] = work(sums[g])
				if i % 100 == 0 { time.Sleep(time.Microsecond) }
			}
		}(g)
	}
	group.Wait()
	out, err := exec.Command("/bin/echo", "child").CombinedOutput()
	fmt.Printf("%v %d %q %v\n", sums, C.twice(21), out, err)
	os.Exit(3)
}
)");
  if (program.empty()) return;
  const Outcome plain = run_plain({program});
  REQUIRE(plain.end() == "exit 3");
  for (const std::string probes :
       {"main.work", "*rtsigprocmask*", "*rt_sigaction*", "syscall.*", "runtime.m*", "insn:main.*; libc:*"}) {
    CAPTURE(probes);
    const Outcome probed = run_probed({program}, probes);
    CHECK(probed.end() == "exit 3");
    CHECK(probed.out == plain.out);
    const nlohmann::json summary = probed.summary();
    CHECK(adds_up(summary));
    if (probes == "main.work") CHECK(hits(summary, probes) == 8000);
  }
}

}  // namespace ubp::test::raw_test
