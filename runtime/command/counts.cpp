// See counts.h.
#include "runtime/command/counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

namespace ubp::command {
namespace {

using program::SessionCount;

// The attach point as it was typed, as far as its first line goes.
std::string text_at(const Compiled& compiled, const SessionCount& count) {
  std::string_view rest = compiled.text;
  for (std::uint32_t line = 1; line < count.line && !rest.empty(); ++line)
    rest.remove_prefix(std::min(rest.find('\n'), rest.size() - 1) + 1);
  std::string_view line = rest.substr(0, rest.find('\n'));
  const std::size_t begin = std::min<std::size_t>(count.column - 1, line.size());
  std::size_t end = line.size();
  for (const language::Item& item : compiled.items) {
    const language::Span span = item_span(item);
    const bool is_it =
        span.begin.line == static_cast<int>(count.line) && span.begin.column == static_cast<int>(count.column);
    if (is_it && span.end.line == span.begin.line) end = static_cast<std::size_t>(span.end.column - 1);
  }
  return std::string(line.substr(begin, std::min(end, line.size()) - begin));
}

std::uint64_t hits(const SessionCount& count) { return count.recorded + count.filtered + count.missed + count.dropped; }

void print(const std::string& line) { std::fputs((line + '\n').c_str(), stderr); }

}  // namespace

void say_counts(const Compiled& compiled, const program::Session& session, bool is_all) {
  const std::vector<SessionCount> counts = session.counts();
  std::uint32_t process = 0;  // whose lines these are
  for (const SessionCount& count : counts) {
    if (count.is_reported || !count.is_bare || is_all) continue;
    if (count.process != process)
      print(fmt::format("ubp: process {} has made no report; its probes have counted:", count.process));
    process = count.process;
    print(fmt::format("ubp: {:>8} {}{}", hits(count), text_at(compiled, count),
                      count.missed != 0 ? fmt::format(", {} of them missed", count.missed) : ""));
  }
  for (const SessionCount& count : counts) {
    if (!is_all) break;
    print(fmt::format("ubp: process {}: {} hit{}, {} recorded, {} filtered, {} missed, {} dropped: {}", count.process,
                      hits(count), hits(count) == 1 ? "" : "s", count.recorded, count.filtered, count.missed,
                      count.dropped, text_at(compiled, count)));
  }
}

}  // namespace ubp::command
