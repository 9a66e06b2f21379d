// The summary as JSON (UBP_SUMMARY). Key names and their order are a stable interface: extend, never rename.
//
// Written by hand: the output is one flat schema, and no JSON library has to live inside the application.
// Strings come from other people's files (symbols, paths), so any bytes give valid UTF-8 JSON.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/base/utf8.h"
#include "runtime/report/report.h"

namespace ubp::report {
namespace {

constexpr std::string_view kReplacement = "\\ufffd";

void append_escaped(std::string& out, char c) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  switch (c) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\b': out += "\\b"; return;
    case '\f': out += "\\f"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  if (byte >= 0x20 && byte != 0x7f) {
    out += c;
    return;
  }
  out += "\\u00";
  out += kHex[byte >> 4];
  out += kHex[byte & 15];
}

bool is_plain(char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (;;) {
    const auto plain = static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_plain) - text.begin());
    out += text.substr(0, plain);
    text.remove_prefix(plain);
    if (text.empty()) break;
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      out += kReplacement;
    } else if (length == 1) {
      append_escaped(out, text[0]);
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
}

void append_number(std::string& out, std::uint64_t value, int base = 10) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value, base).ptr;
  out.append(digits, end);
}

// One {...}; members appear in the order in which they are added.
class Object {
 public:
  explicit Object(std::string& out) : out_(out) { out_ += '{'; }
  ~Object() { out_ += '}'; }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  void text(std::string_view key, std::string_view value) {
    start(key);
    append_string(out_, value);
  }
  void number(std::string_view key, std::uint64_t value) {
    start(key);
    append_number(out_, value);
  }
  void address(std::string_view key, std::uint64_t value) {
    start(key);
    out_ += "\"0x";
    append_number(out_, value, 16);
    out_ += '"';
  }
  // Begins a member, whose value is to follow in what it returns.
  std::string& start(std::string_view key) {
    if (!is_empty_) out_ += ", ";
    is_empty_ = false;
    append_string(out_, key);
    out_ += ": ";
    return out_;
  }

 private:
  std::string& out_;
  bool is_empty_ = true;
};

void append_totals(std::string& out, const Totals& totals) {
  Object object(out);
  object.number("probes_requested", totals.probes_requested);
  object.number("probepoints_armed", totals.probepoints_armed);
  object.number("pending", totals.pending);
  object.number("refused", totals.refused);
  object.number("hits", totals.hits);
  object.number("recorded", totals.recorded);
  object.number("filtered", totals.filtered);
  object.number("missed", totals.missed);
  object.number("dropped", totals.dropped);
}

void append_xol(std::string& out, const XolStats& xol) {
  Object object(out);
  object.text("policy", xol.policy);
  object.number("slots_per_thread", xol.slots_per_thread);
  object.number("hits", xol.hits);
  object.number("misses", xol.misses);
  object.number("refills", xol.refills);
  object.number("evictions", xol.evictions);
  object.number("area_bytes", xol.area_bytes);
  object.number("threads_seen", xol.threads_seen);
}

void append_optimised(std::string& out, const OptimisedStats& optimised) {
  Object object(out);
  object.number("probepoints", optimised.probepoints);
  object.number("hits", optimised.hits);
  object.number("detour_bytes", optimised.detour_bytes);
  Object left(object.start("left"));
  for (const auto& [reason, count] : optimised.left) left.number(reason, count);
}

void append_traps(std::string& out, const Traps& traps) {
  Object object(out);
  object.number("hits", traps.hits);
  object.number("runtime", traps.runtime);
  object.number("cost_ns", static_cast<std::uint64_t>(traps.cost_ns));
}

void append_failure(std::string& out, const Failure& failure) {
  Object object(out);
  object.text("what", failure.what);
  object.text("where", failure.where);
  object.text("why", failure.why);
  object.text("hint", failure.hint);
}

void append_row(std::string& out, const Coverage& part) {
  Object object(out);
  object.text("module", part.module);
  object.text("sources", part.sources);
  object.number("functions", part.functions);
  object.number("known_bytes", part.known_bytes);
  object.number("code_bytes", part.code_bytes);
}

void append_row(std::string& out, const RefusalRow& row) {
  Object object(out);
  object.text("module", row.module);
  object.text("symbol", row.symbol);
  object.address("address", row.address);
  object.text("reason", row.reason);
}

void append_row(std::string& out, const ProbeRow& row) {
  Object object(out);
  object.text("spec", row.spec);
  object.text("kind", row.kind);
  object.text("module", row.module);
  object.text("symbol", row.symbol);
  object.address("address", row.address);
  object.number("hits", row.hits);
  if (row.is_return) {
    object.number("entries", row.entries);
    object.number("left", row.left);
  }
  if (!row.tier.empty()) object.text("tier", row.tier);
  if (row.aliases.empty()) return;
  std::string& list = object.start("aliases");
  for (std::size_t i = 0; i < row.aliases.size(); ++i) {
    list += i == 0 ? "[" : ", ";
    append_string(list, row.aliases[i]);
  }
  list += ']';
}

// One row a line, so that line tools (grep, diff) work on the file too.
template <typename Row>
void append_rows(std::string& out, const std::vector<Row>& rows) {
  out += '[';
  std::string_view separator = "\n    ";
  for (const Row& row : rows) {
    out += separator;
    append_row(out, row);
    separator = ",\n    ";
  }
  out += rows.empty() ? "]" : "\n  ]";
}

}  // namespace

std::string format_json(const Summary& summary) {
  std::string out;
  constexpr std::size_t kMuch = 256;  // a row; what is not used takes no memory, and growing would take it twice
  out.reserve((summary.probes.size() + summary.refusals.size() + 8) * kMuch);
  out += "{\n  \"version\": ";
  append_string(out, summary.version);
  out += ",\n  \"pid\": ";
  append_number(out, static_cast<std::uint64_t>(summary.pid));
  out += ",\n  \"program\": ";
  append_string(out, summary.program);
  if (summary.error) {
    out += ",\n  \"error\": ";
    append_failure(out, *summary.error);
  }
  out += ",\n  \"totals\": ";
  append_totals(out, summary.totals);
  out += ",\n  \"xol\": ";
  append_xol(out, summary.xol);
  out += ",\n  \"optimised\": ";
  append_optimised(out, summary.optimised);
  out += ",\n  \"traps\": ";
  append_traps(out, summary.traps);
  if (!summary.coverage.empty()) {
    out += ",\n  \"coverage\": ";
    append_rows(out, summary.coverage);
  }
  out += ",\n  \"refusals\": ";
  append_rows(out, summary.refusals);
  out += ",\n  \"probes\": ";
  append_rows(out, summary.probes);
  out += "\n}\n";
  return out;
}

}  // namespace ubp::report
