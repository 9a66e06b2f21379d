// Where libc makes the system calls that could take SIGTRAP away: rt_sigprocmask and rt_sigaction. Load time only.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/symbols/symbols.h"
#include "xol/displaced.h"

namespace ubp::probes {

struct GateSites {
  std::vector<xol::Displaced> points;     // run-time addresses of the `syscall` instructions, ascending
  std::size_t unknown = 0;                // of them: the number comes from a register (syscall(3) and its like)
  std::size_t unreadable = 0;             // `syscall` bytes that no known function decodes to
};

// Finds the sites in one module. A site's number is the nearest constant loaded into eax before it; where there is none
// on the straight line the site is taken too, and the number looked at when it is hit.
GateSites find_gate_sites(const symbols::Module& module, const symbols::FunctionTable& functions);

}  // namespace ubp::probes
