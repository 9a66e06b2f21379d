// Why a probe is not armed: decoder::Refusal's reasons and those that only the runtime can find.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "decoder/classify.h"

namespace ubp::plan {

enum class Reason : std::uint8_t {
  kInstruction,      // the decoder refused it
  kMidInstruction,   // the address lies inside an instruction
  kUnverified,       // decoding from the function's start does not reach the address, or no function is known there
  kDoubtful,         // insn: bytes of a function that are not known to be code
  kRuntime,          // the runtime's own text
  kVdso,             // the vDSO and vsyscall pages
  kTextRelocations,  // code that the dynamic linker has yet to write into
  kUnreadable,       // code that the program has unmapped or may not read
  kRseq,             // a restartable sequence
  kNoArgument,       // an argument that is wanted is not there
  kNoEntry,          // returns: not a function's entry
  kExits,            // returns: the function may be left where nobody looks
  kGoroutines,       // returns: of Go code whose goroutines cannot be told apart
  kNotCalled,        // no function's entry, where a probe wants to end the call
  kNoRoom,           // of a module loaded later: the table is full
  kOutOfReach,       // no room for XOL slots within rel32 of the code, or memory denied
};

// "code: sentence", as reports and messages print it. detail: appended to the sentence when not empty.
// instruction: kInstruction only.
std::string reason_text(Reason reason, decoder::Refusal instruction, std::string_view detail);

}  // namespace ubp::plan
