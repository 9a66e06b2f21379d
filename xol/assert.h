// UBP_ASSERT(condition): an invariant of UBP's own that the code behind it relies on. It stays in release builds: where
// it does not hold, the process ends at once by SIGABRT, with one line that says what and where, rather than going on
// with a table or a text that may be wrong. What users, programs or the kernel may cause is no case for it.
//
// No handler of the application's runs, no report is made, and nothing of libc's is called: it may be broken anywhere,
// the trap path included. Context: any. Async-signal-safe: yes. Thread-safe: yes; the first thread alone says
// something.
#pragma once

#include <atomic>
#include <cstdint>

#include "xol/sys.h"

namespace ubp {

// Where it is said: the duplicate of standard error, or descriptor 2, whichever is still the file that standard error
// was at load (report/log.cpp knows). Before that is known: descriptor 2.
struct ErrorOutput {
  std::atomic<int> duplicate{-1};
  std::atomic<std::uint64_t> device{0}, inode{0};  // 0: not known
  std::atomic<std::uint32_t> is_broken{0};         // something has been said
};
inline constinit ErrorOutput g_error_output;

[[gnu::always_inline]] inline bool is_error_output(int descriptor) {
  std::uint64_t status[18];  // struct stat, which begins with st_dev and st_ino: x86-64's uapi/asm/stat.h
  static_assert(sizeof status == 144);
  if (sys::failed(sys::call4(SYS_fstat, descriptor, reinterpret_cast<long>(status)))) return false;
  constexpr auto kOrder = std::memory_order_relaxed;  // set at load, or for the whole process
  const std::uint64_t inode = g_error_output.inode.load(kOrder);
  return inode == 0 || (status[0] == g_error_output.device.load(kOrder) && status[1] == inode);
}

// Says the text, and ends the process as abort() would.
[[noreturn, gnu::always_inline]] inline void end_broken(const char* text, std::uint64_t size) {
  constexpr std::uint64_t kAbort = std::uint64_t{1} << (SIGABRT - 1);
  constexpr int kStandardError = 2, kStatus = 128 + SIGABRT;
  sys::set_signal_mask(~std::uint64_t{0});
  auto* const is_broken = reinterpret_cast<std::uint32_t*>(&g_error_output.is_broken);
  const bool is_first = __atomic_exchange_n(is_broken, 1, __ATOMIC_RELAXED) == 0;  // on its own
  const int duplicate = g_error_output.duplicate.load(std::memory_order_relaxed);  // as above
  const int descriptor = duplicate >= 0 && is_error_output(duplicate) ? duplicate : kStandardError;
  if (is_first && is_error_output(descriptor)) {
    sys::call4(SYS_write, descriptor, reinterpret_cast<long>(text), static_cast<long>(size));
  }
  const std::uint64_t by_default[4] = {};  // the kernel's sigaction: SIG_DFL
  sys::call4(SYS_rt_sigaction, SIGABRT, reinterpret_cast<long>(by_default), 0, 8);
  sys::call4(SYS_tgkill, sys::getpid(), sys::gettid(), SIGABRT);
  sys::set_signal_mask(~kAbort);  // here it ends, unless it is the first process of a namespace
  for (;;) sys::call4(SYS_exit_group, kStatus);
}

#if __STDC_HOSTED__
[[noreturn, gnu::cold, gnu::noinline]] inline void broken(const char* text, std::uint64_t size) {
  end_broken(text, size);
}
#else
extern "C" [[noreturn]] void ubp_trap_broken(const char* text, std::uint64_t size);  // trap/trap_calls.cpp
[[noreturn, gnu::always_inline]] inline void broken(const char* text, std::uint64_t size) {
  ubp_trap_broken(text, size);
}
#endif

}  // namespace ubp

// One string, made when it is compiled.
#define UBP_TEXT_OF_(x) #x
#define UBP_TEXT_OF(x) UBP_TEXT_OF_(x)
#define UBP_BROKEN_TEXT(condition) \
  "ubp: error: UBP is broken, and ends the process: " condition " (" __FILE__ ":" UBP_TEXT_OF(__LINE__) ")\n"

#define UBP_ASSERT(condition)         \
  ((condition) ? static_cast<void>(0) \
               : ::ubp::broken(UBP_BROKEN_TEXT(#condition), sizeof(UBP_BROKEN_TEXT(#condition)) - 1))
