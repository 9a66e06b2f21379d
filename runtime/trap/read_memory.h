// Reading memory that may not be there, without a fault that the program would see: by loads where that is certain
// (reads.h), else by a system call.
//
// Inline and free of libc. Context: hits, and normal. Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include "runtime/trap/reads.h"

namespace ubp::trap {

// Behind a system call filter of the program's own making nothing is asked of the kernel.
inline bool may_ask() { return !g_process.is_sandboxed.load(std::memory_order_relaxed); }  // a flag on its own

// Whether nothing can be read there, for to ask would make the main thread's stack grow (until Linux 6.5).
inline bool is_stack_gap(std::uint64_t address) {
  const StackGap& gap = g_process.stack_gap;
  if (address < gap.low || address >= gap.high.load(std::memory_order_relaxed)) return false;  // a number on its own
  constexpr long kNoMemory = -12;                                                              // -ENOMEM: not mapped
  std::uint8_t pages = 0;
  const auto page = static_cast<long>(address & ~(sys::kPageBytes - 1));
  return sys::call4(SYS_mincore, page, 1, reinterpret_cast<long>(&pages)) == kNoMemory;
}

// As read_memory, by a system call.
inline std::uint64_t read_by_call(std::uint64_t address, void* to, std::uint64_t bytes) {
  if (is_stack_gap(address)) return 0;
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

// Whether these bytes may be read by loads. at_hit: a task of the program's own is at a hit; elsewhere nothing is
// certain.
inline bool reads_by_loads(bool at_hit, std::uint64_t address, std::uint64_t bytes) {
  return at_hit && catches_faults() && may_load(address, bytes);
}

// Copies bytes from an address of this process, as many as can be read from there on, and returns how many.
// Where a filter of the program's own making stands before system calls, none.
inline std::uint64_t read_memory(bool at_hit, std::uint64_t address, void* to, std::uint64_t bytes) {
  if (!may_ask()) return 0;
  std::uint64_t got = 0;
  if (reads_by_loads(at_hit, address, bytes)) got = ubp_read_bytes(to, address, bytes).bytes;
  return got == bytes ? got : got + read_by_call(address + got, static_cast<std::uint8_t*>(to) + got, bytes - got);
}

}  // namespace ubp::trap
