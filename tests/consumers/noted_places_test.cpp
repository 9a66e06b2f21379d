// Who has noted a call at a place last: what is said is so, at any place, and near places are near.
#include "runtime/consumers/noted_places.h"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace ubp::runtime {
namespace {

struct Places : NotedPlaces {
  explicit Places(std::vector<std::uint64_t>& words) : NotedPlaces(reinterpret_cast<std::uint64_t>(words.data())) {}
};
std::vector<std::uint64_t> room() { return std::vector<std::uint64_t>(NotedPlaces::kBytes / sizeof(std::uint64_t)); }

}  // namespace

TEST_CASE("noted_places: the last list at a place, or that it is not known; never another one") {
  std::vector<std::uint64_t> words = room();
  const Places places(words);
  std::mt19937_64 random(1);
  // Stacks that begin alike, any address, and some that are no multiples of a word.
  const auto any_place = [&]() -> std::uint64_t {
    switch (random() % 4) {
      case 0: return 0x7f0000000000 + random() % 64 * 0x801000 + random() % 512 * 8;
      case 1: return random() % 4096;
      case 2: return random() & ~std::uint64_t{7};
      default: return random();
    }
  };
  std::map<std::uint64_t, std::uint32_t> truth;
  std::vector<std::uint64_t> seen;
  std::uint64_t known = 0, unknown = 0;
  for (int turn = 0; turn < 400'000; ++turn) {
    const std::uint64_t place = seen.empty() || random() % 2 == 0 ? any_place() : seen[random() % seen.size()];
    if (random() % 2 == 0) {
      const auto number =
          random() % 16 == 0 ? NotedPlaces::kNobody
                             : NotedPlaces::kFirstList + static_cast<std::uint32_t>(random() % NotedPlaces::kMostLists);
      places.note(place, number);
      if (places.last(place) != number) FAIL("it was noted just now");
      truth[place] = number;
      seen.push_back(place);
      continue;
    }
    const std::uint32_t last = places.last(place);
    const auto found = truth.find(place);
    known += last != NotedPlaces::kNotKnown;
    unknown += last == NotedPlaces::kNotKnown && found != truth.end();
    if (last != NotedPlaces::kNotKnown && (found == truth.end() || found->second != last)) FAIL("it is another's");
  }
  CHECK(known > 10'000);
  CHECK(unknown > 100);  // there were some with one index
}

TEST_CASE("noted_places: the places of a stack do not take each other's words, which lie as near as they do") {
  std::vector<std::uint64_t> words = room();
  const Places places(words);
  constexpr std::uint64_t kTop = 0x7ffe12340000, kBytes = 1 << 20;
  for (std::uint64_t at = 0; at < kBytes; at += 8) places.note(kTop - at, NotedPlaces::kFirstList);
  for (std::uint64_t at = 0; at < kBytes; at += 8) {
    if (places.last(kTop - at) != NotedPlaces::kFirstList) FAIL("it is not known");
  }
  std::set<std::uint64_t> pages;
  for (std::uint64_t at = 0; at < words.size(); ++at) {
    if (words[at] != 0) pages.insert(at * sizeof(std::uint64_t) / 4096);
  }
  CHECK(pages.size() <= kBytes / 4096 + 1);
}

}  // namespace ubp::runtime
