// Which probepoints a registration has: a plan numbers its own from 0 on, in the table they lie where there was room.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ubp::runtime {

// Plan points [first_point, first_point + count) are the table's [first_index, ...).
struct Run {
  std::uint32_t first_point, first_index, count;
};
using Runs = std::vector<Run>;

// The table's index of a plan's point.
inline std::uint32_t index_of(const Runs& runs, std::uint32_t point) {
  auto run = std::upper_bound(runs.begin(), runs.end(), point,
                              [](std::uint32_t p, const Run& r) { return p < r.first_point; });
  --run;
  return run->first_index + (point - run->first_point);
}

template <typename Visit>
void for_each_index(const Runs& runs, const Visit& visit) {
  for (const Run& run : runs) {
    for (std::uint32_t i = 0; i < run.count; ++i) visit(run.first_index + i);
  }
}

}  // namespace ubp::runtime
