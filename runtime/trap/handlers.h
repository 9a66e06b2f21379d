// What the application has asked of its signals, and which signals are of a kind.
//
// Inline and free of libc: compiled into the trap path.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstdint>

namespace ubp::trap {

// Raw kernel sigaction (uapi/asm/signal.h).
struct KernelSigaction {
  std::uint64_t handler, flags, restorer, mask;
};

// Verdicts on SIGTRAP the application asked for, and every other handler of its.
struct AppHandlers {
  std::atomic<std::uint64_t> handler[65];  // what ubp_signal_entry calls; SIGTRAP's is its virtual disposition
  std::atomic<std::uint64_t> masks_trap;   // bit (signal - 1): the application's sa_mask held SIGTRAP
  std::atomic<std::uint64_t> on_stack;     // the same: the application asked for SA_ONSTACK
  std::atomic<std::uint64_t> takes_info;   // the same: for SA_SIGINFO
  std::atomic<std::uint64_t> trap_flags, trap_mask;  // SIGTRAP's virtual sa_flags and sa_mask
  // Bit 0: the kernel has ubp_signal_entry for SIGSEGV and SIGBUS, and will keep it (reads.h). Above: how often one of
  // them was about to change.
  std::atomic<std::uint64_t> faults;
};

// The signals whose default is a core dump, and those that end the process without one; SIGTRAP is neither here, nor
// the two that libc uses within itself.
[[gnu::always_inline]] inline bool dumps_core(std::uint64_t signal) {
  constexpr std::uint64_t kCore = (1u << (SIGQUIT - 1)) | (1u << (SIGILL - 1)) | (1u << (SIGABRT - 1)) |
                                  (1u << (SIGBUS - 1)) | (1u << (SIGFPE - 1)) | (1u << (SIGSEGV - 1)) |
                                  (1u << (SIGSYS - 1)) | (1u << (SIGXCPU - 1)) | (1u << (SIGXFSZ - 1));
  return signal >= 1 && signal <= 64 && (kCore >> (signal - 1) & 1) != 0;
}
[[gnu::always_inline]] inline bool terminates(std::uint64_t signal) {
  constexpr std::uint64_t kLater = ~std::uint64_t{0} << 33;  // the real-time ones that programs may use
  constexpr std::uint64_t kEnds = (1u << (SIGHUP - 1)) | (1u << (SIGINT - 1)) | (1u << (SIGUSR1 - 1)) |
                                  (1u << (SIGUSR2 - 1)) | (1u << (SIGPIPE - 1)) | (1u << (SIGALRM - 1)) |
                                  (1u << (SIGTERM - 1)) | (1u << (SIGSTKFLT - 1)) | (1u << (SIGVTALRM - 1)) |
                                  (1u << (SIGPROF - 1)) | (1u << (SIGIO - 1)) | (1u << (SIGPWR - 1)) | kLater;
  return signal >= 1 && signal <= 64 && (kEnds >> (signal - 1) & 1) != 0;
}
[[gnu::always_inline]] inline bool ends_process(std::uint64_t signal) {
  return dumps_core(signal) || terminates(signal);
}

// What an instruction may raise, SIGTRAP included: never blocked by the runtime, since the kernel kills then.
inline constexpr std::uint64_t kSynchronousSignals = (1u << (SIGTRAP - 1)) | (1u << (SIGSEGV - 1)) |
                                                     (1u << (SIGBUS - 1)) | (1u << (SIGFPE - 1)) |
                                                     (1u << (SIGILL - 1)) | (1u << (SIGSYS - 1));

// What the trap path blocks where no handler may come between. A system call filter of the program's may raise SIGSYS
// for a call of its own (refused_call, signal_path.cpp), and the kernel kills where that is blocked.
inline constexpr std::uint64_t kAllSignals = ~(std::uint64_t{1} << (SIGSYS - 1));

inline constexpr std::uint64_t kTrapBit = std::uint64_t{1} << (SIGTRAP - 1);

// libc's SIGSETXID: whoever changes the process's user or group waits until every thread has handled it.
inline constexpr std::uint64_t kSetxid = 33;
// What the runtime may hold back for a while.
inline constexpr std::uint64_t kHoldable = ~kSynchronousSignals & ~(std::uint64_t{1} << (kSetxid - 1));

// Remembers, or forgets, one bit of what the application asked of a signal.
[[gnu::always_inline]] inline void set_bit(std::atomic<std::uint64_t>& bits, std::uint64_t signal, bool value) {
  const std::uint64_t bit = std::uint64_t{1} << (signal - 1);
  if (value) {
    bits.fetch_or(bit, std::memory_order_relaxed);  // on its own: read by handlers that the kernel starts later
  } else {
    bits.fetch_and(~bit, std::memory_order_relaxed);  // as above
  }
}
[[gnu::always_inline]] inline bool has_bit(const std::atomic<std::uint64_t>& bits, std::uint64_t signal) {
  return (bits.load(std::memory_order_relaxed) >> (signal - 1) & 1) != 0;  // as above
}

}  // namespace ubp::trap
