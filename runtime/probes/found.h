// What one item of the specification came to, while a plan is being made. Internal to probes/.
#pragma once

#include "runtime/probes/plan.h"

namespace ubp::probes {

struct Plan::Found {
  std::uint32_t item = 0;
  bool excludes = false;                 // only the addresses matter: nothing is refused or said
  std::vector<Candidate> candidates;
  std::vector<Refused> refused;
};

// The bytes from an ELF address to `end`, as far as they are mapped, readable and executable.
std::span<const std::uint8_t> code_from(const symbols::Module& module, std::uint64_t address, std::uint64_t end);

}  // namespace ubp::probes
