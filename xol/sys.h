// Raw Linux system calls for code that must not touch libc: the trap path and what it includes.
//
// No errno: a result in [-4095, -1] is a negated error number. Inline, general registers only.
// Context: any, the trap path included. Async-signal-safe: yes. Thread-safe: as the system call is.
// Source: x86-64 psABI appendix A.2 (kernel calling convention), asm/unistd_64.h.
#pragma once

#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdint>

namespace ubp::sys {

inline constexpr std::uint64_t kPageBytes = 4096;  // of x86-64, the smallest: SDM volume 3, 4.5

// word.compare_exchange_strong(expected, desired), without the functions that libstdc++'s may leave out of line.
template <typename T>
[[gnu::always_inline]] inline bool exchange_if(std::atomic<T>& word, T& expected, T desired, int order) {
  static_assert(sizeof word == sizeof(T));
  const int on_failure = order == __ATOMIC_ACQ_REL ? __ATOMIC_ACQUIRE : order;
  return __atomic_compare_exchange_n(reinterpret_cast<T*>(&word), &expected, desired, false, order, on_failure);
}

// word.load(std::memory_order_relaxed), without them too. Relaxed: a flag on its own, seen sooner or later.
[[gnu::always_inline]] inline bool is_set(const std::atomic<bool>& word) {
  static_assert(sizeof word == sizeof(bool));
  return __atomic_load_n(reinterpret_cast<const bool*>(&word), __ATOMIC_RELAXED);
}

[[gnu::always_inline]] inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

[[gnu::always_inline]] inline long call4(long number, long a, long b = 0, long c = 0, long d = 0) {
  return call6(number, a, b, c, d, 0, 0);
}

[[gnu::always_inline]] inline bool failed(long result) {
  return static_cast<unsigned long>(result) > static_cast<unsigned long>(-4096);
}

[[gnu::always_inline]] inline std::uint32_t gettid() { return static_cast<std::uint32_t>(call4(SYS_gettid, 0)); }
[[gnu::always_inline]] inline std::uint32_t getpid() { return static_cast<std::uint32_t>(call4(SYS_getpid, 0)); }

// Sets this thread's signal mask as the kernel has it (bit signal - 1); returns the one before.
[[gnu::always_inline]] inline std::uint64_t set_signal_mask(std::uint64_t mask) {
  std::uint64_t before;
  call4(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&mask), reinterpret_cast<long>(&before), sizeof before);
  return before;
}

// Whether the kernel can read 8 bytes there. (It looks at what is to be done with the mask, -1, last.)
[[gnu::always_inline]] inline bool is_readable(std::uint64_t address) {
  constexpr long kBadAddress = -14;  // -EFAULT
  return call4(SYS_rt_sigprocmask, -1, static_cast<long>(address), 0, 8) != kBadAddress;
}

// Whether this is the process with that id. A system call filter may keep the answer back: then it is taken to be.
[[gnu::always_inline]] inline bool is_process(std::uint32_t pid) {
  const long own = call4(SYS_getpid, 0);
  return failed(own) || static_cast<std::uint32_t>(own) == pid;
}

}  // namespace ubp::sys
