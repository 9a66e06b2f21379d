// What one item of the specification came to, while a plan is being made. Internal to plan/.
#pragma once

#include "runtime/plan/plan.h"

namespace ubp::plan {

struct Plan::Found {
  std::uint32_t item = 0;
  bool excludes = false;  // only the addresses matter: nothing is refused or said
  std::vector<Candidate> candidates;
  std::vector<Refused> refused;
  symbols::Readable readable;
  // How far a function was decoded last, for the next address in it.
  const symbols::Function* swept = nullptr;
  std::uint32_t swept_to = 0;
};

}  // namespace ubp::plan
