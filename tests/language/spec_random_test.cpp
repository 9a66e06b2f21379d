// runtime/spec on inputs nobody meant: random bytes, random sentences, long repetitions. Every result keeps
// its promises, and the time stays linear. Seeded, so that a failure repeats.
#include <doctest/doctest.h>

#include <chrono>
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

}  // namespace

TEST_CASE("spec: a megabyte of random bytes gives one clean error, fast") {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    std::mt19937 random(seed);
    std::string text(std::size_t{1} << 20, '\0');
    for (char& c : text) c = static_cast<char>(random());
    const auto start = std::chrono::steady_clock::now();
    check_invariants(text);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
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
  for (const std::string_view piece :
       {"[",  "[a",  "\"", "(", "<",      ":",    "::", "!", "f;",  "f[",       "\\", "a:b;",
        "f+", "[]]", "/",  "#", "\"a\":", "f+1;", "@",  "*", "[x=", "\xc3\xb6", ";",  "[\\]"}) {
    CAPTURE(piece);
    std::string text;
    while (text.size() < (std::size_t{1} << 20)) text += piece;
    const auto start = std::chrono::steady_clock::now();
    const auto result = parse(text);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(2));
    if (const Error* error = std::get_if<Error>(&result)) CHECK(error->message.size() < 400);
  }
}

}  // namespace ubp::language
