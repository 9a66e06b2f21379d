// The probe table finds what was put in and nothing else.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <set>

#include "runtime/table/table.h"

using namespace ubp::runtime;

namespace {
void add_all(Table& table, const std::set<std::uint64_t>& addresses) {
  for (const std::uint64_t address : addresses) {
    ubp::xol::Displaced point;
    point.address = address & ubp::xol::kAddressMask;
    table.add(point);
  }
}
}  // namespace

TEST_CASE("an empty table and an unpublished view find nothing") {
  CHECK(TableView{}.find(0x401000) == kNotFound);
  CHECK(Table(0).view().find(0) == kNotFound);
}

TEST_CASE("every probepoint is found under its index, its neighbours are not") {
  std::mt19937_64 random(3);
  for (const std::size_t count : {1u, 2u, 3u, 100u, 5000u}) {
    std::set<std::uint64_t> addresses;
    while (addresses.size() < count) {
      addresses.insert(count % 2 == 0 ? 0x7f0000000000 + addresses.size() * 2 : 0x401000 + random() % 0x1000000);
    }
    Table table(addresses.size());
    add_all(table, addresses);
    const TableView view = table.view();
    std::uint32_t index = 0;
    for (const std::uint64_t address : addresses) {
      REQUIRE(view.find(address) == index++);
      if (!addresses.contains(address + 1)) REQUIRE(view.find(address + 1) == kNotFound);
    }
  }
}

TEST_CASE("dense code, the worst case for a bad hash, needs few looks") {
  std::set<std::uint64_t> addresses;
  for (std::uint64_t i = 0; i < 100000; ++i) addresses.insert(0x555555554000 + i * 3);
  Table table(addresses.size());
  add_all(table, addresses);
  const TableView view = table.view();
  const Buckets& all = **view.present;
  std::uint64_t looks = 0, others = 0;  // at buckets, and at probepoints that are others
  const auto count = [&](std::uint64_t address) {
    const Bucket::Hash hash = Bucket::hash(address);
    for (std::uint64_t at = hash.place & all.mask;; at = (at + 1) & all.mask) {
      ++looks;
      if (all.buckets[at] == 0) return;
      if (!Bucket::may_be(all.buckets[at], hash.tag)) continue;
      if (view.points[Bucket::index(all.buckets[at])].address == address) return;
      ++others;
    }
  };
  for (const std::uint64_t address : addresses) count(address);
  CHECK(looks < addresses.size() * 2);
  CHECK(others < addresses.size() / 20);
  looks = others = 0;
  for (const std::uint64_t address : addresses) count(address + 1);  // where there is none
  CHECK(looks < addresses.size() * 5);
  CHECK(others < addresses.size() / 10);
}

TEST_CASE("probepoints come later, go and come back; the probepoints stay where they are") {
  Table table(1002);
  add_all(table, {0x1000, 0x2000});
  const TableView first = table.view();
  const Buckets* const old = *first.present;
  std::set<std::uint64_t> later;
  for (std::uint64_t i = 0; i < 1000; ++i) later.insert(0x10000 + i);
  add_all(table, later);
  CHECK(table.room() == 0);
  CHECK(table.view().points == first.points);
  CHECK(table.view().present == first.present);
  CHECK(*first.present != old);                                                        // these did not do
  for (std::uint32_t i = 0; i < 1000; ++i) REQUIRE(first.find(0x10000 + i) == 2 + i);  // a reader with the old view
  CHECK(first.find(0x2000) == 1);
  for (std::uint32_t i = 0; i < 1000; i += 2) table.retire(2 + i);
  for (std::uint32_t i = 0; i < 1000; ++i) REQUIRE(first.find(0x10000 + i) == (i % 2 == 0 ? kNotFound : 2 + i));
  for (std::uint32_t i = 0; i < 1000; i += 2) table.revive(2 + i, 0x10000 + i);
  for (std::uint32_t i = 0; i < 1000; ++i) REQUIRE(first.find(0x10000 + i) == 2 + i);
}

TEST_CASE("the buckets grow with what is put in, and what has no address then is found when it is back") {
  constexpr std::uint32_t kCount = 200000;
  Table table(kCount);
  add_all(table, {0x1000, 0x2000, 0x3000});
  const TableView view = table.view();
  table.retire(1);
  CHECK(table.bytes() < 100000);
  std::set<std::uint64_t> later;
  for (std::uint64_t i = 0; i < kCount - 3; ++i) later.insert(0x10000 + 5 * i);
  add_all(table, later);
  CHECK(table.room() == 0);
  CHECK(view.find(0x1000) == 0);
  CHECK(view.find(0x2000) == kNotFound);
  table.revive(1, 0x2000);
  CHECK(view.find(0x2000) == 1);
  CHECK(view.find(0x3000) == 2);
  bool is_found = true;
  for (std::uint32_t i = 0; i < kCount - 3; ++i)
    is_found &= view.find(0x10000 + 5 * i) == 3 + i && view.find(0x10001 + 5 * i) == kNotFound;
  CHECK(is_found);
}

TEST_CASE("a probepoint that is there already is taken once, and what may change of it changes nothing else") {
  Table table(10);
  add_all(table, {0x1000, 0x2000, 0x3000});
  ubp::xol::Displaced again;
  again.address = 0x2000;
  CHECK(table.add(again) == 1);
  CHECK(table.room() == 7);
  const ubp::xol::Displaced before = table.view().points[1];
  table.set_consumers(1, true);
  CHECK(table.view().points[1].has_consumers);
  CHECK(table.view().find(0x2000) == 1);
  table.set_consumers(1, false);
  CHECK(std::memcmp(&before, &table.view().points[1], sizeof before) == 0);
}
