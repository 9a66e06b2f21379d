// Time spent, for UBP_LOG=info.
#pragma once

#include <cstdint>
#include <utility>

#include "runtime/base/clock.h"

namespace ubp::runtime {

class Stopwatch {
 public:
  // Nanoseconds since the last lap, or since it was made.
  std::int64_t lap_ns() {
    const std::int64_t before = std::exchange(last_, monotonic_ns());
    return last_ - before;
  }

 private:
  std::int64_t last_ = monotonic_ns();
};

}  // namespace ubp::runtime
