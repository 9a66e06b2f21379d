// What generated code calls for stacks. As helpers.h.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

// The number of the stack that the hit has, of at most so many frames, for which there is room. None in begin and end.
std::uint64_t take_stack(Run* run, std::uint64_t* room, std::uint64_t frames);
std::uint64_t stack_length(Run* run, std::uint64_t number);
// An address as what usym() is worth: with the process's image.
std::uint64_t symbol_value(Run* run, std::uint64_t address);

// The two parts of that. Addresses of programs have no more than 47 bits; others stay as they are.
inline constexpr int kSymbolImageShift = 48;
inline constexpr std::uint64_t kMostImages = 0x7fff;
struct SymbolValue {
  std::uint32_t image;
  std::uint64_t address;
};
inline SymbolValue parts_of_symbol(std::uint64_t value) {
  constexpr std::uint64_t kAddress = (std::uint64_t{1} << kSymbolImageShift) - 1;
  if (value >> kSymbolImageShift > kMostImages) return {0, value};
  return {static_cast<std::uint32_t>(value >> kSymbolImageShift), value & kAddress};
}

}  // namespace ubp::program
