// tseries() as text, a chart, and as JSON. See text.h.
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <limits>

#include "runtime/helpers/series.h"
#include "runtime/output/text.h"

namespace ubp::program {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

struct Point {
  std::uint64_t interval;
  std::int64_t value;
};

// What is there, by time.
std::vector<Point> points_of(const MapView& view, const std::vector<std::uint64_t>& cells) {
  std::vector<Point> points;
  const std::uint64_t words = series_pairs(series_of(view)) * kPairWords;
  for (std::size_t at = 0; at + words <= cells.size(); at += words) {
    if (cells[at] == 0) continue;
    auto value = static_cast<std::int64_t>(cells[at + 1]);
    if (series_of(view) == Series::kAverage) {
      const std::uint64_t count = std::max<std::uint64_t>(cells[at + kPairWords + 1], 1);
      value =
          view.is_signed ? value / static_cast<std::int64_t>(count) : static_cast<std::int64_t>(cells[at + 1] / count);
    }
    points.push_back({interval_of_stamp(view, cells[at]), value});
  }
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.interval < b.interval; });
  return points;
}

std::string number_text(const MapView& view, std::int64_t value) {
  return view.is_signed ? fmt::format("{}", value) : fmt::format("{}", static_cast<std::uint64_t>(value));
}

std::string clock_text(std::uint64_t ns) {
  const auto seconds = static_cast<std::time_t>(ns / kSecond);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  return fmt::format("{:02}:{:02}:{:02}.{:03}", parts.tm_hour, parts.tm_min, parts.tm_sec, ns % kSecond / 1'000'000);
}

}  // namespace

std::uint64_t newest_interval(const MapView& view, const std::vector<std::uint64_t>& cells) {
  const std::vector<Point> points = points_of(view, cells);
  return points.empty() ? 0 : points.back().interval;
}

// A line for each interval from the first that has a value to the newest of the map.
std::string series_text(const MapView& view, const std::vector<std::uint64_t>& cells, std::uint64_t newest) {
  constexpr int kColumns = 53, kIndent = 13;
  const std::vector<Point> points = points_of(view, cells);
  if (points.empty()) return "";
  const auto [least, most] = std::minmax_element(points.begin(), points.end(),
                                                 [](const Point& a, const Point& b) { return a.value < b.value; });
  std::int64_t low = least->value, high = most->value;
  if (low == high) {
    if (high != std::numeric_limits<std::int64_t>::max()) ++high;
    if (low != 0 && low != std::numeric_limits<std::int64_t>::min()) --low;
  }
  const auto column = [&](std::int64_t value) {
    // Differences that a signed number does not hold, with room for the product.
    const std::uint64_t whole = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low),
                        part = static_cast<std::uint64_t>(value) - static_cast<std::uint64_t>(low);
    const int shift = whole >> 57 != 0 ? 7 : 0;
    return static_cast<std::size_t>((part >> shift) * (kColumns - 1) / (whole >> shift));
  };
  const std::string ends =
      fmt::format("{0:{1}}{2}{3:>{4}}\n", "", kIndent, number_text(view, low), number_text(view, high),
                  kColumns - static_cast<int>(number_text(view, low).size()));
  const std::string border(kColumns - 2, '_');
  std::string text = fmt::format("{}hh:mm:ss.ms  |{}|\n", ends, border);
  const std::uint64_t length = series_length(view);
  const std::uint64_t first = std::max(points.front().interval, newest >= length ? newest - length + 1 : 0);
  auto point = std::find_if(points.begin(), points.end(), [&](const Point& its) { return its.interval >= first; });
  for (std::uint64_t interval = first; interval <= newest; ++interval) {
    std::string row(kColumns, ' ');
    row.front() = row.back() = '|';
    if (low < 0 && high > 0) row[column(0)] = '.';
    std::string value = "-";
    if (point != points.end() && point->interval == interval) {
      row[column(point->value)] = '*';
      value = number_text(view, point->value);
      ++point;
    }
    text += fmt::format("{} {} {}\n", clock_text(interval * interval_of(view)), row, value);
  }
  return text + fmt::format("{:{}}v{}v\n{}", "", kIndent, border, ends);
}

std::string series_json(const MapView& view, const std::vector<std::uint64_t>& cells) {
  std::string text = "[";
  for (const Point& point : points_of(view, cells)) {
    const std::uint64_t begin = point.interval * interval_of(view);
    const auto seconds = static_cast<std::time_t>(begin / kSecond);
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    if (text.size() > 1) text += ',';
    text += fmt::format(R"({{"interval_start": "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09}", "value": {}}})",
                        parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
                        parts.tm_sec, begin % kSecond, number_text(view, point.value));
  }
  return text + ']';
}

}  // namespace ubp::program
