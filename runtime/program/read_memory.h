// Reading memory that may not be there, without a fault.
//
// Inline and free of libc. Context: hits. Async-signal-safe: yes.
#pragma once

#include <cstdint>

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::program {

// Behind a system call filter of the program's own making nothing is asked of the kernel.
inline bool may_ask() { return !trap::g_process.is_sandboxed.load(std::memory_order_relaxed); }  // a flag on its own

// Copies bytes from an address of this process, as many as can be read from there on, and returns how many.
// Where a filter of the program's own making stands before system calls, none.
inline std::uint64_t read_memory(std::uint64_t address, void* to, std::uint64_t bytes) {
  if (!may_ask()) return 0;
  struct Piece {
    std::uint64_t base, bytes;
  };
  const Piece into{reinterpret_cast<std::uint64_t>(to), bytes};
  // The kernel reads a piece to its end or not at all.
  constexpr std::uint64_t kMost = 8;
  Piece pieces[kMost];
  std::uint64_t count = 0;
  for (std::uint64_t at = address, left = bytes; left != 0 && count < kMost; ++count) {
    const std::uint64_t to_page = sys::kPageBytes - at % sys::kPageBytes;
    pieces[count] = {at, left < to_page ? left : to_page};
    at += pieces[count].bytes;
    left -= pieces[count].bytes;
  }
  const long got = sys::call6(SYS_process_vm_readv, sys::getpid(), reinterpret_cast<long>(&into), 1,
                              reinterpret_cast<long>(pieces), static_cast<long>(count), 0);
  return sys::failed(got) ? 0 : static_cast<std::uint64_t>(got);
}

}  // namespace ubp::program
