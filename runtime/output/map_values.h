// What stands in a map, as the C interface hands it out.
//
// Context: readers. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/helpers/memory.h"
#include "runtime/include/ubp.h"

namespace ubp::program {

// A key and its value. Not to be copied: the values point into it.
struct MapValues {
  std::vector<ubp_value> keys, values;
  std::vector<ubp_bucket> buckets;
  std::uint64_t count = 0;
  std::int64_t total = 0;
  std::deque<std::string> texts;

  MapValues() = default;
  MapValues(const MapValues&) = delete;
  MapValues& operator=(const MapValues&) = delete;
  ubp_map_entry entry(Aggregate aggregate) const;
};

// All of a map, in the order in which it is printed. Not of a tseries(). entries: empty.
void read_values(const Map& map, const MapView& view, std::deque<MapValues>& entries);

}  // namespace ubp::program
