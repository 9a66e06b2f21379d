// Building and changing the probe table. Normal context.
#include "runtime/table/table.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "xol/assert.h"

namespace ubp::runtime {
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

Table::Table(std::size_t capacity) : capacity_(std::min<std::size_t>(capacity, Bucket::kMostPoints)) {
  points_ = static_cast<xol::Displaced*>(reserve((capacity + 1) * sizeof(xol::Displaced)));
  present_ = static_cast<const Buckets**>(reserve(sizeof *present_));
  make_room(0);
}

std::size_t Table::bytes() const { return count_ * sizeof(xol::Displaced) + bucket_bytes_; }

void Table::make_room(std::size_t more) {
  constexpr std::uint64_t kFewest = 1024;
  const std::uint64_t wanted =
      std::bit_ceil(std::max<std::uint64_t>((count_ + more) * 5 / 3 + 1, kFewest));  // 30 to 60 % are taken
  if (buckets_ != nullptr && wanted <= buckets_->mask + 1) return;
  const std::size_t bytes = sizeof(Buckets) + wanted * sizeof(std::uint32_t);
  auto* const made = static_cast<Buckets*>(reserve(bytes));
  made->mask = wanted - 1;
  for (std::uint32_t index = 0; index < count_; ++index) {
    const auto gone = retired_.find(index);
    const Bucket::Hash hash = Bucket::hash(gone != retired_.end() ? gone->second : points_[index].address);
    std::uint64_t at = hash.place & made->mask;
    while (made->buckets[at] != 0) at = (at + 1) & made->mask;
    made->buckets[at] = Bucket::make(hash.tag, index);
  }
  bucket_bytes_ += bytes;
  buckets_ = made;
  __atomic_store_n(present_, made, __ATOMIC_RELEASE);  // pairs with find()
}

std::uint32_t Table::add(const xol::Displaced& point) {
  make_room(1);
  std::uint32_t* const buckets = buckets_->buckets;
  const Bucket::Hash hash = Bucket::hash(point.address);
  std::uint64_t at = hash.place & buckets_->mask;
  for (; buckets[at] != 0; at = (at + 1) & buckets_->mask) {
    const std::uint32_t index = Bucket::index(buckets[at]);
    if (Bucket::may_be(buckets[at], hash.tag) && points_[index].address == point.address) return index;
  }
  UBP_ASSERT(count_ < capacity_);
  new (&points_[count_]) xol::Displaced(point);
  __atomic_store_n(&buckets[at], Bucket::make(hash.tag, count_), __ATOMIC_RELEASE);  // pairs with find()
  return count_++;
}

void Table::set_consumers(std::uint32_t index, bool has_consumers) {
  UBP_ASSERT(index < count_);
  store_word(points_[index], [&](xol::Displaced& point) { point.has_consumers = has_consumers; });
}

void Table::mark_hook(std::uint32_t index) {
  store_word(points_[index], [](xol::Displaced& point) { point.is_hook = true; });
}

std::uint64_t Table::last_address(std::uint32_t index) const {
  const auto gone = retired_.find(index);
  return gone != retired_.end() ? gone->second : std::uint64_t{points_[index].address};
}

void Table::retire(std::uint32_t index) {
  UBP_ASSERT(index < count_);
  retired_[index] = points_[index].address;
  store_word(points_[index], [](xol::Displaced& point) { point.address = 0; });
}

void Table::revive(std::uint32_t index, std::uint64_t address) {
  UBP_ASSERT(index < count_ && points_[index].address == 0);
  retired_.erase(index);
  store_word(points_[index], [&](xol::Displaced& point) { point.address = address & xol::kAddressMask; });
}

TableView Table::view() const {
  if (count_ == 0) return {};
  return {points_, present_, count_};
}

}  // namespace ubp::runtime
