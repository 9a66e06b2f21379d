// The texts of refusals. Load time only.
#include "runtime/plan/refusal.h"

#include <fmt/format.h>

namespace ubp::plan {

std::string reason_text(Reason reason, decoder::Refusal instruction, std::string_view detail) {
  std::string_view code, sentence;
  switch (reason) {
    case Reason::kInstruction:
      code = decoder::refusal_code(instruction);
      sentence = decoder::refusal_message(instruction);
      break;
    case Reason::kMidInstruction:
      code = "mid-instruction";
      sentence = "the address lies inside an instruction";
      break;
    case Reason::kUnverified:
      code = "unverified";
      sentence = "no known function decodes to an instruction at this address";
      break;
    case Reason::kDoubtful:
      code = "doubtful";
      sentence = "not reached from the function's entry, and perhaps data";
      break;
    case Reason::kRuntime:
      code = "runtime";
      sentence = "this is the runtime's own code";
      break;
    case Reason::kVdso:
      code = "vdso";
      sentence = "the kernel's vDSO cannot be patched";
      break;
    case Reason::kTextRelocations:
      code = "text-relocations";
      sentence =
          "the dynamic linker has yet to write into this module's code; a module that is loaded at the start can be probed";
      break;
    case Reason::kUnreadable:
      code = "unreadable";
      sentence = "the program has unmapped this code, or may not read it";
      break;
    case Reason::kRseq:
      code = "rseq";
      sentence = "inside a restartable sequence, which a trap would abort every time";
      break;
    case Reason::kNoArgument:
      code = "no-argument";
      sentence = "the program asks for an argument that is not here, or that programs cannot read";
      break;
    case Reason::kNoEntry:
      code = "no-entry";
      sentence = "returns are those of functions, and none is known to be called here";
      break;
    case Reason::kExits:
      code = "exits";
      sentence = "not all places are known where this function returns";
      break;
    case Reason::kGoroutines:
      code = "goroutines";
      sentence =
          "a call of Go code is its goroutine's, and where this module's runtime has the running one is not known";
      break;
    case Reason::kNotCalled:
      code = "not-called";
      sentence = "a call can be overridden only where a function's symbol says that it is called";
      break;
    case Reason::kNoRoom:
      code = "no-room";
      sentence =
          "more probepoints than there is room for; UBP_MAX_PROBEPOINTS, or max_probepoints of ubp_init, makes more";
      break;
    case Reason::kOutOfReach:
      code = "out-of-reach";
      sentence = "no memory for displaced instructions within 2 GiB of this code";
      break;
  }
  return detail.empty() ? fmt::format("{}: {}", code, sentence) : fmt::format("{}: {} ({})", code, sentence, detail);
}

}  // namespace ubp::plan
