// Where libc makes the system calls that could take SIGTRAP away: rt_sigprocmask, rt_sigaction, clone3, which can reset a
// child's handlers, and execve, through which masks are inherited. Load time only.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/symbols/symbols.h"
#include "xol/displaced.h"

namespace ubp::probes {

struct GateSites {
  std::vector<xol::Displaced> points;     // run-time addresses of the `syscall` instructions, ascending
  std::vector<xol::Displaced> clones;     // likewise, of those that may make a thread (trap/segment.h)
  std::size_t unknown = 0;                // of them: the number comes from a register (syscall(3) and its like)
  std::size_t unreadable = 0;             // `syscall` bytes of which neither the function nor the number is known
};

// Finds the sites in one mapped module, by its unwind index alone: no file is read, since every start of a probed program
// pays for this. A site's number is the nearest constant loaded into eax before it; where there is none
// on the straight line the site is taken too, and the number looked at when it is hit.
GateSites find_gate_sites(const symbols::Module& module);

}  // namespace ubp::probes
