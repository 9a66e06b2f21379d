// runtime/spec on inputs nobody meant: random bytes, random sentences, long repetitions. Every result keeps
// its promises, and the time stays linear. Seeded, so that a failure repeats.
#include <doctest/doctest.h>
#include <malloc.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <random>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/language/spec.h"
#include "runtime/language/text.h"

namespace ubp::language {
namespace {

// What holds of any result for any input.
void check_invariants(std::string_view text) {
  const auto result = parse(text);
  if (const Error* error = std::get_if<Error>(&result)) {
    REQUIRE(error->position.line >= 1);
    REQUIRE(error->position.column >= 1);
    REQUIRE(!error->message.empty());
    REQUIRE(error->message.size() < 400);
    REQUIRE(error->message.back() != '.');
    REQUIRE(!find_bad_byte(error->message));
    REQUIRE(error->message.find('\n') == std::string::npos);
    return;
  }
  for (const Item& item : std::get<std::vector<Item>>(result)) {
    REQUIRE(!item.text.empty());
    REQUIRE(text.find(item.text) != std::string_view::npos);
    REQUIRE(item.text.find('\n') == std::string::npos);
    REQUIRE(item.exclude == (item.text[0] == '!'));
    REQUIRE(item.target_position.line == item.position.line);
    REQUIRE(item.target_position.column >= item.position.column);
    if (const auto* symbol = std::get_if<SymbolTarget>(&item.target)) {
      REQUIRE(!symbol->pattern.empty());
    } else if (const auto* mark = std::get_if<MarkTarget>(&item.target)) {
      REQUIRE(!mark->name.empty());
    } else if (const auto* line = std::get_if<LineTarget>(&item.target)) {
      REQUIRE(!line->file.empty());
    } else {
      REQUIRE(!item.module.empty());
    }
    // An item's text alone means the same.
    const auto again = parse(item.text);
    const auto* one = std::get_if<std::vector<Item>>(&again);
    REQUIRE(one != nullptr);
    REQUIRE(one->size() == 1);
    REQUIRE(one->front().module == item.module);
    REQUIRE(one->front().target.index() == item.target.index());
  }
}

// The time that parsing takes this thread, at its best.
std::int64_t parse_ns(std::string_view text) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  std::int64_t best = INT64_MAX;
  for (int turn = 0; turn < 5; ++turn) {
    const std::int64_t start = now();
    const auto result = parse(text);
    best = std::min(best, now() - start);
  }
  return best;
}

}  // namespace

TEST_CASE("spec: a megabyte of random bytes gives one clean error") {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    std::mt19937 random(seed);
    std::string text(std::size_t{1} << 20, '\0');
    for (char& c : text) c = static_cast<char>(random());
    check_invariants(text);
    CHECK(std::holds_alternative<Error>(parse(text)));
  }
}

TEST_CASE("spec: random sentences over the grammar's characters keep the invariants") {
  const std::vector<std::string_view> words = {
      "f", "app", "u", ":", "::", ";", "\n", " ", "+", "0x1", "12", "\"", "\\", "[", "]", "!",    "#",       "(",
      ")", "<",   ">", "*", "?",  "/", "{",  "}", "@", "=",   ",",  "-",  ".",  "~", "%", "\r\n", "\xc3\xb6"};
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto length = random() % 12; length > 0; --length) text += words[random() % words.size()];
    CAPTURE(text);
    check_invariants(text);
  }
}

TEST_CASE("spec: a megabyte of one repeated piece takes linear time") {
  mallopt(M_MMAP_MAX, 0);  // memory that stays is not a matter of the kernel's each time
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  for (const std::string_view piece :
       {"[",  "[a",  "\"", "(", "<",      ":",    "::", "!", "f;",  "f[",       "\\", "a:b;",
        "f+", "[]]", "/",  "#", "\"a\":", "f+1;", "@",  "*", "[x=", "\xc3\xb6", ";",  "[\\]"}) {
    CAPTURE(piece);
    std::string text;
    while (text.size() < (std::size_t{1} << 16)) text += piece;
    constexpr std::int64_t kLeastNs = 100'000;  // below, the clock itself counts
    const std::int64_t once = std::max(parse_ns(text), kLeastNs);
    while (text.size() < (std::size_t{1} << 20)) text += piece;
    CHECK(parse_ns(text) < once * 64);  // 16 times as much: 256 times as long if each byte looked at all others
    const auto result = parse(text);
    if (const Error* error = std::get_if<Error>(&result)) CHECK(error->message.size() < 400);
  }
}

}  // namespace ubp::language
