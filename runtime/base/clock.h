// The clock that all of libubp measures by. Async-signal-safe: yes.
#pragma once

#include <cstdint>
#include <ctime>

namespace ubp::runtime {

// Nanoseconds of CLOCK_MONOTONIC: since some moment before the process began, never set back.
inline std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The same in milliseconds.
inline std::int64_t monotonic_ms() { return monotonic_ns() / 1'000'000; }

}  // namespace ubp::runtime
