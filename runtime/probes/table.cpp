// Building and changing the probe table. Normal context.
#include "runtime/probes/table.h"

#include <bit>
#include <cstring>

namespace ubp::probes {
namespace {

// Changes a probepoint's address in one store.
void store_address(xol::Displaced& point, std::uint64_t address) {
  xol::Displaced changed = point;
  changed.address = address & xol::kAddressMask;
  std::uint64_t word;
  std::memcpy(&word, &changed, sizeof word);
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(&point), word, __ATOMIC_RELEASE);  // pairs with find()'s reads
}

}  // namespace

Table::Table(std::vector<xol::Displaced> points, std::size_t spare)
    : capacity_(points.size() + spare), points_(std::move(points)) {
  if (capacity_ == 0) return;
  points_.reserve(capacity_);
  buckets_.resize(std::bit_ceil(capacity_ + capacity_ / 3 + 1));
  for (std::uint32_t index = 0; index < points_.size(); ++index) insert(index);
}

void Table::insert(std::uint32_t index) {
  const std::uint64_t mask = buckets_.size() - 1;
  std::uint64_t at = TableView::hash(points_[index].address) & mask;
  while (buckets_[at] != 0) at = (at + 1) & mask;
  __atomic_store_n(&buckets_[at], index + 1, __ATOMIC_RELEASE);  // pairs with find()
}

void Table::add(const std::vector<xol::Displaced>& points) {
  for (const xol::Displaced& point : points) {
    points_.push_back(point);
    insert(static_cast<std::uint32_t>(points_.size() - 1));
  }
}

void Table::retire(std::uint32_t index) { store_address(points_[index], 0); }

void Table::revive(std::uint32_t index, std::uint64_t address) { store_address(points_[index], address); }

TableView Table::view() const {
  if (points_.empty()) return {};
  return {points_.data(), buckets_.data(), buckets_.size() - 1, static_cast<std::uint32_t>(points_.size())};
}

}  // namespace ubp::probes
