// See builtins.h.
#include "runtime/program/builtins.h"

#include <algorithm>
#include <charconv>
#include <iterator>

namespace ubp::program {
namespace {

constexpr std::uint8_t kAny = 255;
constexpr FunctionRow kFunctions[] = {
    {"count", Function::kCount, 0, 0},    {"sum", Function::kSum, 1, 1},      {"min", Function::kMinimum, 1, 1},
    {"max", Function::kMaximum, 1, 1},    {"avg", Function::kAverage, 1, 1},  {"stats", Function::kStats, 1, 1},
    {"hist", Function::kHistogram, 1, 2}, {"lhist", Function::kLinear, 4, 4}, {"printf", Function::kPrintf, 1, kAny},
    {"print", Function::kPrint, 1, 3},    {"clear", Function::kClear, 1, 1},  {"zero", Function::kZero, 1, 1},
    {"delete", Function::kDelete, 1, 2},  {"len", Function::kLength, 1, 1},   {"has_key", Function::kHasKey, 2, 2},
    {"exit", Function::kExit, 0, 1},      {"str", Function::kStr, 1, 2},      {"reg", Function::kReg, 1, 1},
};

// By the hardware's numbers.
constexpr std::string_view kRegisters[] = {"ax", "cx", "dx",  "bx",  "sp",  "bp",  "si",  "di",
                                           "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
constexpr int kArguments[] = {7, 6, 2, 1, 8, 9};  // psABI 3.2.3

}  // namespace

const FunctionRow* find_function(std::string_view name) {
  const auto* const found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                         [name](const FunctionRow& row) { return row.name == name; });
  return found != std::end(kFunctions) ? found : nullptr;
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

std::optional<Builtin> find_builtin(std::string_view name) {
  const Type number = integer(64, false), small = integer(32, false);
  const Builtin rows[] = {{"pid", small},
                          {"tid", small},
                          {"uid", small},
                          {"gid", small},
                          {"cpu", small},
                          {"rand", small},
                          {"nsecs", number},
                          {"elapsed", number},
                          {"comm", string_of(16)},
                          {"probe", string_of(kNameBytes)},
                          {"func", string_of(kNameBytes), -1, true}};
  for (const Builtin& row : rows) {
    if (row.name == name) return row;
  }
  constexpr std::string_view kArgument = "arg";
  if (!name.starts_with(kArgument) || name.size() != kArgument.size() + 1) return std::nullopt;
  const auto index = static_cast<std::size_t>(name.back() - '0');
  if (index >= std::size(kArguments)) return std::nullopt;
  return Builtin{name, number, kArguments[index], true};
}

}  // namespace ubp::program
