// Where a value is when a probepoint is hit: in a register, in memory that registers lead to, or nowhere, since it is
// always the same.
//
// Plain data: made at load time, read at hits.
#pragma once

#include <cstdint>

namespace ubp::symbols {

inline constexpr std::int8_t kNoRegister = -1;
// ValuePlace::base: the address counts from where the module lies.
inline constexpr std::int8_t kModuleBase = -2;

struct ValuePlace {
  enum class Kind : std::uint8_t { kRegister, kMemory, kConstant };
  Kind kind = Kind::kConstant;
  std::uint8_t bytes = 8;  // 1, 2, 4 or 8
  bool is_signed = false;  // extended to 64 bits by its sign; else by zeros
  std::uint8_t shift = 0;  // kRegister: bits below the value (%ah)
  // By the hardware's numbers. kRegister: base. kMemory: base + index * scale + offset.
  std::int8_t base = kNoRegister, index = kNoRegister;
  std::uint8_t scale = 1;
  std::int64_t offset = 0;  // kConstant: the value

  bool operator==(const ValuePlace&) const = default;
  // Where it is in a process that has the module `bias` bytes above its own addresses.
  ValuePlace at(std::uint64_t bias) const {
    ValuePlace place = *this;
    if (base != kModuleBase) return place;
    place.base = kNoRegister;
    place.offset += static_cast<std::int64_t>(bias);
    return place;
  }
};

}  // namespace ubp::symbols
