// prctl(), arch_prctl() and syscall(), which stand before libc's to see a program give itself a system call filter:
// from then on UBP asks nothing new of the kernel (trap::Process::is_sandboxed), which might end the program for it.
// libseccomp uses both. And to see a program take %gs for itself (trap/segment.h), or set %fs (trap/tls.h).
//
// Context: any, handlers included. Async-signal-safe: yes.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <cstddef>

#include "runtime/signals/interpose.h"
#include "runtime/signals/real.h"
#include "runtime/signals/sandbox.h"
#include "runtime/trap/segment.h"
#include "xol/sys.h"

using ubp::trap::g_process;

namespace ubp::signals {
namespace {

constinit std::atomic<bool> g_forbids_report{false};  // set by the thread that the filter is for; relaxed: nothing else

// What a filter answers to a system call whose arguments are zeros; SECCOMP_RET_ALLOW where that is not clear.
// Source: seccomp(2); linux/filter.h.
std::uint32_t answer(const sock_filter* program, std::uint32_t size, std::uint32_t number) {
  std::uint32_t value = 0;
  for (std::uint64_t at = 0; at < size; ++at) {
    const sock_filter& step = program[at];
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        value = step.k == offsetof(seccomp_data, nr)     ? number
                : step.k == offsetof(seccomp_data, arch) ? AUDIT_ARCH_X86_64
                                                         : 0;
        break;
      case BPF_ALU | BPF_AND | BPF_K: value &= step.k; break;
      case BPF_JMP | BPF_JA: at += step.k; break;
      case BPF_JMP | BPF_JEQ | BPF_K: at += value == step.k ? step.jt : step.jf; break;
      case BPF_JMP | BPF_JGT | BPF_K: at += value > step.k ? step.jt : step.jf; break;
      case BPF_JMP | BPF_JGE | BPF_K: at += value >= step.k ? step.jt : step.jf; break;
      case BPF_JMP | BPF_JSET | BPF_K: at += (value & step.k) != 0 ? step.jt : step.jf; break;
      case BPF_RET | BPF_K: return step.k & SECCOMP_RET_ACTION_FULL;
      default: return SECCOMP_RET_ALLOW;
    }
  }
  return SECCOMP_RET_ALLOW;
}

// A report at the end asks the kernel for what the program need not have allowed: where that would end it, no report is
// made.
void note_filter(std::uint64_t address) {
  constexpr std::uint32_t kAsked[] = {SYS_getpid,   SYS_gettid,     SYS_rt_sigprocmask, SYS_openat, SYS_read,
                                      SYS_write,    SYS_close,      SYS_fstat,          SYS_access, SYS_pread64,
                                      SYS_pwrite64, SYS_getdents64, SYS_mmap,           SYS_munmap, SYS_clock_gettime};
  const auto* const filter = reinterpret_cast<const sock_fprog*>(address);
  if (!sys::is_readable(address) || !sys::is_readable(address + offsetof(sock_fprog, filter)))
    return;  // the kernel says what is wrong
  if (filter->len == 0 || filter->len > BPF_MAXINSNS) return;
  const auto first = reinterpret_cast<std::uint64_t>(filter->filter);
  for (std::uint64_t step = 0; step < filter->len; ++step) {
    if (!sys::is_readable(first + step * sizeof(sock_filter))) return;
  }
  for (const std::uint32_t number : kAsked) {
    const std::uint32_t said = answer(filter->filter, filter->len, number);
    if (said == SECCOMP_RET_KILL_PROCESS || said == SECCOMP_RET_KILL_THREAD || said == SECCOMP_RET_TRAP)
      g_forbids_report.store(true, std::memory_order_relaxed);
  }
}

}  // namespace

bool forbids_report() {
  return g_forbids_report.load(std::memory_order_relaxed);
}  // set by this thread, or just now by another

}  // namespace ubp::signals

namespace {

// Remembers what a system call is about to forbid, or to take.
void note(long number, unsigned long first, unsigned long second, unsigned long third) {
  const bool is_prctl = number == SYS_prctl, is_filter = number == SYS_seccomp || (is_prctl && first == PR_SET_SECCOMP);
  const bool stops_clock = is_prctl && first == PR_SET_TSC && second == PR_TSC_SIGSEGV;
  const bool takes_segment = number == SYS_arch_prctl && static_cast<long>(first) == ubp::trap::kSetGs;
  // Behind a filter a new thread could not be given its %gs.
  const bool forbids_segment = is_filter && !g_process.processor.has_fsgsbase;
  if ((takes_segment || forbids_segment) && g_process.upcalls.leave_segment != nullptr)
    g_process.upcalls.leave_segment();
  if (number == SYS_arch_prctl && static_cast<long>(first) == ubp::trap::kSetFs) ubp::trap::leave_storage();
  const bool is_program = is_prctl ? second == SECCOMP_MODE_FILTER : first == SECCOMP_SET_MODE_FILTER;
  if (is_filter && is_program && ubp::signals::has_taken_over()) ubp::signals::note_filter(third);
  if (!is_filter && !stops_clock) return;
  g_process.is_sandboxed.store(true, std::memory_order_relaxed);
  // A filter may forbid what UBP would do before.
  if (is_filter && ubp::signals::has_taken_over()) ubp::signals::set_guards(&ubp::trap::terminates, false);
  // Strict mode takes the timestamp counter away too: this thread can record no more.
  const bool is_strict = is_prctl && first == PR_SET_SECCOMP && second == SECCOMP_MODE_STRICT;
  ubp::trap::TaskState* const task = ubp::trap::t_thread.state;
  const bool loses_clock = stops_clock || is_strict;
  if (loses_clock && task->tid.load(std::memory_order_relaxed) != 0) task->ring = 0;  // its own
}

// A program that has its system calls handed back to it as SIGSYS (PR_SET_SYSCALL_USER_DISPATCH) would be given the
// runtime's, too: in its very handler, which the kernel ends it for. Where the program excepts no code, the trap path
// is.
void except_runtime(int option, unsigned long (&arguments)[4]) {
  constexpr int kSetDispatch = 59;  // PR_SET_SYSCALL_USER_DISPATCH, and its PR_SYS_DISPATCH_ON
  constexpr unsigned long kOn = 1;
  if (option != kSetDispatch || arguments[0] != kOn || arguments[1] != 0 || arguments[2] != 0) return;
  if (!ubp::signals::has_taken_over()) return;
  g_process.is_sandboxed.store(true, std::memory_order_relaxed);  // the trap path alone is excepted
  arguments[1] = g_process.text.low;
  arguments[2] = g_process.text.high - g_process.text.low;
}

}  // namespace

UBP_EXPORT int prctl(int option, ...) {
  unsigned long arguments[4];
  va_list list;
  va_start(list, option);
  for (unsigned long& argument : arguments) argument = va_arg(list, unsigned long);
  va_end(list);
  note(SYS_prctl, static_cast<unsigned long>(option), arguments[0], arguments[1]);
  except_runtime(option, arguments);
  return UBP_REAL(prctl)(option, arguments[0], arguments[1], arguments[2], arguments[3]);
}

extern "C" int arch_prctl(int code, unsigned long address) noexcept;
UBP_EXPORT int arch_prctl(int code, unsigned long address) noexcept {
  note(SYS_arch_prctl, static_cast<unsigned long>(code), address, 0);
  const int result = UBP_REAL(arch_prctl)(code, address);
  const bool shows_own = result == 0 && code == ubp::trap::kGetGs && ubp::trap::counts_by_segment();
  if (shows_own) *reinterpret_cast<unsigned long*>(address) = 0;  // what the program set: nothing
  return result;
}

extern "C" {
// Returns libc's syscall(). Called by the one below, which leaves its stack to it: a vfork's child returns from it
// first.
__attribute__((visibility("hidden"), used)) void* ubp_real_syscall(long number, unsigned long first,
                                                                   unsigned long second, unsigned long third) {
  note(number, first, second, third);
  return reinterpret_cast<void*>(UBP_REAL(syscall));
}
}

UBP_EXPORT __attribute__((naked)) long syscall(long, ...) noexcept {
  asm("push %rdi\n\tpush %rsi\n\tpush %rdx\n\tpush %rcx\n\tpush %r8\n\tpush %r9\n\tsub $8, %rsp\n\t"
      "call ubp_real_syscall\n\t"
      "add $8, %rsp\n\tpop %r9\n\tpop %r8\n\tpop %rcx\n\tpop %rdx\n\tpop %rsi\n\tpop %rdi\n\t"
      "jmp *%rax");
}
