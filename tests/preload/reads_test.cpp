// Programs that read the process's memory at addresses of every kind, in every state in which a fault would be noticed:
// the process does what it does unprobed, and what is read is right, by traps and by jumps.
#include <doctest/doctest.h>

#include <map>

#include "harness.h"

namespace ubp::test::reads_test {

namespace {

// One line for each hit: the kind, a text, a number, bytes.
const std::string kProgram =
    "look { printf(\"= %d <%s> %d %r\\n\", arg1, str(arg0, 64), *(int32*)arg0, buf(arg0, 5)); @hits = count() }";

struct Kind {
  std::string text;
  bool has_number, has_bytes;  // 4 and 5 bytes can be read
};
const std::map<int, Kind> kKinds = {
    {0, {"a text of twenty-two.", true, true}},
    {1, {"across", true, true}},
    {2, {"tail", true, true}},
    {4, {"", false, false}},
    {5, {"", false, false}},
    {6, {"", false, false}},
    {7, {"", false, false}},
    {8, {"", false, false}},
    {9, {"", false, false}},
    {10, {"", false, false}},
    {12, {"", false, false}},
    {13, {"", false, false}},
    {101, {"", false, false}},
    {102, {"deep", true, true}},
};

// How many lines say what is wrong of their kind; all are counted.
int wrong_lines(const Outcome& outcome, std::int64_t& all) {
  int wrong = 0;
  all = 0;
  for (const std::string& line : lines(outcome.err)) {
    if (line.rfind("= ", 0) != 0) continue;
    ++all;
    const int kind = std::atoi(line.c_str() + 2);
    const auto it = kKinds.find(kind);
    const std::size_t end = line.find("> ");
    if (kind == 100 &&
        (line.find("<a text of twenty-two.> ") != std::string::npos || line.find("<> ") != std::string::npos))
      continue;
    if (it == kKinds.end()) {
      wrong += kind != 3 && kind != 11;  // what is behind, or what the kernel shows there
      continue;
    }
    const bool is_right = line.find(" <" + it->second.text + "> ") != std::string::npos && end != std::string::npos &&
                          (line.compare(end + 2, 2, "0 ") != 0) == it->second.has_number &&
                          (line.find("\\x00\\x00\\x00\\x00\\x00", end) == std::string::npos) == it->second.has_bytes;
    if (!is_right && ++wrong == 1) MESSAGE(line);
  }
  return wrong;
}

void check_state(const std::string& state, int rounds) {
  CAPTURE(state);
  const std::vector<std::string> argv = {fixture("fx_read"), state, std::to_string(rounds)};
  const Outcome plain = run_plain(argv);
  REQUIRE(plain.end() == "exit 0");
  const Outcome probed = run_probed(argv, kProgram);
  CHECK(probed.end() == plain.end());
  CHECK(probed.out == plain.out);
  auto said = numbers(probed.out);
  CHECK(said["wrong"] == 0);
  std::int64_t all = 0;
  CHECK(wrong_lines(probed, all) == 0);
  CHECK(all == said["looks"]);
  for (const auto& [pid, summary] : probed.summaries) CHECK(adds_up(summary));
}

}  // namespace

TEST_CASE("reads: addresses of every kind") { check_state("plain", 20); }

TEST_CASE("reads: a program that faults deliberately, and handles it") {
  for (const std::string state : {"handler", "onstack", "nodefer"}) check_state(state, 20);
}

TEST_CASE("reads: in the handler of the program's own fault, which is to be called but once") {
  check_state("inside", 10);
  check_state("once", 10);
}

TEST_CASE("reads: SIGSEGV and SIGBUS blocked or ignored, by turns") {
  for (const std::string state : {"blocked", "raw", "ignored"}) check_state(state, 20);
}

TEST_CASE("reads: in handlers that block everything, and after they have been left") {
  for (const std::string state : {"signals", "leaving", "suspend"}) check_state(state, 10);
}

TEST_CASE("reads: children, and threads with masks of their own") {
  check_state("fork", 5);
  check_state("vfork", 10);
  check_state("threads", 10);
}

TEST_CASE("reads: a page that comes and goes") { check_state("race", long_run() ? 20'000 : 200); }

TEST_CASE("reads: the stack does not grow, and is read as far as it has") { check_state("stack", 20); }

TEST_CASE("reads fail where a load's fault reaches the program, or the mask is not minded") {
  const auto end_with = [](const std::string& library, const std::string& state) {
    const std::string program = "look { @[str(arg0)] = count() }";
    for (const std::string tier : {"never", "always"}) {
      const Outcome outcome = run({.argv = {fixture("fx_read"), state, "4"},
                                   .env = {{"LD_PRELOAD", library}, {"UBP_PROBES", program}, {"UBP_OPTIMIZE", tier}},
                                   .preload = false,
                                   .timeout_s = 30});
      if (outcome.end() != "exit 0") return outcome.end();
    }
    return std::string("exit 0");
  };
  CHECK(end_with(library(), "plain") == "exit 0");
  CHECK(end_with(library(), "blocked") == "exit 0");
  CHECK(end_with(control("no_read_faults"), "plain") == "signal 11");
  CHECK(end_with(control("no_fault_look"), "plain") == "exit 0");
  CHECK(end_with(control("no_fault_look"), "blocked") == "signal 11");
}

}  // namespace ubp::test::reads_test
