// prctl() and syscall(), which stand before libc's to see a program give itself a system call filter: from then on UBP asks nothing
// new of the kernel (trap::Process::is_sandboxed), which might end the program for it. libseccomp uses both.
//
// Context: any, handlers included. Async-signal-safe: yes.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>

#include "runtime/signals/real.h"
#include "runtime/trap/trap_state.h"

using ubp::trap::g_process;

namespace {

bool sets_filter(long number, unsigned long first) {
  return number == SYS_seccomp || (number == SYS_prctl && first == PR_SET_SECCOMP);
}

}  // namespace

UBP_EXPORT int prctl(int option, ...) {
  unsigned long arguments[4];
  va_list list;
  va_start(list, option);
  for (unsigned long& argument : arguments) argument = va_arg(list, unsigned long);
  va_end(list);
  if (sets_filter(SYS_prctl, static_cast<unsigned long>(option))) g_process.is_sandboxed.store(true, std::memory_order_relaxed);
  return UBP_REAL(prctl)(option, arguments[0], arguments[1], arguments[2], arguments[3]);
}

extern "C" {
// Returns libc's syscall(). Called by the one below, which leaves its stack to it: a vfork's child returns from it first.
__attribute__((visibility("hidden"), used)) void* ubp_real_syscall(long number, unsigned long first) {
  if (sets_filter(number, first)) g_process.is_sandboxed.store(true, std::memory_order_relaxed);
  return reinterpret_cast<void*>(UBP_REAL(syscall));
}
}

UBP_EXPORT __attribute__((naked)) long syscall(long, ...) noexcept {
  asm("push %rdi\n\tpush %rsi\n\tpush %rdx\n\tpush %rcx\n\tpush %r8\n\tpush %r9\n\tsub $8, %rsp\n\t"
      "call ubp_real_syscall\n\t"
      "add $8, %rsp\n\tpop %r9\n\tpop %r8\n\tpop %rcx\n\tpop %rdx\n\tpop %rsi\n\tpop %rdi\n\t"
      "jmp *%rax");
}
