// tseries(): which intervals are kept, what of their values, and the chart.
#include <cstdlib>

#include "compiled.h"

namespace ubp::program {

namespace {

// Adds values at times, given as "(time, value), ..." in units of an interval of 1000 ns, and returns the map as JSON.
std::string series(const std::string& what, const std::vector<std::pair<std::string, std::string>>& points) {
  setenv("BPFTRACE_DUMMY_TS_MAP", "@time", 1);
  std::string block = "@time = (uint64)0; ";
  for (const auto& [time, value] : points)
    block += "@time = (uint64)" + time + "; @ = tseries(" + value + ", 1us, 3, \"" + what + "\"); ";
  const auto program = compiled("begin { " + block + "clear(@time) }");
  unsetenv("BPFTRACE_DUMMY_TS_MAP");
  program->run(language::Probe::Event::kBegin);
  std::string text =
      Reader(program->analysis(), program->place().maps(), program->place().machine(), {.format = Format::kJson})
          .all_maps();
  std::string points_only;  // "ns=value "
  for (std::size_t at = text.find("00."); at != std::string::npos; at = text.find("00.", at + 1)) {
    const std::size_t value = text.find("\"value\": ", at) + 9;
    points_only += text.substr(at + 6, 6) + '=' + text.substr(value, text.find('}', value) - value) + ' ';
  }
  return points_only;
}

}  // namespace

TEST_CASE("tseries: the newest intervals, each with what was asked for") {
  const std::vector<std::pair<std::string, std::string>> points = {
      {"500", "9"}, {"1000", "5"}, {"1999", "-2"}, {"1500", "4"}, {"3000", "7"}, {"3001", "8"}, {"700", "1"}};
  // 0 to 0.999 us makes room for 3; what comes late for it is too late.
  CHECK(series("last", points) == "001000=-2 003000=8 ");
  CHECK(series("min", points) == "001000=-2 003000=7 ");
  CHECK(series("max", points) == "001000=5 003000=8 ");
  CHECK(series("sum", points) == "001000=7 003000=15 ");
  CHECK(series("avg", points) == "001000=2 003000=7 ");
  CHECK(series("last", {{"0", "5"}}) == "000000=5 ");
}

TEST_CASE("tseries: the chart") {
  setenv("BPFTRACE_DUMMY_TS_MAP", "@t", 1);
  setenv("TZ", "UTC", 1);
  const std::string text = output_of(
      "@t = (uint64)1s; @ = tseries(-2, 1s, 9); @t = (uint64)3s; @ = tseries(2, 1s, 9); print(@); clear(@); clear(@t)");
  unsetenv("BPFTRACE_DUMMY_TS_MAP");
  const std::string blanks(25, ' '), indent(13, ' '), border(51, '_');
  CHECK(text == "@:\n" + indent + "-2" + std::string(50, ' ') + "2\n" +    //
                    "hh:mm:ss.ms  |" + border + "|\n" +                    //
                    "00:00:01.000 *" + blanks + '.' + blanks + "| -2\n" +  //
                    "00:00:02.000 |" + blanks + '.' + blanks + "| -\n" +   //
                    "00:00:03.000 |" + blanks + '.' + blanks + "* 2\n" +   //
                    indent + 'v' + border + "v\n" + indent + "-2" + std::string(50, ' ') + "2\n\n");
}

TEST_CASE("tseries: the least and the greatest of all numbers, alone and together") {
  const auto chart = [](const std::string& values) {
    setenv("BPFTRACE_DUMMY_TS_MAP", "@t", 1);
    std::string block = "@t = (uint64)0; ";
    int second = 0;
    for (std::size_t at = 0; at < values.size(); ++at) {
      const std::string value = values[at] == '<' ? "(int64)0x8000000000000000" : "(int64)0x7fffffffffffffff";
      block += "@t = (uint64)" + std::to_string(++second) + "s; @ = tseries(" + value + ", 1s, 9); ";
    }
    std::string text = output_of(block + "print(@); clear(@); clear(@t)");
    unsetenv("BPFTRACE_DUMMY_TS_MAP");
    std::string columns;  // where the points are
    for (std::size_t at = text.find('*'); at != std::string::npos; at = text.find('*', at + 1))
      columns += std::to_string(at - text.rfind('\n', at) - 14) + ' ';
    return columns;
  };
  CHECK(chart("<") == "0 ");
  CHECK(chart(">") == "52 ");
  CHECK(chart("<>") == "0 52 ");
}

TEST_CASE("tseries: what it does not take") {
  const std::pair<std::string, std::string> cases[] = {
      {"@ = tseries(1, 0, 1)", "tseries() takes an interval as a literal, from 1 ns on"},
      {"@ = tseries(1, 1s, 0)", "tseries() takes 1 to 1000 intervals"},
      {"@ = tseries(1, 1s, 1, \"first\")",
       "tseries() keeps \"last\", \"min\", \"max\", \"sum\" or \"avg\" of an interval"},
      {"@ = tseries(1, 1s, 1); @ = tseries(1, 2s, 1)", "@ is another tseries() elsewhere"},
  };
  for (const auto& [block, message] : cases) check_mistake(block, message);
}

}  // namespace ubp::program
