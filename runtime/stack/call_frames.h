// Call frame information, compiled: from a function's instructions for unwinders to rules (frame_rules.h).
//
// Sources: DWARF 5, 6.4; System V ABI, AMD64 supplement, 3.6.2 (numbers of registers); what compilers and linkers make:
// GCC's i386 back end (functions that align their stack), binutils' elfxx-x86.c (.plt), glibc's sigaction.c.
//
// Context: load time. The bytes are untrusted.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "runtime/stack/frame_rules.h"
#include "runtime/symbols/eh_frame.h"
#include "runtime/symbols/symbols.h"

namespace ubp::stack {

// The rules of all modules: each stands once, wherever it is met.
class RuleSet {
 public:
  // rules: room for kMostRules of them; it outlives this.
  explicit RuleSet(Rule* rules);
  // Where there is no room any more, that of a rule that finds nobody.
  std::uint16_t number_of(const Rule& rule);

 private:
  struct Hash {
    std::size_t operator()(const Rule& rule) const;
  };
  Rule* rules_;
  std::unordered_map<Rule, std::uint16_t, Hash> numbers_;
};

// The rules of one function, from its begin on: each calls row(offset in bytes, rule), ascending. False: the
// instructions are damaged, and the rows up to there are all.
bool rules_of(const symbols::FrameEntry& entry, const std::function<void(std::uint64_t, const Rule&)>& row);

// A module's: what Region refers to. `low`: the run-time address of the module.
struct ModuleRules {
  std::uint64_t low = 0, high = 0;
  std::vector<std::uint32_t> starts;
  std::vector<std::uint16_t> rules;
};
// No rows: the module has no call frame information, or it cannot be read.
ModuleRules compile(const symbols::Module& module, RuleSet& rules);

}  // namespace ubp::stack
