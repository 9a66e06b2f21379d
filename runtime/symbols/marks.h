// Static marks ("USDT"): places in a program that its author has given a name and arguments. The compiler leaves a nop
// at each, and a note that says where it is and where its arguments are.
//
// Context: load time. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/symbols.h"
#include "runtime/symbols/value_place.h"

namespace ubp::symbols {

class ElfFile;

struct MarkArgument {
  ValuePlace place;
  std::string text;     // as it is noted: "-4@%eax"
  std::string problem;  // why programs cannot read it: "is a floating-point value"; empty: they can
};

// One place of a mark; a mark that was inlined, or is in a macro, has several.
struct Mark {
  std::uint64_t address = 0;    // of the nop; ELF virtual address
  std::uint64_t semaphore = 0;  // of a 16-bit counter of who is listening; ELF virtual address, 0: none
  std::string provider, name;
  std::vector<MarkArgument> arguments;
};

// Where a variable is that an argument names; none: there is no such.
using VariableAddress = std::function<std::optional<std::uint64_t>(std::string_view name)>;

// The arguments of a mark, as its note has them: "-4@%eax 8@-24(%rbp) 4@$5". Pure.
// Source: SystemTap's "UserSpaceProbeImplementation"; operands are those of GNU as.
std::vector<MarkArgument> parse_mark_arguments(std::string_view text, const VariableAddress& address_of);

// All marks of a file, by address; then in the order of the notes.
std::vector<Mark> marks_in(const ElfFile& file);

// Those of a module of this process. Throws std::runtime_error with one line that says what and why when its file
// cannot be read or is not the one mapped.
std::vector<Mark> marks_of(const Module& module);

// By globs; provider: empty for any.
bool mark_matches(const Mark& mark, std::string_view provider, std::string_view name);

// Up to three "provider:name" near to what was asked for, best first.
std::vector<std::string> nearest_marks(const std::vector<Mark>& marks, std::string_view provider,
                                       std::string_view name);

}  // namespace ubp::symbols
