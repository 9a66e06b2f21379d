// Values and maps as JSON. See text.h.
#include <fmt/format.h>

#include "runtime/helpers/helpers.h"
#include "runtime/helpers/read_map.h"
#include "runtime/output/text.h"

namespace ubp::program {
namespace {

// A double holds integers up to 2^53 exactly: readers that have no others get a larger one as a text.
constexpr std::uint64_t kMostExact = std::uint64_t{1} << 53;

template <typename Number>
std::string number_json(Number number, std::uint64_t magnitude) {
  return magnitude <= kMostExact ? fmt::format("{}", number) : fmt::format("\"{}\"", number);
}

// {"min": 4, "max": 7, "count": 1}; the first may have no min, the last no max.
std::string histogram_json(const MapView& view, const std::vector<std::uint64_t>& cells, std::uint64_t divisor) {
  std::size_t first = 0, end = cells.size();
  while (first < end && cells[first] == 0) ++first;
  while (end > first && cells[end - 1] == 0) --end;
  std::string text = "[";
  for (std::size_t bucket = first; bucket < end; ++bucket) {
    if (text.size() > 1) text += ',';
    std::string low, high;
    if (view.aggregate == Aggregate::kHistogram) {
      const std::uint64_t next = bucket == 0 ? 0 : bucket_low(view.power, bucket + 1);
      if (bucket != 0) low = fmt::format("\"min\": {}, ", bucket_low(view.power, bucket));
      high = fmt::format("\"max\": {}, ", static_cast<std::int64_t>(next - 1));
    } else {
      const std::int64_t begin = view.low + static_cast<std::int64_t>(bucket - 1) * view.step;
      const bool is_last = bucket == view.cell_count - 1;
      if (bucket != 0) low = fmt::format("\"min\": {}, ", is_last ? view.high : begin);
      if (!is_last) high = fmt::format("\"max\": {}, ", (bucket == 0 ? view.low : begin + view.step) - 1);
    }
    text += fmt::format("{{{}{}\"count\": {}}}", low, high, cells[bucket] / divisor);
  }
  return text + ']';
}

std::string value_json(const Map& map, const MapView& view, const std::vector<std::uint64_t>& value,
                       std::uint64_t divisor) {
  if (view.aggregate == Aggregate::kSeries) return series_json(view, value);
  if (is_histogram(view)) return histogram_json(view, value, divisor);
  const Type number = integer(64, map.value.is_signed);
  const auto part = [&](std::uint64_t all) {
    const std::uint64_t its = divided(map, all, divisor);
    return json_of(number, &its);
  };
  if (view.aggregate == Aggregate::kStats)
    return fmt::format("{{\"count\": {}, \"average\": {}, \"total\": {}}}", value[0],
                       part(number_of(view, value.data())), part(value[1]));
  if (view.aggregate != Aggregate::kNone) return part(number_of(view, value.data()));
  if (map.value.is(TypeKind::kInteger) && divisor != 1) return part(value[0]);
  return json_of(map.value, value.data());
}

// Blanks stand between a tuple's elements in text, and nowhere in a key.
std::string key_json(const Map& map, const Row& row) {
  std::string text;
  if (!map.key.is(TypeKind::kTuple) || !map.key.fields.empty()) return key_text(map, row);
  const std::uint64_t* words = row.key.data();
  for (const Type& element : map.key.elements) {
    if (words != row.key.data()) text += ',';
    std::string its = text_of(element, words);
    if (element.is(TypeKind::kTuple)) std::erase(its, ' ');
    text += its;
    words += element.words();
  }
  return text;
}

}  // namespace

std::string json_quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    switch (c) {
      case '"': quoted += "\\\""; break;
      case '\\': quoted += "\\\\"; break;
      case '\n': quoted += "\\n"; break;
      case '\r': quoted += "\\r"; break;
      case '\t': quoted += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < ' ') {
          quoted += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          quoted += c;
        }
    }
  }
  return quoted + '"';
}

std::string json_line(std::string_view type, std::string_view data) {
  return fmt::format("{{\"type\": \"{}\", \"data\": {}}}\n", type, data);
}

std::string json_of(const Type& type, const std::uint64_t* words) {
  switch (type.kind) {
    case TypeKind::kString:
    case TypeKind::kTimestamp:
    case TypeKind::kInet:
    case TypeKind::kMac:
    case TypeKind::kStack:
    case TypeKind::kSymbol:
    case TypeKind::kUsername: return json_quoted(text_of(type, words));
    case TypeKind::kInteger: {
      const auto number = static_cast<std::int64_t>(*words);
      if (!type.is_signed) return number_json(*words, *words);
      return number_json(number, number < 0 ? 0 - *words : *words);
    }
    case TypeKind::kBuffer: {
      const auto* const bytes = reinterpret_cast<const unsigned char*>(words + 1);
      return fmt::format("[{}]", fmt::join(bytes, bytes + words[0], ","));
    }
    case TypeKind::kPointer: return number_json(*words, *words);
    case TypeKind::kArray:
    case TypeKind::kStruct: return c_text(type, reinterpret_cast<const std::uint8_t*>(words), Format::kJson);
    case TypeKind::kTuple: {
      const bool has_names = !type.fields.empty();
      std::string text = has_names ? "{" : "[";
      for (std::size_t i = 0; i < type.elements.size(); ++i) {
        if (text.size() > 1) text += has_names ? ", " : ",";
        if (has_names) text += json_quoted(type.fields[i]) + ": ";
        text += json_of(type.elements[i], words);
        words += type.elements[i].words();
      }
      return text + (has_names ? '}' : ']');
    }
    default: return text_of(type, words);
  }
}

std::string map_json(const Map& map, const MapView& view, const std::vector<Row>& rows, std::uint64_t divisor) {
  const bool is_stats = view.aggregate == Aggregate::kStats || view.aggregate == Aggregate::kAverage;
  std::string data;
  if (!map.has_keys) {
    data = value_json(map, view, rows.front().value, divisor);
  } else {
    for (const Row& row : rows) {
      if (!data.empty()) data += ", ";
      data += fmt::format("{}: {}", json_quoted(key_json(map, row)), value_json(map, view, row.value, divisor));
    }
    data = '{' + data + '}';
  }
  return json_line(is_histogram(view)                     ? "hist"
                   : is_stats                             ? "stats"
                   : view.aggregate == Aggregate::kSeries ? "tseries"
                                                          : "map",
                   fmt::format("{{{}: {}}}", json_quoted(map.name), data));
}

}  // namespace ubp::program
