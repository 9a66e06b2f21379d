// The machine-readable summary: parsed with an independent library, and byte by byte where the order matters.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/report/report.h"

namespace ubp::report {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::vector<std::string> keys_of(const OrderedJson& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

// What a JSON reader gets back for a program of this name.
std::string round_trip(const std::string& program) {
  Summary summary;
  summary.program = program;
  return OrderedJson::parse(format_json(summary))["program"].get<std::string>();
}

// The bytes between the quotes of "program".
std::string encoded(const std::string& program) {
  Summary summary;
  summary.program = program;
  const std::string text = format_json(summary);
  const std::string key = "\"program\": \"";
  const std::size_t start = text.find(key) + key.size();
  return text.substr(start, text.find("\",\n", start) - start);
}

Summary sample() {
  Summary summary;
  summary.version = "0.1.0";
  summary.pid = 42;
  summary.program = "/usr/bin/app";
  summary.totals = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  summary.xol = {"thread", 64, 10, 11, 12, 13, 14, 15};
  summary.optimised = {16, 17, 18, {{"budget", 19}, {"neighbour", 20}}};
  summary.traps = {21, 22, 23.9};
  summary.refusals = {{"libc.so.6", "memcpy+0x3", 0xa1b23, "mid-instruction: no"}, {"app", "g", 0, "rseq: no"}};
  summary.probes = {{"app:f", "uprobe", "app", "f", 0xffffffffffffffff, UINT64_MAX},
                    {"app:g", "uprobe", "app", "g", 0x20, 0, "jump"}};
  return summary;
}

TEST_CASE("report json: the keys are the stable ones, in their order") {
  const OrderedJson json = OrderedJson::parse(format_json(sample()));
  using Keys = std::vector<std::string>;
  CHECK(keys_of(json) ==
        Keys{"version", "pid", "program", "totals", "xol", "optimised", "traps", "refusals", "probes"});
  CHECK(keys_of(json["traps"]) == Keys{"hits", "runtime", "cost_ns"});
  CHECK(keys_of(json["totals"]) == Keys{"probes_requested", "probepoints_armed", "pending", "refused", "hits",
                                        "recorded", "filtered", "missed", "dropped"});
  CHECK(keys_of(json["xol"]) ==
        Keys{"policy", "slots_per_thread", "hits", "misses", "refills", "evictions", "area_bytes", "threads_seen"});
  CHECK(keys_of(json["optimised"]) == Keys{"probepoints", "hits", "detour_bytes", "left"});
  CHECK(keys_of(json["refusals"][0]) == Keys{"module", "symbol", "address", "reason"});
  CHECK(keys_of(json["probes"][0]) == Keys{"spec", "kind", "module", "symbol", "address", "hits"});
}

TEST_CASE("report json: every value is where it belongs") {
  const OrderedJson json = OrderedJson::parse(format_json(sample()));
  CHECK(json["version"] == "0.1.0");
  CHECK(json["pid"] == 42);
  CHECK(json["program"] == "/usr/bin/app");
  std::uint64_t expected = 1;
  for (const auto& [key, value] : json["totals"].items()) CHECK(value == expected++);
  CHECK(json["xol"]["policy"] == "thread");
  CHECK(json["xol"]["slots_per_thread"] == 64);
  for (const char* key : {"hits", "misses", "refills", "evictions", "area_bytes", "threads_seen"}) {
    CHECK(json["xol"][key] == expected++);
  }
  for (const char* key : {"probepoints", "hits", "detour_bytes"}) CHECK(json["optimised"][key] == expected++);
  CHECK(json["traps"] == OrderedJson::parse(R"({"hits":21,"runtime":22,"cost_ns":23})"));
  CHECK(json["optimised"]["left"] == OrderedJson::parse(R"({"budget":19,"neighbour":20})"));
  CHECK(json["refusals"].size() == 2);
  CHECK(json["refusals"][0]["address"] == "0xa1b23");
  CHECK(json["refusals"][1] ==
        OrderedJson::parse(R"({"module":"app","symbol":"g","address":"0x0","reason":"rseq: no"})"));
  CHECK(json["probes"].size() == 2);
  CHECK(json["probes"][0]["address"] == "0xffffffffffffffff");
  CHECK(json["probes"][0]["hits"].get<std::uint64_t>() == UINT64_MAX);
  CHECK(json["probes"][1] ==
        OrderedJson::parse(
            R"({"spec":"app:g","kind":"uprobe","module":"app","symbol":"g","address":"0x20","hits":0,"tier":"jump"})"));
}

TEST_CASE("report json: why nothing was armed stands in front of the numbers") {
  Summary summary = sample();
  summary.error = Failure{"no such \"thing\"", "UBP_PROBES:1:1", "it is not there", "did you mean another?"};
  const OrderedJson json = OrderedJson::parse(format_json(summary));
  CHECK(keys_of(json)[3] == "error");
  CHECK(
      json["error"] ==
      OrderedJson::parse(
          R"({"what":"no such \"thing\"","where":"UBP_PROBES:1:1","why":"it is not there","hint":"did you mean another?"})"));
  CHECK(json["version"] == "0.1.0");
}

TEST_CASE("report json: nothing to tell is valid too, and the file ends in a newline") {
  const std::string text = format_json(Summary{});
  const OrderedJson json = OrderedJson::parse(text);
  CHECK(json["refusals"].empty());
  CHECK(json["probes"].is_array());
  CHECK(text.back() == '\n');
}

TEST_CASE("report json: every byte below 0x80 comes back as it was") {
  for (int byte = 0; byte < 0x80; ++byte) {
    const std::string text = std::string("a") + static_cast<char>(byte) + "b";
    CHECK(round_trip(text) == text);
    for (const char c : encoded(text)) CHECK(static_cast<unsigned char>(c) >= 0x20);
  }
}

TEST_CASE("report json: quotes, backslashes and control bytes are escaped") {
  CHECK(encoded("\"\\") == "\\\"\\\\");
  CHECK(encoded("\b\f\n\r\t") == "\\b\\f\\n\\r\\t");
  CHECK(encoded(std::string(1, '\0') + "\x1f\x7f") == "\\u0000\\u001f\\u007f");
  CHECK(encoded("a/b") == "a/b");
}

TEST_CASE("report json: valid UTF-8 stays, at every length and limit") {
  for (const char* text : {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
                           "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x9b"}) {
    CHECK(encoded(text) == text);
    CHECK(round_trip(text) == text);
  }
}

TEST_CASE("report json: each byte of invalid UTF-8 becomes U+FFFD") {
  const std::string one = "\\ufffd";
  CHECK(encoded("a\x80z") == "a" + one + "z");                  // continuation without a lead
  CHECK(encoded("\xc0\xaf") == one + one);                      // overlong
  CHECK(encoded("\xe0\x9f\xbf") == one + one + one);            // overlong
  CHECK(encoded("\xf0\x8f\xbf\xbf") == one + one + one + one);  // overlong
  CHECK(encoded("\xed\xa0\x80") == one + one + one);            // surrogate
  CHECK(encoded("\xf4\x90\x80\x80") == one + one + one + one);  // above U+10FFFF
  CHECK(encoded("\xf5\xff\xfe") == one + one + one);            // never a lead
  CHECK(encoded("\xe2\x82") == one + one);                      // cut short by the end
  CHECK(encoded("\xe2\x82\"") == one + one + "\\\"");           // cut short by a quote
  CHECK(encoded("\xe2\xc3\xa9") == one + "\xc3\xa9");           // cut short by another sequence
}

TEST_CASE("report json: all pairs of bytes give a document that parses") {
  Summary summary;
  for (int first = 0; first < 256; ++first) {
    std::string symbol;
    for (int second = 0; second < 256; ++second) {
      symbol += static_cast<char>(first);
      symbol += static_cast<char>(second);
    }
    summary.probes.push_back({symbol, "uprobe", symbol, symbol, 1, 1});
  }
  CHECK(OrderedJson::accept(format_json(summary)));
}

}  // namespace
}  // namespace ubp::report
