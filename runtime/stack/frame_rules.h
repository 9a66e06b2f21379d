// How the caller of a function is found at each of its instructions: call frame information, compiled to tables that a
// walk looks into at hits. Plain data, immutable once published.
//
// Inline and free of libc. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ubp::stack {

// Registers by the hardware's numbers. Those that a function keeps for its caller (psABI 3.2.1) have a place in a Rule.
enum Register : std::uint8_t { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi, kR12 = 12, kNoRegister = 16 };
inline constexpr std::size_t kRegisters = 16, kKept = 6;
// rbx, rbp, r12 to r15; kKept: none of them.
[[gnu::always_inline]] inline std::size_t kept_index(std::size_t number) {
  if (number >= kR12) return number - kR12 + 2;
  return number == kRbx ? 0 : number == kRbp ? 1 : kKept;
}

// Of the instructions between two places. The frame address is what the stack pointer will be when the function has
// returned ("CFA").
struct Rule {
  enum Kind : std::uint8_t {
    kNone,         // no call frame information
    kUnknown,      // it is of a kind that no compiler makes, or damaged
    kEnd,          // nobody called this
    kRegister,     // the frame address is base + offset
    kIndirect,     // ... what lies at base + offset
    kStub,         // ... base + offset, and 8 more from byte `stub` of each 16 on: the linker's .plt
    kSignalFrame,  // the stack pointer is at the context that a signal interrupted
  };
  static constexpr std::int16_t kSame = 0, kLost = INT16_MIN;

  std::int32_t offset = 0;
  std::int16_t return_words = -1;  // where the return address is, from the frame address
  std::int16_t kept[kKept] = {};   // where a register's value is, in words; kSame: it has not changed
  Kind kind = kNone;
  std::uint8_t base = kRsp;
  std::uint8_t return_register = kNoRegister;  // that holds the return address; kNoRegister: it is in memory
  std::uint8_t stub = 0;
  // Bits, by kept_index(): `kept` counts from the word below rbp, not from the frame address.
  std::uint8_t from_rbp = 0;
  std::uint8_t added_words = 0;  // kIndirect: to what lies there

  bool operator==(const Rule&) const = default;
};
static_assert(sizeof(Rule) == 24);

// A module's code, or a piece of it that is like one.
struct Region {
  std::uint64_t low, high;      // addresses
  const std::uint32_t* starts;  // from `low` on, ascending: where the rules begin to hold, the first at 0
  const std::uint16_t* rules;   // their numbers
  std::uint32_t count;
};

inline constexpr std::uint64_t kCacheWords = 4096, kRuleBits = 16, kMostRules = 1 << kRuleBits;

// All of a process. One that a hit may be looking into is never taken away.
struct FrameTables {
  const Region* regions;  // ascending
  std::uint64_t region_count;
  const Rule* rules;  // the first is kNone
  // Addresses that were looked up, with the number of their rule in the low bits. A word is read and written as one.
  std::uint64_t* cache;
};

// How many of the first `count` values, ascending, are not above the wanted one.
template <typename Value, typename Wanted>
[[gnu::always_inline]] inline std::uint64_t not_above(const Value* values, std::uint64_t count, Wanted wanted) {
  std::uint64_t low = 0, high = count;
  while (low < high) {
    const std::uint64_t middle = (low + high) / 2;
    if (values[middle] <= wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

inline std::uint64_t look_up_rule(const FrameTables& tables, std::uint64_t address) {
  std::uint64_t low = 0, high = tables.region_count;
  while (low < high) {
    const std::uint64_t middle = (low + high) / 2;
    if (tables.regions[middle].low <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return 0;
  const Region& region = tables.regions[low - 1];
  if (address >= region.high) return 0;
  const std::uint64_t rows = not_above(region.starts, region.count, address - region.low);
  return rows != 0 ? region.rules[rows - 1] : 0;
}

// The rule of the instruction that holds the address.
[[gnu::always_inline]] inline const Rule& rule_at(const FrameTables& tables, std::uint64_t address) {
  constexpr std::uint64_t kMostAddress = ~std::uint64_t{0} >> kRuleBits;
  if (address > kMostAddress) [[unlikely]]
    return tables.rules[0];
  std::uint64_t* const slot = &tables.cache[(address ^ address >> 12) % kCacheWords];
  const std::uint64_t known = __atomic_load_n(slot, __ATOMIC_RELAXED);  // says all by itself
  if (known >> kRuleBits == address && known != 0) return tables.rules[known % kMostRules];
  const std::uint64_t rule = look_up_rule(tables, address);
  __atomic_store_n(slot, address << kRuleBits | rule, __ATOMIC_RELAXED);  // as above
  return tables.rules[rule];
}

}  // namespace ubp::stack
