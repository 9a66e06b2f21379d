// Seeing functions return: an action at their entries that notes the call (call_stack.h), and one at every exit that
// tells the owner's consumer of it. What is watched where: plan/exits.h.
//
// Each function has two counters beside those of other actions. The first counts entries as performed, calls that did
// not return as left, and what was entered unseen as missed. The second is that of the returns: performed, filtered and
// dropped as of any action; missed are those that nobody could see. So entries = returns + left + what goes on, where
// nothing was missed.
//
// Plain data; its reader (returns.cpp) is compiled without vector registers. What a frame may refer to is never freed.
#pragma once

#include <cstdint>

#include "decoder/exits.h"
#include "runtime/consumers/call_stack.h"
#include "runtime/consumers/consumer_list.h"
#include "runtime/consumers/return_owner.h"

namespace ubp::runtime {

struct ReturnExit {
  const ReturnOwner* owner;
  decoder::Exit::Kind kind;
  std::uint8_t condition;
  bool is_followed;            // kJump
  decoder::EmulateOp operand;  // kIndirect
  std::uint64_t next;          // behind the instruction
  std::uint64_t low, high;     // of the function that it is in
  bool is_in_part;             // which is one of several functions' code
};

// Actions' functions. data: the ReturnFunction whose entry, the ReturnExit that was hit.
void note_entry(const ubp_context* context, void* data);
void note_exit(const ubp_context* context, void* data);

// Reserves the lists of all tasks there can be; they become memory when they are written. keeps: also what is kept
// beside them. False: it is denied.
bool make_call_stacks(bool keeps);
// The same for goroutines. word: from %fs:0, symbols/goroutines.h.
bool make_goroutine_lists(std::int64_t word, bool keeps);

}  // namespace ubp::runtime
