// The names that programs know without defining them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/types.h"

namespace ubp::program {

// A value that needs no arguments.
struct Builtin {
  std::string_view name;
  Type type;
  int register_number = -1;  // the register it is; -1: a helper computes it
  bool needs_hit = false;    // not in begin and end
  bool is_argument = false;  // of a call: where it returns only as it is kept from the entry on
  bool is_of_call = false;   // of probes at calls
};
// Also by its name with __builtin_ before it.
std::optional<Builtin> find_builtin(std::string_view name);

// Of "arg7": 7. None: it is no argument's name, or beyond what a static mark may have.
inline constexpr std::uint32_t kMostArguments = 64;
std::optional<std::uint32_t> argument_number(std::string_view name);
// The register that a function's argument is in; -1: it is in none.
int register_of_argument(std::uint32_t number);

// A register by its name in reg(): "di", "sp"; -1: there is none. kInstructionPointer: "ip".
inline constexpr int kInstructionPointer = 16;
int register_of(std::string_view name);
// Those that a detour saves only where it is asked to.
bool is_kept_by_calls(int register_number);

// The kernel's number of a clock by its name in nsecs(). False: there is none.
bool find_clock(std::string_view name, std::uint32_t& clock);

inline constexpr std::uint32_t kInternetBytes = 4, kInternet6Bytes = 16, kHardwareBytes = 6;
// An address of the internet as it lies in memory: 4 or 16 bytes; none: the text is no address.
std::vector<std::uint8_t> bytes_of_inet(const std::string& text);

enum class Function : std::uint8_t {
  kCount,
  kSum,
  kMinimum,
  kMaximum,
  kAverage,
  kStats,
  kHistogram,
  kLinear,
  kSeries,
  kPrintf,
  kPrint,
  kClear,
  kZero,
  kDelete,
  kLength,
  kHasKey,
  kFindKey,
  kExit,
  kOverride,
  kTree,
  kStr,
  kReg,
  kCompare,  // strncmp()
  kCompareBytes,
  kTextLength,
  kTextCapacity,
  kFindText,
  kContainsText,
  kJoinTexts,
  kErrorName,
  kSignalName,
  kClock,
  kSwapBytes,
  kAddressText,  // ntop()
  kAddressBytes,
  kHardwareAddress,
  kStamp,  // strftime()
  kTime,
  kFile,     // cat()
  kCommand,  // system()
  kSayError,
  kSayWarning,
  kAssert,
  kBuffer,
  kStack,
  kSymbol,         // usym()
  kSymbolAddress,  // uaddr()
};
struct FunctionRow {
  std::string_view name;
  Function function;
  std::uint8_t least, most;  // arguments
};
const FunctionRow* find_function(std::string_view name);
// ustack, which may stand without parentheses.
bool is_stack_name(std::string_view name);

}  // namespace ubp::program
