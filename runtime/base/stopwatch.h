// Time spent, for UBP_LOG=info.
#pragma once

#include <chrono>
#include <cstdint>

namespace ubp::runtime {

class Stopwatch {
 public:
  // Nanoseconds since the last lap, or since it was made.
  std::int64_t lap_ns() {
    const auto now = std::chrono::steady_clock::now();
    const auto lap = now - last_;
    last_ = now;
    return std::chrono::duration_cast<std::chrono::nanoseconds>(lap).count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace ubp::runtime
