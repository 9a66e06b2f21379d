// Building the probe table. Load time only.
#include "runtime/probes/table.h"

#include <bit>

namespace ubp::probes {

Table::Table(std::vector<xol::Displaced> points) : points_(std::move(points)) {
  if (points_.empty()) return;
  buckets_.resize(std::bit_ceil(points_.size() + points_.size() / 3 + 1));
  const std::uint64_t mask = buckets_.size() - 1;
  for (std::uint32_t index = 0; index < points_.size(); ++index) {
    std::uint64_t at = TableView::hash(points_[index].address) & mask;
    while (buckets_[at] != 0) at = (at + 1) & mask;
    buckets_[at] = index + 1;
  }
}

TableView Table::view() const {
  if (points_.empty()) return {};
  return {points_.data(), buckets_.data(), buckets_.size() - 1, static_cast<std::uint32_t>(points_.size())};
}

}  // namespace ubp::probes
