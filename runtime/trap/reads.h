// Reading the program's memory by plain loads, which may fault: nanoseconds where a system call takes hundreds.
//
// Invariant: a read of a program's block never changes what becomes of the process. A load that faults goes on behind
// the read (is_read_fault, ubp_signal_prepare), if its signal reaches ubp_signal_entry. It does where
// - the kernel has ubp_signal_entry for SIGSEGV and SIGBUS, whatever the application has set, and is to keep it: not
//   where they are ignored, nor for a handler that is reset by its first call (AppHandlers::faults);
// - the task blocks neither, for the kernel ends the process then, and its signal frames lie on UBP's stack
//   (Thread::faults). To ask the kernel takes two system calls, so the answer is kept for as long as nothing comes by
//   that may change it: a handler of the application's begins or returns, a system call is carried out at the gate (a
//   mask, a disposition, rt_sigreturn, a clone that a child goes on from), a task takes a state, or a stack. So a vfork
//   child, which has dispositions of its own but its parent's storage, inherits a true answer, and takes it away when
//   it changes them; it never gives one. Where other tasks share the storage, or %fs may lead elsewhere, no answer
//   counts.
// Everywhere else, and for addresses where a load does harm (may_load), the kernel is asked to read (process_vm_readv),
// as it is for what a load could not read: it has the last word, so that both answer the same.
//
// What is not seen: a system call of a module that passes no gate which blocks SIGSEGV, or sets another handler, as for
// SIGTRAP. And a thread that ignores SIGSEGV in the moment in which another thread's load faults.
//
// Inline and free of libc: compiled into the trap path, and called by what runs at hits. Async-signal-safe: yes.
// Source: kernel/signal.c (force_sig_info_to_task), arch/x86/mm/fault.c.
#pragma once

#include "runtime/trap/tls.h"

namespace ubp::trap {

// How many bytes were read, and whether a load has faulted then.
struct Loaded {
  std::uint64_t bytes;
  std::uint64_t has_faulted;
};

extern "C" {
// read_memory.S. Only where catches_faults() and may_load().
Loaded ubp_read_bytes(void* to, std::uint64_t from, std::uint64_t bytes);
Loaded ubp_read_text(char* to, std::uint64_t from, std::uint64_t most);
extern const char ubp_read_begin[], ubp_read_fault[];

// Asks the kernel whether the running thread's faults are caught, and keeps the answer if it is to be kept.
bool ubp_trap_look_at_faults();
// Whether bytes in the gap below the main thread's stack are of that stack by now.
bool ubp_trap_stack_reaches(std::uint64_t address);
}

inline constexpr std::uint64_t kReadSignals = (std::uint64_t{1} << (SIGSEGV - 1)) | (std::uint64_t{1} << (SIGBUS - 1));

// Whether the signal comes from a load of ubp_read_bytes or ubp_read_text.
[[gnu::always_inline]] inline bool is_read_fault(const siginfo_t* info, const Context* uc) {
  constexpr int kHardwareNotice = 5;  // BUS_MCEERR_AO: not of the instruction
  const auto begin = reinterpret_cast<std::uint64_t>(ubp_read_begin);
  const auto end = reinterpret_cast<std::uint64_t>(ubp_read_fault);
#ifdef UBP_TEST_NO_READ_FAULTS  // tests/preload/reads_test.cpp: the program gets the signal
  return false;
#endif
  if (uc->rip - begin >= end - begin || info->si_code <= 0) return false;
  return info->si_signo == SIGSEGV || (info->si_signo == SIGBUS && info->si_code != kHardwareNotice);
}

// Whether a fault in this thread is caught. Only in a hit, in libc's storage.
[[gnu::always_inline]] inline bool catches_faults() {
  constexpr auto kOrder = std::memory_order_relaxed;  // what the thread has made of itself; of others see above
  if ((g_handlers.faults.load(kOrder) & 1) == 0) return false;
  if (g_process.tasks.shares_tls.load(kOrder) || ubp_moves_fs.load(kOrder)) return false;
  const std::uint8_t known = __atomic_load_n(&t_thread.faults, __ATOMIC_RELAXED);  // its own
  return known == Faults::kCaught || (known == Faults::kUnknown && ubp_trap_look_at_faults());
}

// Whether these bytes are to be read by loads. Not in the gap below the main thread's stack, which would grow; nor
// where nothing is, but pointers often lead (0 and what lies near it), and outside of what programs map by themselves:
// a fault takes longer than a system call, and the kernel writes a line for the vsyscall page.
[[gnu::always_inline]] inline bool may_load(std::uint64_t address, std::uint64_t bytes) {
  constexpr std::uint64_t kLowest = 65536, kHighest = std::uint64_t{1} << 47;
  if (address - kLowest >= kHighest - kLowest || bytes > kHighest - address) return false;
  const StackGap& gap = g_process.stack_gap;
  const bool is_in_gap = address < gap.high.load(std::memory_order_relaxed) && address + bytes > gap.low;  // on its own
  return !is_in_gap || ubp_trap_stack_reaches(address);
}

}  // namespace ubp::trap
