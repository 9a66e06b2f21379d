// The timestamp counter and the clock at one moment. Async-signal-safe: yes.
#pragma once

#include <x86gprintrin.h>

#include <cstdint>

#include "runtime/base/clock.h"

namespace ubp::runtime {

struct Moment {
  std::uint64_t ticks, ns;  // ns: monotonic_ns()
};

inline Moment this_moment() {
  Moment best{};
  std::uint64_t shortest = ~std::uint64_t{0};
  for (int turn = 0; turn < 5; ++turn) {  // the one that was least disturbed
    const std::uint64_t before = __rdtsc();
    const std::int64_t ns = monotonic_ns();
    const std::uint64_t took = __rdtsc() - before;
    if (took >= shortest) continue;
    shortest = took;
    best = {before + took / 2, static_cast<std::uint64_t>(ns)};
  }
  return best;
}

}  // namespace ubp::runtime
