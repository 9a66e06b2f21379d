// What ubp_map_read() hands out: keys and values of every kind, aggregations and their parts.
#include "fixture.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace {

// As text: "key,key=value,value count total [first..last:count ...]".
std::vector<std::string> entries(ubp_probe* probe, const char* map) {
  std::vector<std::string> lines;
  const auto add = [](const ubp_map_entry* entry, void* data) {
    CHECK(entry->struct_size == sizeof *entry);
    const auto text_of = [](const ubp_value* values, std::size_t count) {
      std::string text;
      for (std::size_t i = 0; i < count; ++i) {
        const ubp_value& value = values[i];
        CHECK(value.text[value.length] == '\0');
        text += i != 0 ? "," : "";
        if (value.kind == UBP_VALUE_SIGNED) text += std::to_string(value.number);
        if (value.kind == UBP_VALUE_UNSIGNED) text += std::to_string(static_cast<std::uint64_t>(value.number)) + "u";
        if (value.kind == UBP_VALUE_TEXT) text += "'" + std::string(value.text, value.length) + "'";
        if (value.kind == UBP_VALUE_BYTES) text += "<" + std::to_string(value.length) + ">";
      }
      return text;
    };
    std::string line = text_of(entry->keys, entry->key_count) + "=" + text_of(entry->values, entry->value_count);
    if (entry->count != 0 || entry->total != 0)
      line += " " + std::to_string(entry->count) + " " + std::to_string(entry->total);
    for (std::size_t i = 0; i < entry->bucket_count; ++i) {
      const ubp_bucket& bucket = entry->buckets[i];
      const auto bound = [](std::int64_t number) {
        return number == std::numeric_limits<std::int64_t>::min()   ? std::string("min")
               : number == std::numeric_limits<std::int64_t>::max() ? std::string("max")
                                                                    : std::to_string(number);
      };
      line += " " + bound(bucket.first) + ".." + bound(bucket.last) + ":" + std::to_string(bucket.count);
    }
    static_cast<std::vector<std::string>*>(data)->push_back(line);
  };
  REQUIRE(ubp_map_read(probe, map, add, &lines) == UBP_OK);
  return lines;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("keys: numbers, texts, several, tuples; in the order in which they are printed") {
  const Scoped probe(
      add("libfx_target:target_add { @i[arg0] = (int64)arg1; @s[arg0 > 1 ? \"many\" : \"few\"] = count(); "
          "@two[arg0, \"k\"] = 1; @tuple[(arg0, (1, \"x\"))] = (arg1 > 25, \"y\"); @u[1] = (uint8)200; }"));
  CHECK(entries(probe.probe, "@i").empty());
  target_add(1, 30);
  target_add(2, 20);
  target_add(3, -10);
  CHECK(entries(probe.probe, "@i") == Lines{"3u=-10", "2u=20", "1u=30"});
  CHECK(entries(probe.probe, "@s") == Lines{"'few'=1u", "'many'=2u"});
  CHECK(entries(probe.probe, "@two") == Lines{"1u,'k'=1", "2u,'k'=1", "3u,'k'=1"});
  CHECK(entries(probe.probe, "@tuple") == Lines{"1u,1,'x'=1u,'y'", "2u,1,'x'=0u,'y'", "3u,1,'x'=1u,'y'"});
  CHECK(entries(probe.probe, "@u") == Lines{"1=200u"});
}

TEST_CASE("values: texts of the program's, pointers, truth, what is only printed, bytes") {
  static char text[] = "from memory";
  const Scoped probe(add(
      "struct pair { int a; char b[3]; } libfx_target:target_add { @t = str(arg0); @p = (int8 *)arg0; @b = arg1 == 1; "
      "@c = ntop(2, 0x0100007f); @s = *(struct pair *)arg0; @buf = buf(arg0, 4); }"));
  CHECK(entries(probe.probe, "@t").empty());
  target_add(reinterpret_cast<long>(&text[0]), 1);
  CHECK(entries(probe.probe, "@t") == Lines{"='from memory'"});
  CHECK(entries(probe.probe, "@p") == Lines{"=" + std::to_string(reinterpret_cast<std::uint64_t>(&text[0])) + "u"});
  CHECK(entries(probe.probe, "@b") == Lines{"=1u"});
  CHECK(entries(probe.probe, "@c") == Lines{"='127.0.0.1'"});
  CHECK(entries(probe.probe, "@s") == Lines{"=<8>"});
  CHECK(entries(probe.probe, "@buf") == Lines{"=<4>"});
}

TEST_CASE("aggregations: their number, how many values there were, their sum") {
  const Scoped probe(add(
      "libfx_target:target_add { $v = (int64)arg0; @count = count(); @sum = sum($v); @min = min($v); @max = max($v); "
      "@avg = avg($v); @stats = stats($v); @by[arg1] = avg($v); @unsigned = sum(arg1); }"));
  for (const char* name : {"@count", "@sum", "@min", "@max", "@avg", "@stats", "@by"})
    CHECK(entries(probe.probe, name).empty());
  target_add(-7, 1);
  target_add(10, 1);
  target_add(6, 2);
  CHECK(entries(probe.probe, "@count") == Lines{"=3u"});
  CHECK(entries(probe.probe, "@sum") == Lines{"=9"});
  CHECK(entries(probe.probe, "@min") == Lines{"=-7 3 0"});
  CHECK(entries(probe.probe, "@max") == Lines{"=10 3 0"});
  CHECK(entries(probe.probe, "@avg") == Lines{"=3 3 9"});
  CHECK(entries(probe.probe, "@stats") == Lines{"=3 3 9"});
  CHECK(entries(probe.probe, "@by") == Lines{"1u=1 2 3", "2u=6 1 6"});
  CHECK(entries(probe.probe, "@unsigned") == Lines{"=4u"});
}

TEST_CASE("histograms: the buckets that are not empty, with their bounds") {
  const Scoped probe(
      add("libfx_target:target_add { $v = (int64)arg0; @hist = hist($v); @fine = hist($v, 2); "
          "@linear = lhist($v, 0, 25, 10); @huge = hist(arg0); }"));
  for (const long value : {-5L, 0L, 1L, 2L, 3L, 9L, 9L, 24L, 25L, 1000L}) target_add(value, 0);
  CHECK(entries(probe.probe, "@hist") ==
        Lines{"=10u 10 0 min..-1:1 0..0:1 1..1:1 2..3:2 8..15:2 16..31:2 512..1023:1"});
  CHECK(entries(probe.probe, "@linear") == Lines{"=10u 10 0 min..-1:1 0..9:6 20..24:1 25..max:2"});
  CHECK(entries(probe.probe, "@huge") ==
        Lines{"=10u 10 0 0..0:1 1..1:1 2..3:2 8..15:2 16..31:2 512..1023:1 max..max:1"});
  CHECK(entries(probe.probe, "@fine") ==
        Lines{"=10u 10 0 min..-1:1 0..0:1 1..1:1 2..2:1 3..3:1 8..9:2 24..27:2 896..1023:1"});
}

TEST_CASE("an entry is a copy: the visitor may unregister the probe") {
  static ubp_probe* probe = nullptr;
  static int visits = 0;
  probe = add("libfx_target:target_add { @k[arg0] = str(arg1); }");
  static char text[] = "kept";
  for (long key = 0; key < 20; ++key) target_add(key, reinterpret_cast<long>(&text[0]));
  const auto visit = [](const ubp_map_entry* entry, void*) {
    if (visits++ == 0) CHECK(ubp_unregister(probe) == UBP_OK);
    CHECK(std::string(entry->values[0].text) == "kept");
    CHECK(entry->keys[0].number == visits - 1);
  };
  CHECK(ubp_map_read(probe, "@k", visit, nullptr) == UBP_OK);
  CHECK(visits == 20);
}

TEST_CASE("keys that are deleted, maps that are cleared") {
  const Scoped probe(
      add("libfx_target:target_add { @k[arg0] = arg1; @c[arg0] = count(); if (arg1 == 9) { delete(@k, arg0); } } "
          "libfx_target:target_quiet { clear(@c); }"));
  target_add(1, 2);
  target_add(2, 9);
  CHECK(entries(probe.probe, "@k") == Lines{"1u=2u"});
  CHECK(entries(probe.probe, "@c") == Lines{"1u=1u", "2u=1u"});
  target_quiet(0);
  CHECK(entries(probe.probe, "@c").empty());
}
