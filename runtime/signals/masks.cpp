// Interposed libc functions that set, lend or read a signal mask: SIGTRAP is never blocked in the kernel, and is
// blocked for the application when it says so (trap::Thread::app_trap).
//
// Where libc's own system calls pass the gate (trap/gate.h), sigprocmask and pthread_sigmask are kept there, and
// nothing is left to do here. A mask lent for the time of one call (sigsuspend, ppoll, ...) reaches the kernel without
// SIGTRAP.
//
// The pointers are the application's, and may be bad: a set is read as the kernel reads it, 8 bytes and only where it
// could.
//
// Context: any, handlers included.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/uio.h>
#include <time.h>

#include "runtime/signals/real.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::signals {
namespace {

using trap::t_thread;

bool is_active() { return g_active.load(std::memory_order_acquire); }  // pairs with take_over

// What the kernel sees of a set of the application's. Returns false where it sees nothing: it is to say so itself.
bool read_set(const sigset_t* set, sigset_t& kernel_set) {
  if (set == nullptr || !sys::is_readable(reinterpret_cast<std::uint64_t>(set))) return false;
  sigemptyset(&kernel_set);
  __builtin_memcpy(&kernel_set, set, kSigsetBytes);
  return true;
}

// sigprocmask and pthread_sigmask.
template <typename Real>
int wrapped_mask(Real real, int how, const sigset_t* set, sigset_t* old) {
  if (!is_active() || trap::g_process.has_gate) return real(how, set, old);
  const bool before = t_thread.app_trap.is_blocked;
  sigset_t without{};
  bool named = false;
  if (set != nullptr) {
    if (!read_set(set, without)) return real(how, set, old);
    named = sigismember(&without, SIGTRAP) == 1;
    if (how != SIG_UNBLOCK) sigdelset(&without, SIGTRAP);
  }
  const int result = real(how, set != nullptr ? &without : nullptr, old);
  if (result != 0) return result;
  if (old != nullptr && before) sigaddset(old, SIGTRAP);
  if (set != nullptr && (named || how == SIG_SETMASK)) trap::ubp_trap_block(named && how != SIG_UNBLOCK);
  return 0;
}

// Calls `call` with the mask less SIGTRAP, which is blocked or not for the application meanwhile. A SIGTRAP that was
// pending and is unblocked by the mask is handled first, and ends the call as it would have.
template <typename Call>
int with_lent_mask(const sigset_t* mask, const Call& call) {
  sigset_t without;
  if (!is_active() || !read_set(mask, without)) return call(mask);
  const bool before = t_thread.app_trap.is_blocked;
  const bool blocks = sigismember(&without, SIGTRAP) == 1;
  if (!blocks && t_thread.app_trap.is_pending) {
    trap::ubp_trap_block(false);
    trap::ubp_trap_block(before);
    errno = EINTR;
    return -1;
  }
  sigdelset(&without, SIGTRAP);
  t_thread.app_trap.is_blocked = blocks;
  const int result = call(&without);
  const int error = errno;
  trap::ubp_trap_block(before);
  errno = error;
  return result;
}

// Takes a pending SIGTRAP that the caller waits for. Returns whether there was one.
bool take_pending(const sigset_t* set) {
  sigset_t awaited;
  if (!is_active() || !t_thread.app_trap.is_pending || !read_set(set, awaited) || sigismember(&awaited, SIGTRAP) != 1)
    return false;
  t_thread.app_trap.is_pending = false;
  return true;
}

// sigwaitinfo and sigtimedwait.
template <typename Wait>
int wrapped_wait(const sigset_t* set, siginfo_t* info, const Wait& wait) {
  if (!take_pending(set)) return wait();
  if (info == nullptr) return SIGTRAP;
  const iovec from{&t_thread.app_trap.info, sizeof *info}, to{info, sizeof *info};
  const long written = sys::call6(SYS_process_vm_writev, sys::getpid(), reinterpret_cast<long>(&from), 1,
                                  reinterpret_cast<long>(&to), 1, 0);
  if (written == -EFAULT) {
    errno = EFAULT;  // it is taken all the same
    return -1;
  }
  if (sys::failed(written)) *info = t_thread.app_trap.info;  // the call is denied
  if (info->si_code == SI_TKILL) info->si_code = SI_USER;    // as libc's sigtimedwait shows it
  return SIGTRAP;
}

}  // namespace
}  // namespace ubp::signals

using ubp::signals::take_pending;
using ubp::signals::with_lent_mask;
using ubp::signals::wrapped_mask;
using ubp::signals::wrapped_wait;

UBP_EXPORT int sigprocmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  return wrapped_mask(UBP_REAL(sigprocmask), how, set, old);
}
UBP_EXPORT int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  return wrapped_mask(UBP_REAL(pthread_sigmask), how, set, old);
}

UBP_EXPORT int sigsuspend(const sigset_t* mask) {
  return with_lent_mask(mask, [](const sigset_t* lent) { return UBP_REAL(sigsuspend)(lent); });
}
// libc's own sigpause calls its sigsuspend directly.
UBP_EXPORT int __sigpause(int signal_or_mask, int is_signal) {
  sigset_t mask;
  if (is_signal == 0) {  // BSD: the first 32 signals as bits
    sigemptyset(&mask);
    for (int signal = 1; signal <= 32; ++signal) {
      if ((static_cast<unsigned>(signal_or_mask) >> (signal - 1) & 1) != 0) sigaddset(&mask, signal);
    }
  } else if (sigprocmask(SIG_BLOCK, nullptr, &mask) != 0 || sigdelset(&mask, signal_or_mask) != 0) {
    return -1;
  }
  return sigsuspend(&mask);
}
UBP_EXPORT int __xpg_sigpause(int signal) { return __sigpause(signal, 1); }
#undef sigpause
extern "C" __attribute__((visibility("default"))) int ubp_bsd_sigpause(int mask) __asm__("sigpause");
int ubp_bsd_sigpause(int mask) { return __sigpause(mask, 0); }

UBP_EXPORT int ppoll(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  return with_lent_mask(mask, [=](const sigset_t* lent) { return UBP_REAL(ppoll)(fds, count, timeout, lent); });
}
extern "C" int __ppoll_chk(pollfd*, nfds_t, const timespec*, const sigset_t*, std::size_t);
UBP_EXPORT int __ppoll_chk(pollfd* fds, nfds_t count, const timespec* timeout, const sigset_t* mask, std::size_t size) {
  return with_lent_mask(mask,
                        [=](const sigset_t* lent) { return UBP_REAL(__ppoll_chk)(fds, count, timeout, lent, size); });
}
UBP_EXPORT int pselect(int count, fd_set* reads, fd_set* writes, fd_set* excepts, const timespec* timeout,
                       const sigset_t* mask) {
  return with_lent_mask(
      mask, [=](const sigset_t* lent) { return UBP_REAL(pselect)(count, reads, writes, excepts, timeout, lent); });
}
UBP_EXPORT int epoll_pwait(int epoll, epoll_event* events, int most, int timeout, const sigset_t* mask) {
  return with_lent_mask(
      mask, [=](const sigset_t* lent) { return UBP_REAL(epoll_pwait)(epoll, events, most, timeout, lent); });
}
UBP_EXPORT int epoll_pwait2(int epoll, epoll_event* events, int most, const timespec* timeout, const sigset_t* mask) {
  return with_lent_mask(
      mask, [=](const sigset_t* lent) { return UBP_REAL(epoll_pwait2)(epoll, events, most, timeout, lent); });
}

UBP_EXPORT int sigpending(sigset_t* set) noexcept {
  const int result = UBP_REAL(sigpending)(set);
  if (result == 0 && ubp::trap::t_thread.app_trap.is_pending) sigaddset(set, SIGTRAP);
  return result;
}
UBP_EXPORT int sigwait(const sigset_t* set, int* signal) {
  if (!take_pending(set)) return UBP_REAL(sigwait)(set, signal);
  *signal = SIGTRAP;
  return 0;
}
UBP_EXPORT int sigwaitinfo(const sigset_t* set, siginfo_t* info) {
  return wrapped_wait(set, info, [=] { return UBP_REAL(sigwaitinfo)(set, info); });
}
UBP_EXPORT int sigtimedwait(const sigset_t* set, siginfo_t* info, const timespec* timeout) {
  return wrapped_wait(set, info, [=] { return UBP_REAL(sigtimedwait)(set, info, timeout); });
}
