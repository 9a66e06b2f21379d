// What every fuzz target shares: a check that ends the process and names the reason, and numbers drawn from an input.
//
// A target is `extern "C" int LLVMFuzzerTestOneInput(bytes, size)` in a file of its own. libFuzzer drives it
// (tests/fuzz/run), or driver.cpp does (the tests). A target keeps no state: one input alone repeats a failure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size);

// Ends the process when `condition` does not hold. The rest: a printf format and its arguments.
#define FUZZ_CHECK(condition, ...)                                                          \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      std::fprintf(stderr, "\n%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, " " __VA_ARGS__);                                                \
      std::fputc('\n', stderr);                                                             \
      std::abort();                                                                         \
    }                                                                                       \
  } while (false)

namespace ubp::fuzz {

// Numbers that follow from a seed (splitmix64).
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed) {}
  // Seeded by the bytes themselves (FNV-1a), so that an input is nothing but what it is an input of.
  Numbers(const std::uint8_t* bytes, std::size_t size) : state_(0xcbf29ce484222325) {
    for (std::size_t i = 0; i < size; ++i) state_ = (state_ ^ bytes[i]) * 0x100000001b3;
  }

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }  // limit: not 0
  // Often an end of [low, high], otherwise anything between.
  std::uint64_t between(std::uint64_t low, std::uint64_t high) {
    switch (below(4)) {
      case 0: return low;
      case 1: return high;
      default: return low + below(high - low + 1);
    }
  }

 private:
  std::uint64_t state_;
};

}  // namespace ubp::fuzz
