// What tree() writes of a call: one event where it is entered, and one where it returns. A reader makes a tree of them
// (call_tree.h).
//
// Plain data and helpers under the rules of helpers.h.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

// An event's first words; behind them the function's name, with a NUL.
struct CallEvent {
  enum Kind : std::uint64_t { kEntered, kReturned };
  std::uint64_t kind;
  std::uint64_t begin;  // of the timestamp counter at the entry: which call of its task it is
  std::uint64_t depth, task;
  std::uint64_t values[6];  // kEntered: the registers of its arguments; kReturned: elapsed, self, and what it returns
};
inline constexpr std::uint64_t kCallEventWords = sizeof(CallEvent) / sizeof(std::uint64_t);

// Where a call is entered: ReturnOwner::entered. machine: the program's.
void tree_entered(const ubp_context* context, void* machine);
// Where it returns.
void tree_returned(Run* run);
// Whether a call that returns was made in no other one of its function.
std::uint64_t is_outermost(Run* run);

}  // namespace ubp::program
