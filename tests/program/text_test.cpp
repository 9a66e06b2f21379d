// Events of several tasks, and what is printed of a map.
#include "compiled.h"
#include "runtime/helpers/helpers.h"
#include "runtime/output/reader.h"

namespace ubp::program {

TEST_CASE("events: more than there is room for are dropped and the hits say so; those that fit are whole") {
  const auto program = compiled(
      "begin { $i = 0; while ($i < 1000000) { printf(\"%ld %s\\n\", $i, \"0123456789012345678901234567890123456789012345678901234567890123456789\"); $i++ } }");
  program->run(language::Probe::Event::kBegin);
  const std::string printed = program->printed();
  std::size_t lines = 0;
  for (std::size_t at = 0; at < printed.size(); ++lines) {
    const std::size_t end = printed.find('\n', at);
    REQUIRE(end != std::string::npos);
    if (lines % 10000 == 0) CHECK(printed.substr(at, printed.find(' ', at) - at) == std::to_string(lines));
    at = end + 1;
  }
  CHECK(lines > 400'000);
  CHECK(lines < 1'000'000);
}

TEST_CASE("maps: the order of lines") {
  CHECK(output_of("@[\"a\"] = 3; @[\"b\"] = -1; @[\"c\"] = 2; print(@, 2)") ==
        "@[c]: 2\n@[a]: 3\n@[b]: -1\n@[c]: 2\n@[a]: 3\n");
  CHECK(output_of("@[10] = \"x\"; @[9] = \"y\"; @[-1] = \"z\"") == "@[-1]: z\n@[9]: y\n@[10]: x\n");
  CHECK(output_of("@b = 1; @a = 2; @ = 3") == "@: 3\n@a: 2\n@b: 1\n");
}

}  // namespace ubp::program
