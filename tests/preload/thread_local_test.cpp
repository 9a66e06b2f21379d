// Thread-local variables: each thread's own, of a program and a library; and of one that is loaded later, refused.
#include <doctest/doctest.h>

#include "harness.h"

namespace ubp::test::thread_local_test {
namespace {

std::string line_of(const char* name) {
  static const auto said = numbers(run_plain({fixture("fx_thread_local0")}).out);
  return std::to_string(said.at(name));
}

}  // namespace

TEST_CASE("thread_local_values: of a program and a library, in several threads") {
  for (const std::string level : {"0", "2"}) {
    CAPTURE(level);
    const std::string program = "fx_thread_local" + level;
    const Outcome outcome =
        run_probed({fixture(program)},
                   program + "@fx_thread_local.c:" + line_of("own") +
                       " { @own[args.number] = args.own; @sum[args.number] = sum(args.own); @times = max(args.times); "
                       "@name[args.number] = args.pair.name; @same = sum(args.pair.first + args.own) }" +
                       "libfx_thread_local_library" + level + "@fx_thread_local_library.c:" + line_of("library") +
                       " { @library[args.number] = args.in_library }");
    CAPTURE(outcome.err);
    CHECK(outcome.end() == "exit 0");
    for (long thread = 1; thread <= 5; ++thread) {
      const std::string key = "[" + std::to_string(thread) + "]: ";
      CHECK(has_line(outcome.err, "@own" + key + std::to_string(7 + 10 * thread)));
      CHECK(has_line(outcome.err, "@sum" + key + std::to_string(10 * 7 + 55 * thread)));
      CHECK(has_line(outcome.err, "@name" + key + "name " + std::to_string(thread)));
      CHECK(has_line(outcome.err, "@library" + key + std::to_string(1000 + 10 * thread)));
    }
    CHECK(has_line(outcome.err, "@times: 110"));
    CHECK(has_line(outcome.err, "@same: 0"));
    CHECK(adds_up(outcome.summary()));
  }
}

TEST_CASE("thread_local_later: a library that is loaded later") {
  const std::string later = fixture("libfx_thread_local_later.so");
  const Outcome outcome =
      run_probed({fixture("fx_thread_local0"), "later", later},
                 later + "@fx_thread_local_library.c:" + line_of("library") + " { print(args.in_library) }",
                 {{"UBP_MISSING", "pending"}});
  CAPTURE(outcome.err);
  CHECK(outcome.end() == "exit 0");
  CHECK(
      outcome.err.find("each thread has its own, and those of a library that was loaded later lie elsewhere in each") !=
      std::string::npos);
  CHECK_FALSE(has_line(outcome.err, "1003"));
}

}  // namespace ubp::test::thread_local_test
