// How often each statement of a program is executed: against gcov, which has the compiler count.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>

#include "harness.h"

namespace ubp::test::statements_test {
namespace {

using Lines = std::map<int, std::uint64_t>;

// "       12*:   34:text", "    #####:   35:text": how often lines were executed. Source: gcov(1).
Lines counts_of_gcov(const std::string& text) {
  Lines counts;
  for (const std::string& line : lines(text)) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string count = line.substr(line.find_first_not_of(' '), first - line.find_first_not_of(' '));
    if (count == "-") continue;
    counts[std::stoi(line.substr(first + 1, second - first - 1))] =
        count.find_first_of("#=") != std::string::npos ? 0 : std::stoull(count);
  }
  return counts;
}

// "     12  text": which lines have code.
std::vector<int> lines_of_ubp(const std::string& text) {
  std::vector<int> numbers;
  for (const std::string& line : lines(text)) {
    const std::size_t begin = line.find_first_not_of(' '), end = line.find_first_not_of("0123456789", begin);
    if (begin != std::string::npos && begin != 0 && end != begin && end < 8) numbers.push_back(std::stoi(line));
  }
  return numbers;
}

}  // namespace

TEST_CASE("statements_gcov: every line that is one statement is executed as often as gcov says") {
  const char* const sources = std::getenv("UBP_TEST_SOURCES");
  if (sources == nullptr || !has_command("gcov") || !has_command("gcc")) {
    MESSAGE("UBP_TEST_SOURCES is not set, or there is no gcc or gcov: not compared");
    return;
  }
  const ScratchFolder folder;
  const std::string plain = folder.path() + "/plain";
  std::filesystem::copy_file(std::string(sources) + "/fixtures/fx_statements.c", folder.path() + "/fx_statements.c");
  const Outcome made =
      run_shell("cd " + folder.path() +
                " && gcc -O0 -g fx_statements.c -o plain"
                " && gcc -O0 -g --coverage -c fx_statements.c -o counted.o"
                " && gcc --coverage counted.o -o counted && ./counted && gcov -t -o . counted.o >gcov");
  CAPTURE(made.err);
  REQUIRE(made.end() == "exit 0");
  const Lines expected = counts_of_gcov(read_file(folder.path() + "/gcov"));
  REQUIRE(expected.size() > 150);
  const Outcome listed =
      run({.argv = {command_path(), "lines", plain + "@fx_statements.c"}, .preload = false, .timeout_s = 60});
  std::string probes;
  const auto item_of = [](int line) { return "stmt:plain@fx_statements.c:" + std::to_string(line); };
  for (const int line : lines_of_ubp(listed.out)) probes += item_of(line) + "; ";
  const Outcome probed = run_probed({plain}, probes);
  CAPTURE(probed.err);
  CHECK(probed.end() == "exit 0");
  CHECK(probed.out == made.out);
  const nlohmann::json summary = probed.summary();
  CHECK(adds_up(summary));
  std::map<std::string, std::vector<std::uint64_t>> executed;  // by line: each of its statements
  for (const auto& probe : summary["probes"]) executed[probe["spec"]].push_back(probe["hits"]);
  int compared = 0, repeated = 0, unreached = 0;
  for (const auto& [line, count] : expected) {
    const std::vector<std::uint64_t>& its = executed[item_of(line)];
    if (its.size() != 1) continue;
    CAPTURE(line);
    CHECK(its.front() == count);
    ++compared;
    repeated += count > 1 ? 1 : 0;
    unreached += count == 0 ? 1 : 0;
  }
  CHECK(compared > 100);
  CHECK(repeated > 50);
  CHECK(unreached > 0);
}

}  // namespace ubp::test::statements_test
