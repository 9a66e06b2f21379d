// What is known of the probepoint that a run is for.
//
// Inline and free of libc. Context: hits. Async-signal-safe: yes.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

// The names of the probepoint that was hit; null: it has none.
inline const PointName* name_of(const Run* run) {
  const auto* const names = __atomic_load_n(&run->machine->names, __ATOMIC_ACQUIRE);  // pairs with their publication
  if (names == nullptr || run->context->consumer == nullptr) return nullptr;
  const auto key_of = [](std::uint32_t point, std::uint32_t action) { return std::uint64_t{point} << 32 | action; };
  const runtime::Consumer& consumer = *run->context->consumer;
  const std::uint64_t wanted = key_of(consumer.point, runtime::counter_of(consumer));
  const auto key_at = [&](std::uint64_t index) {
    return key_of(names->names[index].point, names->names[index].action);
  };
  std::uint64_t low = 0, high = names->count;
  while (low < high) {
    const std::uint64_t middle = (low + high) / 2;
    if (key_at(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < names->count && key_at(low) == wanted ? &names->names[low] : nullptr;
}

}  // namespace ubp::program
