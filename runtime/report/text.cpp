// The summary as a person reads it: one block, then the table of probes, most hits first.
//
//   ubp: /usr/bin/sqlite3 (pid 4242), UBP 0.1.0
//   ubp: probes     312 requested, 310 probepoints armed, 0 pending, 2 refused
//   ubp:   refused  libc.so.6!memcpy+0x3 (0xa1b23): mid-instruction: ...
//   ubp: hits       120034 = 120034 recorded + 0 filtered + 0 missed + 0 dropped
//   ubp: slots      thread: 119000 hits, 1034 misses, 1034 refills, 900 evictions (64 a thread, ...)
//   ubp: optimised  0 of 310 probepoints (0.0 %), 0 of 120034 hits (0.0 %)
//   ubp: overhead   about 0.190 s: 120034 traps of hits and 12 of UBP's own, 1.58 us each, measured at exit
//   ubp: output     standard error
//   ubp:
//   ubp:    hits  probepoint             spec
//   ubp:   65000  libc.so.6!malloc       libc:malloc
//
// Numbers have no separators and every line starts with "ubp: ", so that grep, sort and awk work on them.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "runtime/report/line.h"
#include "runtime/report/report.h"

namespace ubp::report {
namespace {

constexpr std::size_t kGroup = 3,
                      kNamed = 3;  // so many refusals of one reason share a line, which names the first of them
constexpr std::size_t kMaxNameColumn = 48;  // longer names push their own line's last column out, not everyone's

std::string decimal(std::uint64_t value) { return std::to_string(value); }

std::string hexadecimal(std::uint64_t value) {
  char digits[16];
  return "0x" + std::string(digits, std::to_chars(digits, digits + sizeof digits, value, 16).ptr);
}

std::string count_of(std::uint64_t value, std::string_view noun) {
  std::string text = decimal(value) + ' ';
  text += noun;
  if (value != 1) text += 's';
  return text;
}

// "3 of 12 things (25.0 %)"; not printf, whose decimal point follows the application's locale.
std::string share(std::uint64_t part, std::uint64_t whole, std::string_view noun) {
  const double tenths = whole == 0 ? 0.0 : 1000.0 * static_cast<double>(part) / static_cast<double>(whole);
  const auto rounded = static_cast<std::uint64_t>(tenths + 0.5);
  return decimal(part) + " of " + count_of(whole, noun) + " (" + decimal(rounded / 10) + '.' + decimal(rounded % 10) +
         " %)";
}

void append_line(std::string& out, std::string_view text) {
  out += "ubp: ";
  append_printable(out, text);
  out += '\n';
}

// libc.so.6!malloc+0x4; the address where there is no symbol.
std::string place(std::string_view module, std::string_view symbol, std::uint64_t address) {
  std::string text(module.substr(module.rfind('/') + 1));  // npos + 1 is 0
  text += '!';
  return text + (symbol.empty() ? hexadecimal(address) : std::string(symbol));
}

std::string shortened(std::string text) {
  constexpr std::string_view kDots = "...";
  if (text.size() <= kMaxNameColumn) return text;
  text.resize(kMaxNameColumn - kDots.size());
  return text += kDots;
}

// Those of one reason, which are often many and harmless, in one line; but for who wants to know (UBP_LOG=info), and
// UBP_SUMMARY.
void append_refusals(std::string& out, const std::vector<RefusalRow>& refusals) {
  const bool lists_all = says(Level::kInfo);
  std::vector<std::pair<std::string_view, std::vector<const RefusalRow*>>>
      groups;  // by code, in the order of their first
  for (const RefusalRow& row : refusals) {
    const std::string_view reason = row.reason, code = reason.substr(0, reason.find(':'));
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& known) { return known.first == code; });
    if (group == groups.end()) group = groups.insert(groups.end(), {code, {}});
    group->second.push_back(&row);
  }
  bool leaves_out = false;
  for (const auto& [code, rows] : groups) {
    if (lists_all || rows.size() < kGroup) {
      for (const RefusalRow* row : rows) {
        const std::string where = place(row->module, row->symbol, row->address);
        std::string text = "  refused  " + (lists_all ? where : shortened(where));
        if (!row->symbol.empty()) text += " (" + hexadecimal(row->address) + ')';
        append_line(out, text + ": " + row->reason);
      }
      continue;
    }
    leaves_out = true;
    std::string text = "  refused  " + decimal(rows.size()) + ' ' + rows.front()->reason + ": ";
    for (std::size_t i = 0; i < kNamed; ++i)
      text += shortened(place(rows[i]->module, rows[i]->symbol, rows[i]->address)) + ", ";
    append_line(out, text + "...");
  }
  if (leaves_out) append_line(out, "  refused  all of them in UBP_SUMMARY, and here with UBP_LOG=info");
}

void append_block(std::string& out, const Summary& summary) {
  const Totals& totals = summary.totals;
  const XolStats& xol = summary.xol;
  append_line(out, summary.program + " (pid " + std::to_string(summary.pid) + "), UBP " + summary.version);
  append_line(out, "probes     " + decimal(totals.probes_requested) + " requested, " +
                       count_of(totals.probepoints_armed, "probepoint") + " armed, " + decimal(totals.pending) +
                       " pending, " + decimal(totals.refused) + " refused");
  append_refusals(out, summary.refusals);
  append_line(out, "hits       " + decimal(totals.hits) + " = " + decimal(totals.recorded) + " recorded + " +
                       decimal(totals.filtered) + " filtered + " + decimal(totals.missed) + " missed + " +
                       decimal(totals.dropped) + " dropped");
  append_line(out, "slots      " + xol.policy + ": " + decimal(xol.hits) + " hits, " + decimal(xol.misses) +
                       " misses, " + decimal(xol.refills) + " refills, " + decimal(xol.evictions) + " evictions (" +
                       decimal(xol.slots_per_thread) + " a thread, " + count_of(xol.threads_seen, "thread") + ", " +
                       count_of(xol.area_bytes, "byte") + ')');
  // A return is one hit, and passes two probepoints; hits by traps are told for the whole process.
  std::uint64_t passed = 0;
  if (__builtin_add_overflow(summary.optimised.hits, summary.traps.hits, &passed)) passed = UINT64_MAX;
  append_line(out, "optimised  " + share(summary.optimised.probepoints, totals.probepoints_armed, "probepoint") + ", " +
                       share(summary.optimised.hits, std::max(totals.hits, passed), "hit"));
  if (xol.taken_out != 0) {
    append_line(out, "missed     more tasks than states: " + count_of(xol.taken_out, "hit") +
                         ", and probepoints taken out (a smaller UBP_SLOTS leaves room for more)");
  }
  if (xol.uncounted_tasks != 0) {
    append_line(out, "uncounted  more tasks than counters: what " + count_of(xol.uncounted_tasks, "thread") +
                         " hit by jumps (a smaller UBP_SLOTS leaves room for more)");
  }
  const Traps& traps = summary.traps;
  if (traps.cost_ns > 0) {
    const double seconds = static_cast<double>(traps.hits + traps.runtime) * traps.cost_ns / 1e9;
    append_line(
        out, fmt::format("overhead   about {:.3f} s: {} of hits and {} of UBP's own, {:.2f} us each, measured at exit",
                         seconds, count_of(traps.hits, "trap"), traps.runtime, traps.cost_ns / 1e3));
  }
  for (const Coverage& part : summary.coverage) {
    const std::uint64_t tenths = part.known_bytes * 1000 / std::max<std::uint64_t>(part.code_bytes, 1);
    append_line(out, "coverage   " + decimal(tenths / 10) + '.' + decimal(tenths % 10) + " % of the code of " +
                         part.module + " is in its " + count_of(part.functions, "known function") + " (" +
                         part.sources + "): the others cannot be named");
  }
  if (summary.unfollowed != 0) {
    append_line(out, "executed   " + count_of(summary.unfollowed, "program") +
                         " by its children, unprobed (UBP_FOLLOW=exec probes them, too)");
  }
  append_line(out, "output     " + (summary.output_path.empty() ? "standard error" : summary.output_path));
}

// One table line; hits right-aligned, so that the eye compares magnitudes.
void append_row(std::string& out, std::string_view hits, std::size_t hits_width, std::string_view name,
                std::size_t name_width, std::string_view spec, std::string_view behind = {}) {
  constexpr std::size_t kMaxSpec = 80;  // a specification may be long: UBP_SUMMARY has it whole
  std::string text = "  ";
  text.append(hits_width - hits.size(), ' ');
  text += hits;
  text += "  ";
  text += name;
  if (name.size() < name_width) text.append(name_width - name.size(), ' ');
  text += "  ";
  text += spec.substr(0, kMaxSpec);
  if (spec.size() > kMaxSpec) text += "...";
  text += behind;
  append_line(out, text);
}

// What else a function is called, as far as a program would call it so: " (also memmove)".
std::string also(const std::vector<std::string>& aliases) {
  constexpr std::size_t kMost = 3;
  std::string text;
  std::size_t named = 0;
  for (const std::string& alias : aliases) {
    if (alias.starts_with('_')) continue;
    if (++named > kMost) break;
    text += (named == 1 ? " (also " : ", ") + alias;
  }
  if (named > kMost) text += ", ...";
  return named == 0 ? text : text + ')';
}

void append_table(std::string& out, const std::vector<ProbeRow>& probes, std::uint64_t unlisted) {
  std::vector<const ProbeRow*> rows;
  rows.reserve(probes.size());
  const std::uint64_t all = probes.size() + unlisted;
  const bool shows_all = all <= kMaxRowsWithoutHits;
  for (const ProbeRow& row : probes) {
    if (shows_all || row.hits != 0) rows.push_back(&row);
  }
  std::sort(rows.begin(), rows.end(), [](const ProbeRow* a, const ProbeRow* b) {
    return std::tie(b->hits, a->module, a->symbol, a->address, a->spec) <
           std::tie(a->hits, b->module, b->symbol, b->address, b->spec);
  });

  constexpr std::string_view kHits = "hits", kName = "probepoint", kSpec = "spec";
  std::size_t hits_width = kHits.size(), name_width = kName.size();
  for (const ProbeRow* row : rows) {
    hits_width = std::max(hits_width, decimal(row->hits).size());
    name_width = std::max(name_width, place(row->module, row->symbol, row->address).size());
  }
  name_width = std::min(name_width, kMaxNameColumn);

  append_line(out, "");
  if (!rows.empty()) append_row(out, kHits, hits_width, kName, name_width, kSpec);
  for (const ProbeRow* row : rows) {
    append_row(out, decimal(row->hits), hits_width, place(row->module, row->symbol, row->address), name_width,
               row->spec, also(row->aliases));
  }
  if (rows.size() != all) {
    append_line(out, "  " + decimal(all - rows.size()) + " of " + count_of(all, "probe") +
                         " had no hits (UBP_SUMMARY lists all)");
  }
}

}  // namespace

std::string format_text(const Summary& summary) {
  std::string out;
  if (summary.error && summary.totals.probepoints_armed == 0) {
    append_line(out, summary.program + " (pid " + std::to_string(summary.pid) + "), UBP " + summary.version);
    append_line(out, "error      " + summary.error->where + ": " + summary.error->why + "; nothing was probed");
    if (!summary.error->hint.empty()) append_line(out, "  " + summary.error->hint);
    return out;
  }
  append_block(out, summary);
  if (!summary.probes.empty() || summary.unlisted != 0) append_table(out, summary.probes, summary.unlisted);
  return out;
}

}  // namespace ubp::report
