// Maps as text. See text.h.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "runtime/helpers/helpers.h"
#include "runtime/helpers/read_map.h"
#include "runtime/output/text.h"

namespace ubp::program {

bool is_histogram(const MapView& view) {
  return view.aggregate == Aggregate::kHistogram || view.aggregate == Aggregate::kLinear;
}

std::uint64_t divided(const Map& map, std::uint64_t number, std::uint64_t divisor) {
  if (!map.value.is_signed) return number / divisor;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(number) / static_cast<std::int64_t>(divisor));
}

std::string key_text(const Map& map, const Row& row) {
  std::string text = text_of(map.key, row.key.data());
  return map.key.is(TypeKind::kTuple) && map.key.fields.empty() ? text.substr(1, text.size() - 2) : text;
}

namespace {

// 1024 is 1K. Only of powers of 1024 and their multiples.
std::string scaled(std::int64_t value) {
  constexpr std::string_view kUnits = "KMGTPE";
  std::size_t unit = 0;
  while (unit < kUnits.size() && value != 0 && value % 1024 == 0) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{}", value) : fmt::format("{}{}", value, kUnits[unit - 1]);
}

std::string log_label(const MapView& view, std::size_t bucket) {
  if (bucket == 0) return "(..., 0)";
  const std::uint64_t low = bucket_low(view.power, bucket), next = bucket_low(view.power, bucket + 1);
  const bool is_exact = bucket <= std::size_t{2} << view.power && low < std::uint64_t{2} << view.power;
  const bool is_single = view.power == 0 ? low <= 1 : is_exact;
  if (is_single) return fmt::format("[{}]", low);
  const std::string end = next == 0 ? "16E" : scaled(static_cast<std::int64_t>(next));
  return fmt::format("[{}, {})", low >> 63 != 0 ? "8E" : scaled(static_cast<std::int64_t>(low)), end);
}

std::string linear_label(const MapView& view, std::size_t bucket) {
  const auto number = [&](std::int64_t value) {
    return view.step % 1024 == 0 ? scaled(value) : fmt::format("{}", value);
  };
  if (bucket == 0) return fmt::format("(..., {})", number(view.low));
  if (bucket == view.cell_count - 1) return fmt::format("[{}, ...)", number(view.high));
  const std::int64_t low = view.low + static_cast<std::int64_t>(bucket - 1) * view.step;
  if (view.step == 1) return fmt::format("[{}]", number(low));
  return fmt::format("[{}, {})", number(low), number(low + view.step));
}

// A line for each bucket from the first to the last that has a count.
std::string histogram_text(const MapView& view, const std::vector<std::uint64_t>& cells, std::uint64_t divisor) {
  constexpr std::uint64_t kBar = 52;
  const auto has_count = [](std::uint64_t cell) { return cell != 0; };
  const auto first = std::find_if(cells.begin(), cells.end(), has_count);
  const auto last = std::find_if(cells.rbegin(), cells.rend(), has_count).base();
  if (first == cells.end()) return "";
  const std::uint64_t largest = *std::max_element(first, last);
  std::string text;
  for (auto cell = first; cell != last; ++cell) {
    const auto bucket = static_cast<std::size_t>(cell - cells.begin());
    const std::string label =
        view.aggregate == Aggregate::kHistogram ? log_label(view, bucket) : linear_label(view, bucket);
    const std::string bar(static_cast<std::size_t>(*cell * kBar / largest), '@');
    text += fmt::format("{:<16}{:>8} |{:<52}|\n", label, *cell / divisor, bar);
  }
  return text;
}

std::string value_text(const Map& map, const MapView& view, const std::vector<std::uint64_t>& value,
                       std::uint64_t divisor) {
  const Type number = integer(64, map.value.is_signed);
  const auto part = [&](std::uint64_t all) {
    const std::uint64_t its = divided(map, all, divisor);
    return text_of(number, &its);
  };
  if (view.aggregate == Aggregate::kStats) {
    return fmt::format("{{ .count = {}, .average = {}, .total = {} }}", value[0], part(number_of(view, value.data())),
                       part(value[1]));
  }
  if (view.aggregate != Aggregate::kNone) return part(number_of(view, value.data()));
  if (map.value.is(TypeKind::kInteger) && divisor != 1) return part(value[0]);
  return text_of(map.value, value.data());
}

// The order of keys: numbers by value, texts by their bytes, tuples by their elements.
int compare(const Type& type, const std::uint64_t* left, const std::uint64_t* right) {
  const auto order = [](const auto& a, const auto& b) { return a < b ? -1 : b < a ? 1 : 0; };
  if (type.is(TypeKind::kString)) return order(text_of(type, left), text_of(type, right));
  if (type.is(TypeKind::kTuple)) {
    for (const Type& element : type.elements) {
      if (const int first = compare(element, left, right); first != 0) return first;
      left += element.words();
      right += element.words();
    }
    return 0;
  }
  return type.is_signed ? order(static_cast<std::int64_t>(*left), static_cast<std::int64_t>(*right))
                        : order(*left, *right);
}

}  // namespace

void sort_rows(const Map& map, const MapView& view, std::vector<Row>& rows) {
  const auto weight = [&](const Row& row) -> std::uint64_t {
    if (view.aggregate == Aggregate::kSeries) return newest_interval(view, row.value);
    if (is_histogram(view)) return std::accumulate(row.value.begin(), row.value.end(), std::uint64_t{0});
    return view.aggregate != Aggregate::kNone ? number_of(view, row.value.data()) : row.value[0];
  };
  std::stable_sort(rows.begin(), rows.end(),
                   [&](const Row& a, const Row& b) { return compare(map.key, a.key.data(), b.key.data()) < 0; });
  if (map.value.is_wide()) return;
  const bool is_signed = !is_histogram(view) && view.aggregate != Aggregate::kSeries && map.value.is_signed &&
                         view.aggregate != Aggregate::kCount;
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& a, const Row& b) {
    const std::uint64_t left = weight(a), right = weight(b);
    return is_signed ? static_cast<std::int64_t>(left) < static_cast<std::int64_t>(right) : left < right;
  });
}

std::string map_text(const Map& map, const MapView& view, std::vector<Row> rows, const MapPrint& print, Format format) {
  if (map.has_keys) sort_rows(map, view, rows);
  if (print.top != 0 && print.top < rows.size()) {
    rows.erase(rows.begin(), rows.end() - static_cast<std::ptrdiff_t>(print.top));
  } else if (rows.empty() && print.is_asked && !map.has_keys) {
    rows.push_back({{}, std::vector<std::uint64_t>(std::max(view.cell_count, view.value_words))});
  }
  const std::uint64_t divisor = std::max<std::uint64_t>(print.divisor, 1);
  if (format == Format::kJson) return rows.empty() ? "" : map_json(map, view, rows, divisor);
  std::string text;
  std::uint64_t newest = 0;  // of a tseries()
  if (view.aggregate == Aggregate::kSeries) {
    for (const Row& row : rows) newest = std::max(newest, newest_interval(view, row.value));
  }
  for (const Row& row : rows) {
    const std::string key = map.has_keys ? '[' + key_text(map, row) + ']' : "";
    if (is_histogram(view)) {
      text += fmt::format("{}{}:\n{}\n", map.name, key, histogram_text(view, row.value, divisor));
    } else if (view.aggregate == Aggregate::kSeries) {
      text += fmt::format("{}{}:\n{}\n", map.name, key, series_text(view, row.value, newest));
    } else {
      text += fmt::format("{}{}: {}\n", map.name, key, value_text(map, view, row.value, divisor));
    }
  }
  return text;
}

std::vector<Row> read_rows(const MapView& view) {
  std::vector<Row> rows;
  for_each_key(view, [&](const Found& found) {
    Row row;
    const std::uint64_t* const key = key_of(node_of(view, found.index));
    row.key.assign(key, key + view.key_words);
    row.value.resize(view.aggregate != Aggregate::kNone ? view.cell_count : view.value_words);
    if (read_value(view, found, row.value.data())) rows.push_back(std::move(row));
  });
  return rows;
}

}  // namespace ubp::program
