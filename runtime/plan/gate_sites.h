// Where a module makes the system calls that could take SIGTRAP away: rt_sigprocmask, rt_sigaction, clone3, which can
// reset a child's handlers, and execve, through which masks are inherited. And exit_group, which ends the process
// without its report, where that is not libc's (there _exit() is interposed), and arch_prctl, which may set %fs,
// outside libc too. Load time only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "runtime/symbols/symbols.h"
#include "runtime/symbols/unwind_index.h"
#include "xol/displaced.h"

namespace ubp::plan {

struct GateSites {
  std::vector<xol::Displaced> points;  // run-time addresses of the `syscall` instructions, ascending
  std::vector<xol::Displaced> clones;  // the same for calls that may make a thread (trap/segment.h)
  std::size_t unknown = 0;             // of them: the number comes from a register (syscall(3) and its like)
  bool sets_fs = false;                // there is a wrfsbase: detours cannot trust what %fs leads to (trap/tls.h)
  std::vector<std::uint64_t>
      unreadable;  // ELF addresses of what may be a `syscall`, of which neither the function nor the number is known
};

// The function that holds an ELF address, where the unwind index knows none (Go's compiler writes no such index).
using FunctionAt = std::function<std::optional<symbols::Extent>(std::uint64_t address)>;

// Finds the sites in one mapped module, by its unwind index, and by `function_at` only for what that does not know: as
// a rule no file is read, since every start of a probed program pays for this. A site's number is the nearest constant
// loaded into eax before it; where there is none on the straight line the site is taken too, and the number looked at
// when it is hit.
GateSites find_gate_sites(const symbols::Module& module, const FunctionAt& function_at = nullptr);

}  // namespace ubp::plan
