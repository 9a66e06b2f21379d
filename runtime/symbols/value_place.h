// Where a value is when a probepoint is hit: in a register, in memory that registers lead to, computed from both, in
// several such pieces, or nowhere, since it is always the same.
//
// Plain data: made at load time, read at hits.
#pragma once

#include <cstdint>

namespace ubp::symbols {

inline constexpr std::int8_t kNoRegister = -1;
// ValuePlace::base: the address counts from where the module lies.
inline constexpr std::int8_t kModuleBase = -2;
// %xmm0; 15 more follow.
inline constexpr std::int8_t kFirstVector = 16, kLastVector = 31;

// One step of a computation on a stack of 64-bit numbers. Source: DWARF 5, 2.5.1.
struct PlaceStep {
  enum class Code : std::uint8_t {
    kNumber,    // pushes the number; with kModuleBase, counted from there
    kRegister,  // pushes a register and the number
    kThread,    // pushes where the module's thread-local variables begin in the thread, and the number
    kLoad,      // the address on top becomes what is there: so many bytes, extended by zeros
    kKept,      // a frame's address on top becomes what an argument's register held where its function was entered;
                // number: that entry, in the module's own addresses
    kAddNumber,
    kSignExtend,  // of its lowest bytes
    kZeroExtend,
    kNegate,
    kNot,
    kAbsolute,
    kDuplicate,
    kPick,  // pushes the number-th from the top, 0 for the topmost
    kDrop,
    kSwap,
    kRotate,  // the topmost of three becomes the last
    // Two from the top become one.
    kAdd,
    kSubtract,
    kMultiply,
    kDivide,  // signed; by 0: 0
    kModulo,  // unsigned; by 0: 0
    kAnd,
    kOr,
    kXor,
    kShiftLeft,
    kShiftRight,
    kShiftRightSigned,
    kEqual,  // 1 or 0; signed
    kNotEqual,
    kLess,
    kLessEqual,
    kGreater,
    kGreaterEqual,
  };
  static constexpr Code kLast = Code::kGreaterEqual;
  Code code = Code::kNumber;
  std::int8_t base = kNoRegister;
  std::uint8_t bytes = 8;  // 1, 2, 4 or 8
  std::int64_t number = 0;

  bool operator==(const PlaceStep&) const = default;
};
// Those that integer arguments are passed in, in order. Source: psABI 3.2.3.
inline constexpr std::int8_t kArgumentRegisters[] = {7, 6, 2, 1, 8, 9};
inline constexpr bool is_argument_register(std::int8_t number) {
  for (const std::int8_t its : kArgumentRegisters) {
    if (its == number) return true;
  }
  return false;
}

inline constexpr int kMostPlaceDepth = 8;           // of the stack
inline constexpr std::size_t kMostPlaceParts = 64;  // pieces of a value; steps of each

struct ValuePlace {
  enum class Kind : std::uint8_t {
    kRegister,
    kMemory,
    kConstant,
    kComputed,        // what steps leave on top
    kComputedMemory,  // in memory there
    kPieces,          // places one behind the other, each of so many bytes
  };
  Kind kind = Kind::kConstant;
  std::uint8_t bytes = 8;  // 1, 2, 4 or 8; of a piece, any number
  bool is_signed = false;  // extended to 64 bits by its sign; else by zeros
  std::uint8_t shift = 0;  // kRegister: bits below the value (%ah)
  // By the hardware's numbers. kMemory: base + index * scale + offset. kRegister: base, and the next eight bytes in
  // index where there is one; or else in the upper half of a vector register.
  std::int8_t base = kNoRegister, index = kNoRegister;
  std::uint8_t scale = 1;
  std::int64_t offset = 0;  // kConstant: the value
  std::uint32_t first = 0,
                count = 0;  // kComputed, kComputedMemory: steps; kPieces: places. In lists that are beside it

  bool operator==(const ValuePlace&) const = default;
  bool is_memory() const { return kind == Kind::kMemory || kind == Kind::kComputedMemory; }
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
