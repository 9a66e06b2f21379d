// Building and changing the probe table. Normal context.
#include "runtime/probes/table.h"

#include <sys/mman.h>

#include <bit>
#include <cstring>
#include <new>

namespace ubp::probes {
namespace {

// Changes a probepoint's first word in one store.
template <typename Change>
void store_word(xol::Displaced& point, const Change& change) {
  xol::Displaced changed = point;
  change(changed);
  std::uint64_t word;
  std::memcpy(&word, &changed, sizeof word);
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(&point), word, __ATOMIC_RELEASE);  // pairs with find()'s reads
}

void* reserve(std::size_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

}  // namespace

Table::Table(std::size_t capacity) : capacity_(capacity), buckets_mask_(std::bit_ceil(capacity + capacity / 3 + 1) - 1) {
  points_ = static_cast<xol::Displaced*>(reserve((capacity + 1) * sizeof(xol::Displaced)));
  buckets_ = static_cast<std::uint32_t*>(reserve((buckets_mask_ + 1) * sizeof(std::uint32_t)));
}

std::size_t Table::bytes() const {
  const std::size_t buckets = (buckets_mask_ + 1) * sizeof(std::uint32_t);
  constexpr std::size_t kPage = 4096;  // few probepoints touch a page of buckets each
  return count_ * sizeof(xol::Displaced) + (count_ < buckets / kPage ? count_ * kPage : buckets);
}

std::uint32_t Table::add(const xol::Displaced& point) {
  std::uint64_t at = TableView::hash(point.address) & buckets_mask_;
  for (; buckets_[at] != 0; at = (at + 1) & buckets_mask_) {
    if (points_[buckets_[at] - 1].address == point.address) return buckets_[at] - 1;
  }
  new (&points_[count_]) xol::Displaced(point);
  __atomic_store_n(&buckets_[at], ++count_, __ATOMIC_RELEASE);  // pairs with find()
  return count_ - 1;
}

void Table::set_consumers(std::uint32_t index, bool has_consumers) {
  store_word(points_[index], [&](xol::Displaced& point) { point.has_consumers = has_consumers; });
}

void Table::mark_hook(std::uint32_t index) {
  store_word(points_[index], [](xol::Displaced& point) { point.is_hook = true; });
}

void Table::retire(std::uint32_t index) {
  store_word(points_[index], [](xol::Displaced& point) { point.address = 0; });
}

void Table::revive(std::uint32_t index, std::uint64_t address) {
  store_word(points_[index], [&](xol::Displaced& point) { point.address = address & xol::kAddressMask; });
}

TableView Table::view() const {
  if (count_ == 0) return {};
  return {points_, buckets_, buckets_mask_, count_};
}

}  // namespace ubp::probes
