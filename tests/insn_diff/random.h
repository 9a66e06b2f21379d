// A small deterministic generator: the same on every machine, seeded by (seed, index, state).
#pragma once

#include <cstdint>

namespace ubp::insn_diff {

inline std::uint64_t mix(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
  value = (value ^ value >> 27) * 0x94d049bb133111eb;
  return value ^ value >> 31;
}

// xoroshiro128+
class Random {
 public:
  explicit Random(std::uint64_t seed) : a_(mix(seed)), b_(mix(a_)) {}
  std::uint64_t next() {
    const std::uint64_t result = a_ + b_;
    const std::uint64_t c = b_ ^ a_;
    a_ = (a_ << 24 | a_ >> 40) ^ c ^ c << 16;
    b_ = c << 37 | c >> 27;
    return result;
  }
  std::uint64_t below(std::uint64_t bound) { return (next() >> 11) % bound; }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low) + 1));
  }
  bool chance(std::uint64_t in) { return below(in) == 0; }

 private:
  std::uint64_t a_, b_;
};

}  // namespace ubp::insn_diff
