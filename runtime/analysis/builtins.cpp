// See builtins.h.
#include "runtime/analysis/builtins.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "runtime/helpers/helpers.h"

namespace ubp::program {
namespace {

constexpr std::uint8_t kAny = 255;
constexpr FunctionRow kFunctions[] = {
    {"count", Function::kCount, 0, 0},
    {"sum", Function::kSum, 1, 1},
    {"min", Function::kMinimum, 1, 1},
    {"max", Function::kMaximum, 1, 1},
    {"avg", Function::kAverage, 1, 1},
    {"stats", Function::kStats, 1, 1},
    {"hist", Function::kHistogram, 1, 2},
    {"lhist", Function::kLinear, 4, 4},
    {"tseries", Function::kSeries, 3, 4},
    {"printf", Function::kPrintf, 1, kAny},
    {"print", Function::kPrint, 1, 3},
    {"clear", Function::kClear, 1, 1},
    {"zero", Function::kZero, 1, 1},
    {"delete", Function::kDelete, 1, 2},
    {"len", Function::kLength, 1, 1},
    {"has_key", Function::kHasKey, 2, 2},
    {"find", Function::kFindKey, 3, 3},
    {"exit", Function::kExit, 0, 1},
    {"override", Function::kOverride, 1, 1},
    {"tree", Function::kTree, 0, 1},
    {"str", Function::kStr, 1, 2},
    {"reg", Function::kReg, 1, 1},
    {"buf", Function::kBuffer, 1, 2},
    {"strncmp", Function::kCompare, 3, 3},
    {"memcmp", Function::kCompareBytes, 3, 3},
    {"strlen", Function::kTextLength, 1, 1},
    {"strcap", Function::kTextCapacity, 1, 1},
    {"strstr", Function::kFindText, 2, 2},
    {"strcontains", Function::kContainsText, 2, 2},
    {"str_concat", Function::kJoinTexts, 2, 2},
    {"strerror", Function::kErrorName, 1, 1},
    {"signal_name", Function::kSignalName, 1, 1},
    {"nsecs", Function::kClock, 0, 1},
    {"bswap", Function::kSwapBytes, 1, 1},
    {"ntop", Function::kAddressText, 1, 2},
    {"pton", Function::kAddressBytes, 1, 1},
    {"macaddr", Function::kHardwareAddress, 1, 1},
    {"strftime", Function::kStamp, 2, 2},
    {"time", Function::kTime, 0, 1},
    {"cat", Function::kFile, 1, kAny},
    {"system", Function::kCommand, 1, kAny},
    {"errorf", Function::kSayError, 1, kAny},
    {"warnf", Function::kSayWarning, 1, kAny},
    {"assert", Function::kAssert, 2, 2},
    {"ustack", Function::kStack, 0, 2},
    {"dw_ustack", Function::kStack, 0, 2},
    {"usym", Function::kSymbol, 1, 1},
    {"uaddr", Function::kSymbolAddress, 1, 1},
};

// By the hardware's numbers.
constexpr std::string_view kRegisters[] = {"ax", "cx", "dx",  "bx",  "sp",  "bp",  "si",  "di",
                                           "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr int kArguments[] = {7, 6, 2, 1, 8, 9};  // psABI 3.2.3

std::string_view without_prefix(std::string_view name) {
  constexpr std::string_view kPrefix = "__builtin_";
  return name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
}

}  // namespace

const FunctionRow* find_function(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                         [name](const FunctionRow& row) { return row.name == name; });
  return found != std::end(kFunctions) ? found : nullptr;
}

bool is_stack_name(std::string_view name) {
  const FunctionRow* const row = find_function(name);
  return row != nullptr && row->function == Function::kStack;
}

bool find_clock(std::string_view name, std::uint32_t& clock) {
  constexpr std::pair<std::string_view, Clock> kClocks[] = {
      {"boot", kBootTime}, {"monotonic", kMonotonic}, {"tai", kAtomicTime}, {"sw_tai", kAtomicTime}};
  for (const auto& [known, number] : kClocks) {
    if (known != name) continue;
    clock = number;
    return true;
  }
  return false;
}

std::vector<std::uint8_t> bytes_of_inet(const std::string& text) {
  std::vector<std::uint8_t> bytes(kInternet6Bytes);
  if (inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1) return bytes;
  bytes.resize(inet_pton(AF_INET, text.c_str(), bytes.data()) == 1 ? kInternetBytes : 0);
  return bytes;
}

int register_of(std::string_view name) {
  if (name == "ip" || name == "pc") return kInstructionPointer;
  const auto* const found = std::find(std::begin(kRegisters), std::end(kRegisters), name);
  return found != std::end(kRegisters) ? static_cast<int>(found - std::begin(kRegisters)) : -1;
}

bool is_kept_by_calls(int register_number) {
  constexpr int kKept[] = {3, 5, 12, 13, 14};  // as jump/call_code.cpp has them
  return std::find(std::begin(kKept), std::end(kKept), register_number) != std::end(kKept);
}

std::optional<std::uint32_t> argument_number(std::string_view name) {
  constexpr std::string_view kArgument = "arg";
  name = without_prefix(name);
  if (!name.starts_with(kArgument)) return std::nullopt;
  name.remove_prefix(kArgument.size());
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const bool is_number = error == std::errc{} && end == name.data() + name.size() && (name[0] != '0' || name == "0");
  return is_number && number < kMostArguments ? std::optional(number) : std::nullopt;
}

int register_of_argument(std::uint32_t number) { return number < std::size(kArguments) ? kArguments[number] : -1; }

std::optional<Builtin> find_builtin(std::string_view name) {
  name = without_prefix(name);
  const Type number = integer(64, false), small = integer(32, false), task_name = string_of(kTaskNameBytes);
  const Builtin rows[] = {{"pid", small},
                          {"tid", small},
                          {"uid", small},
                          {"gid", small},
                          {"cpu", small},
                          {"rand", small},
                          {"nsecs", number},
                          {"elapsed", number},
                          {"ncpus", number},
                          {"numaid", number},
                          {"usermode", integer(8, false)},
                          {"cpid", small},
                          {"ppid", small},
                          {"leader_tid", small},
                          {"username", {TypeKind::kUsername}},
                          {"comm", task_name},
                          {"pcomm", task_name},
                          {"leader_comm", task_name},
                          {"probetype", task_name},
                          {"probe", string_of(kNameBytes)},
                          {"func", string_of(kNameBytes), -1, true},
                          {"retval", number, 0, true},
                          {"self", number, -1, true, false, true},
                          {"depth", number, -1, true, false, true},
                          {"outermost", integer(8, false), -1, true, false, true}};
  for (const Builtin& row : rows) {
    if (row.name == name) return row;
  }
  const auto argument = argument_number(name);
  if (!argument || register_of_argument(*argument) < 0) return std::nullopt;
  return Builtin{name, number, register_of_argument(*argument), true, true, false};
}

}  // namespace ubp::program
