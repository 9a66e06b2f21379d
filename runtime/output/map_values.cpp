// See map_values.h.
#include "runtime/output/map_values.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "runtime/helpers/read_map.h"
#include "runtime/output/text.h"

namespace ubp::program {
namespace {

constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min(),
                       kHighest = std::numeric_limits<std::int64_t>::max();

void add_number(std::vector<ubp_value>& to, std::uint64_t number, bool is_signed) {
  to.push_back({static_cast<std::uint32_t>(is_signed ? UBP_VALUE_SIGNED : UBP_VALUE_UNSIGNED), 0,
                static_cast<std::int64_t>(number), "", 0});
}

void add_text(MapValues& entry, std::vector<ubp_value>& to, ubp_value_kind kind, std::string text) {
  const std::string& kept = entry.texts.emplace_back(std::move(text));
  to.push_back({static_cast<std::uint32_t>(kind), 0, 0, kept.c_str(), kept.size()});
}

// One value, or those of a tuple one behind the other.
void add(MapValues& entry, std::vector<ubp_value>& to, const Type& type, const std::uint64_t* words) {
  const auto bytes_of = [](const std::uint64_t* from, std::size_t bytes) {
    return std::string(reinterpret_cast<const char*>(from), bytes);
  };
  switch (type.kind) {
    case TypeKind::kNone: return;
    case TypeKind::kTuple:
      for (const Type& element : type.elements) {
        add(entry, to, element, words);
        words += element.words();
      }
      return;
    case TypeKind::kBool:
    case TypeKind::kPointer: return add_number(to, *words, false);
    case TypeKind::kInteger: return add_number(to, *words, type.is_signed);
    case TypeKind::kArray:
    case TypeKind::kStruct: return add_text(entry, to, UBP_VALUE_BYTES, bytes_of(words, type.bytes));
    case TypeKind::kBuffer:
      return add_text(entry, to, UBP_VALUE_BYTES, bytes_of(words + 1, std::min<std::uint64_t>(*words, type.bytes)));
    default: return add_text(entry, to, UBP_VALUE_TEXT, text_of(type, words));
  }
}

std::int64_t clamped(std::uint64_t value) {
  return static_cast<std::int64_t>(std::min<std::uint64_t>(value, static_cast<std::uint64_t>(kHighest)));
}

// Which values a bucket holds, from the first to the last.
std::pair<std::int64_t, std::int64_t> range_of(const MapView& view, std::uint64_t bucket) {
  if (view.aggregate == Aggregate::kHistogram) {
    if (bucket == 0) return {kLowest, -1};
    return {clamped(bucket_low(view.power, bucket)), clamped(bucket_low(view.power, bucket + 1) - 1)};
  }
  if (bucket == 0) return {kLowest, view.low - 1};
  if (bucket == view.cell_count - 1) return {view.high, kHighest};
  const std::int64_t first = view.low + static_cast<std::int64_t>(bucket - 1) * view.step;
  return {first, std::min(first + view.step, view.high) - 1};
}

void add_aggregate(MapValues& entry, const Map& map, const MapView& view, const std::vector<std::uint64_t>& cells) {
  const bool is_signed = map.value.is_signed && view.aggregate != Aggregate::kCount;
  switch (view.aggregate) {
    case Aggregate::kMinimum:
    case Aggregate::kMaximum: entry.count = cells[1]; break;
    case Aggregate::kAverage:
    case Aggregate::kStats:
      entry.count = cells[0];
      entry.total = static_cast<std::int64_t>(cells[1]);
      break;
    case Aggregate::kHistogram:
    case Aggregate::kLinear:
      entry.count = std::accumulate(cells.begin(), cells.end(), std::uint64_t{0});
      for (std::size_t i = 0; i < cells.size(); ++i) {
        const auto [first, last] = range_of(view, i);
        if (cells[i] != 0) entry.buckets.push_back({first, last, cells[i]});
      }
      return add_number(entry.values, entry.count, false);
    default: break;
  }
  add_number(entry.values, number_of(view, cells.data()), is_signed);
}

}  // namespace

ubp_map_entry MapValues::entry(Aggregate aggregate) const {
  return {sizeof(ubp_map_entry),
          static_cast<std::uint32_t>(aggregate),
          0,
          keys.data(),
          keys.size(),
          values.data(),
          values.size(),
          count,
          total,
          buckets.data(),
          buckets.size()};
}

void read_values(const Map& map, const MapView& view, std::deque<MapValues>& entries) {
  std::vector<Row> rows = read_rows(view);
  if (map.has_keys) sort_rows(map, view, rows);
  for (const Row& row : rows) {
    MapValues& entry = entries.emplace_back();
    add(entry, entry.keys, map.key, row.key.data());
    if (view.aggregate != Aggregate::kNone) {
      add_aggregate(entry, map, view, row.value);
    } else {
      add(entry, entry.values, map.value, row.value.data());
    }
  }
}

static_assert(UBP_AGGREGATE_COUNT == static_cast<int>(Aggregate::kCount) &&
              UBP_AGGREGATE_LHIST == static_cast<int>(Aggregate::kLinear));

}  // namespace ubp::program
