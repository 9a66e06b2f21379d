// Interposed libc functions: the application cannot take SIGTRAP away from the runtime, and reads back what it set.
//
// Each function passes straight to libc's until take_over(). Afterwards every handler the application installs is
// kept in trap::g_handlers, and the kernel is given ubp_signal_entry instead, with the application's own flags.
// SIGTRAP is virtual: its disposition and mask bit are the application's to set and read, and reach no kernel.
//
// Context: any, handlers included: sigaction and its family are async-signal-safe, so nothing here allocates, and
// a signal's lock is held with all signals blocked; it outlives no fork.
#include "runtime/signals/interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <cstdarg>
#include <cstring>
#include <utility>

#include "runtime/signals/real.h"
#include "runtime/trap/segment.h"
#include "xol/sys.h"

namespace ubp::signals {
namespace {

using trap::g_handlers;

// The kernel's part of a sigset_t.
std::uint64_t kernel_mask(const sigset_t& set) {
  std::uint64_t bits;
  std::memcpy(&bits, &set, sizeof bits);
  return bits;
}

// Whose turn it is to change one signal's disposition: 0, or a thread, with its process. A forked child may find the turn of a thread
// that it does not have, and takes it over.
std::atomic<std::uint64_t> g_turns[65];

// Serialises changes of one signal's disposition. No handler of the application's runs meanwhile, that of its SIGTRAP included: it
// could call sigaction itself.
class DispositionLock {
 public:
  explicit DispositionLock(int signal) : turn_(g_turns[signal]) {
    before_ = sys::set_signal_mask(~bit_of(SIGTRAP));  // the functions called under the lock may be probed
    was_blocked_ = std::exchange(trap::t_thread.app_trap.is_blocked, true);
    const std::uint64_t own = std::uint64_t{sys::getpid()} << 32 | sys::gettid();
    std::uint64_t present = 0;
    while (!turn_.compare_exchange_strong(present, own, std::memory_order_acquire)) {  // pairs with the release
      if (!is_gone(present, own)) {
        sys::call4(SYS_sched_yield, 0);
        present = 0;
      }
    }
  }
  ~DispositionLock() {
    turn_.store(0, std::memory_order_release);  // pairs with the acquire
    trap::t_thread.app_trap.is_blocked = was_blocked_;
    sys::set_signal_mask(before_);
    if (!was_blocked_ && trap::t_thread.app_trap.is_pending) trap::ubp_trap_block(false);  // it waited
  }
  DispositionLock(const DispositionLock&) = delete;
  DispositionLock& operator=(const DispositionLock&) = delete;

 private:
  static bool is_gone(std::uint64_t thread, std::uint64_t own) {
    constexpr long kNoSuchProcess = -3;  // -ESRCH
    const auto tid = static_cast<std::uint32_t>(thread);
    return thread >> 32 != own >> 32 || sys::call4(SYS_tkill, tid, 0) == kNoSuchProcess;
  }

  std::atomic<std::uint64_t>& turn_;
  std::uint64_t before_ = 0;
  bool was_blocked_ = false;
};

// What the shim has to know of the application's flags; the kernel is always asked for siginfo.
void remember_flags(int signal, std::uint64_t flags) {
  trap::set_bit(g_handlers.on_stack, static_cast<std::uint64_t>(signal), (flags & SA_ONSTACK) != 0);
  trap::set_bit(g_handlers.takes_info, static_cast<std::uint64_t>(signal), (flags & SA_SIGINFO) != 0);
}

using Handler = void (*)(int);
const Handler kShim = reinterpret_cast<Handler>(&trap::ubp_signal_entry);

bool is_function(Handler handler) { return handler != SIG_DFL && handler != SIG_IGN && handler != SIG_ERR; }
std::uint64_t word_of(Handler handler) { return reinterpret_cast<std::uint64_t>(handler); }
Handler handler_of(std::uint64_t word) { return reinterpret_cast<Handler>(word); }

// SIGTRAP, as the application believes it set it.
void virtual_sigaction(const struct sigaction* act, struct sigaction* old) {
  DispositionLock lock(SIGTRAP);
  struct sigaction before {};
  before.sa_handler = handler_of(g_handlers.handler[SIGTRAP].load(std::memory_order_relaxed));  // under the lock
  before.sa_flags = static_cast<int>(g_handlers.trap_flags.load(std::memory_order_relaxed));    // under the lock
  const std::uint64_t mask = g_handlers.trap_mask.load(std::memory_order_relaxed);              // under the lock
  std::memcpy(&before.sa_mask, &mask, sizeof mask);
  if (act != nullptr) {
    g_handlers.trap_flags.store(static_cast<unsigned>(act->sa_flags), std::memory_order_relaxed);
    g_handlers.trap_mask.store(kernel_mask(act->sa_mask), std::memory_order_relaxed);
    // Release: pairs with ubp_trap_foreign, which then calls it.
    g_handlers.handler[SIGTRAP].store(word_of(act->sa_handler), std::memory_order_release);
  }
  if (old != nullptr) *old = before;
}

// A vfork child has signal dispositions of its own but shares this memory with its parent: what it sets goes to the
// kernel as it is, and the parent's tables stay.
bool passes_through(int signal) {
  if (!g_active.load(std::memory_order_acquire) || !is_signal(signal)) return true;  // pairs with take_over
  return trap::g_process.fork_state->load(std::memory_order_acquire) == trap::kReady &&
         !sys::is_process(trap::g_process.pid);
}

int wrapped_sigaction(int signal, const struct sigaction* act, struct sigaction* old) {
  const auto real = UBP_REAL(sigaction);
  if (passes_through(signal)) {
    if (signal == SIGTRAP && g_active.load(std::memory_order_relaxed)) return 0;  // the vfork child may meet an int3
    return real(signal, act, old);
  }
  if (signal == SIGTRAP) {
    virtual_sigaction(act, old);
    return 0;
  }
  DispositionLock lock(signal);
  const std::uint64_t previous = g_handlers.handler[signal].load(std::memory_order_relaxed);  // under the lock
  const auto number = static_cast<std::uint64_t>(signal);
  const bool masked_trap = trap::has_bit(g_handlers.masks_trap, number);
  const bool took_info = trap::has_bit(g_handlers.takes_info, number);
  struct sigaction kernel_act {};
  if (act != nullptr) {
    kernel_act = *act;
    if (is_function(act->sa_handler)) {
      // Before the kernel knows the shim; release: pairs with ubp_signal_prepare.
      g_handlers.handler[signal].store(word_of(act->sa_handler), std::memory_order_release);
      kernel_act.sa_handler = kShim;
      kernel_act.sa_flags |= SA_SIGINFO;
    }
    sigdelset(&kernel_act.sa_mask, SIGTRAP);
  }
  struct sigaction kernel_old {};
  trap::t_thread.app_trap.in_wrapper = true;
  const int result = real(signal, act != nullptr ? &kernel_act : nullptr, &kernel_old);
  trap::t_thread.app_trap.in_wrapper = false;
  if (result != 0) {
    g_handlers.handler[signal].store(previous, std::memory_order_release);  // pairs with ubp_signal_prepare
    return result;
  }
  if (act != nullptr) {
    trap::set_bit(g_handlers.masks_trap, number, sigismember(&act->sa_mask, SIGTRAP) == 1);
    remember_flags(signal, static_cast<std::uint64_t>(act->sa_flags));
  }
  if (old != nullptr) {
    *old = kernel_old;
    if (old->sa_handler == kShim) {
      old->sa_handler = handler_of(previous);
      if (!took_info) old->sa_flags &= ~SA_SIGINFO;
      if (previous == 0) old->sa_flags = 0;  // the guard's
    }
    if (masked_trap) sigaddset(&old->sa_mask, SIGTRAP);
  }
  return 0;
}

// signal() and its relatives: libc's function is given the shim, and its answer is translated back.
template <typename Real>
Handler wrapped_signal(Real real, int signal, Handler handler) {
  if (passes_through(signal)) {
    if (signal == SIGTRAP && g_active.load(std::memory_order_relaxed)) return SIG_DFL;
    return real(signal, handler);
  }
  if (signal == SIGTRAP) {
    if (handler == SIG_ERR) {
      errno = EINVAL;
      return SIG_ERR;
    }
    struct sigaction act {}, old{};
    act.sa_handler = handler;
    act.sa_flags = SA_RESTART;
    virtual_sigaction(&act, &old);
    return old.sa_handler;
  }
  DispositionLock lock(signal);
  const std::uint64_t previous = g_handlers.handler[signal].load(std::memory_order_relaxed);  // under the lock
  if (is_function(handler)) {
    g_handlers.handler[signal].store(word_of(handler), std::memory_order_release);  // pairs with ubp_signal_prepare
  }
  trap::t_thread.app_trap.in_wrapper = true;
  const Handler old = real(signal, is_function(handler) ? kShim : handler);
  trap::t_thread.app_trap.in_wrapper = false;
  if (old == SIG_ERR) {
    g_handlers.handler[signal].store(previous, std::memory_order_release);  // pairs with ubp_signal_prepare
    return old;
  }
  trap::set_bit(g_handlers.masks_trap, static_cast<std::uint64_t>(signal), false);
  remember_flags(signal, 0);
  return old == kShim ? handler_of(previous) : old;
}

// Puts the shim in front of a handler that was installed before take_over(). Raw: libc refuses its internal signals.
void wrap_existing(int signal) {
  trap::KernelSigaction act{};
  if (sys::failed(sys::call4(SYS_rt_sigaction, signal, 0, reinterpret_cast<long>(&act), kSigsetBytes))) return;
  if (act.handler <= 1) return;
  remember_flags(signal, act.flags);
  g_handlers.handler[signal].store(act.handler, std::memory_order_release);  // pairs with ubp_signal_prepare
  if ((act.mask & bit_of(SIGTRAP)) != 0) {
    g_handlers.masks_trap.fetch_or(bit_of(signal), std::memory_order_relaxed);  // single-threaded: load time
  }
  act.handler = word_of(kShim);
  act.flags |= SA_SIGINFO;
  act.mask &= ~bit_of(SIGTRAP);
  sys::call4(SYS_rt_sigaction, signal, reinterpret_cast<long>(&act), 0, kSigsetBytes);
}

}  // namespace

constinit std::atomic<bool> g_active{false};

bool is_taken_by_another() {
  trap::KernelSigaction act{};
  // The mark says to the other's gate, where it stands in this copy's code too, who asks.
  sys::call6(SYS_rt_sigaction, SIGTRAP, 0, reinterpret_cast<long>(&act), 8, UBP_ENTRY_MARK, 0);
  if (act.handler <= 1 || act.handler == reinterpret_cast<std::uint64_t>(&trap::ubp_trap_entry)) return false;
  std::uint64_t mark = 0;
  if (act.handler % 16 != 0) return false;  // the mark lies on the handler's page
  std::memcpy(&mark, reinterpret_cast<const void*>(act.handler - sizeof mark), sizeof mark);
  return mark == UBP_ENTRY_MARK;
}

void set_guards(bool (*are)(std::uint64_t signal), bool guards) {
  for (std::uint64_t signal = 1; signal <= 64; ++signal) {
    trap::KernelSigaction act{};
    const bool is_default = are(signal) && g_handlers.handler[signal].load(std::memory_order_acquire) == 0;  // pairs with sigaction
    if (!is_default || sys::failed(sys::call4(SYS_rt_sigaction, static_cast<long>(signal), 0, reinterpret_cast<long>(&act), kSigsetBytes))) continue;
    if (act.handler != (guards ? 0 : word_of(kShim))) continue;
    act = guards ? trap::guard_action() : trap::KernelSigaction{};
    sys::call4(SYS_rt_sigaction, static_cast<long>(signal), reinterpret_cast<long>(&act), 0, kSigsetBytes);
  }
}

bool has_taken_over() { return g_active.load(std::memory_order_acquire); }  // pairs with take_over

bool take_over() {
  if (g_active.load(std::memory_order_relaxed)) return true;  // the caller's lock: one at a time
  if (is_taken_by_another()) return false;
  trap::KernelSigaction act{}, old{};
  act.handler = reinterpret_cast<std::uint64_t>(&trap::ubp_trap_entry);
  act.flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | trap::kRestorer;
  act.restorer = reinterpret_cast<std::uint64_t>(&trap::ubp_trap_restorer);
  if (sys::failed(sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&act), reinterpret_cast<long>(&old),
                             kSigsetBytes))) {
    return false;
  }
  g_handlers.handler[SIGTRAP].store(old.handler, std::memory_order_relaxed);  // no trap before the first int3
  g_handlers.trap_flags.store(old.flags & ~trap::kRestorer, std::memory_order_relaxed);
  g_handlers.trap_mask.store(old.mask, std::memory_order_relaxed);
  for (int signal = 1; signal <= 64; ++signal) {
    if (signal != SIGTRAP) wrap_existing(signal);
  }
  const std::uint64_t trap = bit_of(SIGTRAP);
  std::uint64_t mask = 0;
  sys::call4(SYS_rt_sigprocmask, SIG_UNBLOCK, reinterpret_cast<long>(&trap), reinterpret_cast<long>(&mask), kSigsetBytes);
  trap::t_thread.app_trap.is_blocked = (mask & trap) != 0;  // inherited through exec
  g_active.store(true, std::memory_order_release);  // pairs with the wrappers' acquire loads
  return true;
}

}  // namespace ubp::signals

// The interposed names; runtime/ubp.map exports exactly these.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // sigset and its kin still have callers
using ubp::signals::wrapped_sigaction;
using ubp::signals::wrapped_signal;
using SignalHandler = void (*)(int);

UBP_EXPORT int sigaction(int signal, const struct sigaction* act, struct sigaction* old) {
  return wrapped_sigaction(signal, act, old);
}
UBP_EXPORT int __sigaction(int signal, const struct sigaction* act, struct sigaction* old) {
  return wrapped_sigaction(signal, act, old);
}

#define UBP_SIGNAL_FUNCTION(name)                                              \
  extern "C" SignalHandler name(int, SignalHandler) noexcept;                  \
  UBP_EXPORT SignalHandler name(int signal, SignalHandler handler) noexcept {  \
    return wrapped_signal(UBP_REAL(name), signal, handler);                    \
  }
UBP_SIGNAL_FUNCTION(signal)
UBP_SIGNAL_FUNCTION(bsd_signal)
UBP_SIGNAL_FUNCTION(ssignal)
UBP_SIGNAL_FUNCTION(sysv_signal)
UBP_SIGNAL_FUNCTION(__sysv_signal)

// System V: SIG_HOLD blocks the signal; any other disposition is installed and unblocks it. Answers SIG_HOLD when the
// signal was blocked, else the old disposition.
UBP_EXPORT SignalHandler sigset(int signal, SignalHandler disposition) noexcept {
  sigset_t set, before;
  sigemptyset(&set);
  if (disposition == SIG_ERR || sigaddset(&set, signal) != 0) {
    errno = EINVAL;
    return SIG_ERR;
  }
  struct sigaction act {}, old{};
  act.sa_handler = disposition;
  const bool holds = disposition == SIG_HOLD;
  if (wrapped_sigaction(signal, holds ? nullptr : &act, &old) != 0) return SIG_ERR;
  if (sigprocmask(holds ? SIG_BLOCK : SIG_UNBLOCK, &set, &before) != 0) return SIG_ERR;
  return sigismember(&before, signal) == 1 ? SIG_HOLD : old.sa_handler;
}

// A task made by clone with CLONE_VM but no TLS of its own runs on its maker's, beside it: from then on no hit may take
// the TLS's word for who it is (trap/task.h). A vfork child does not: its maker waits.
UBP_EXPORT int clone(int (*function)(void*), void* stack, int flags, void* argument, ...) noexcept {
  va_list list;
  va_start(list, argument);
  void* const parent_tid = va_arg(list, void*);  // read whether passed or not, as libc's own clone does
  void* const tls = va_arg(list, void*);
  void* const child_tid = va_arg(list, void*);
  va_end(list);
  if ((flags & CLONE_VM) != 0 && (flags & CLONE_VFORK) == 0) {
    if ((flags & CLONE_SETTLS) == 0) ubp::trap::g_process.shares_tls.store(true, std::memory_order_relaxed);  // this thread makes the task after this
    if ((flags & CLONE_SETTLS) != 0) {
      ubp::trap::leave_storage();
    } else if (ubp::trap::g_process.before_sharing_tls != nullptr) {
      ubp::trap::g_process.before_sharing_tls();
    }
  }
  return UBP_REAL(clone)(function, stack, flags, argument, parent_tid, tls, child_tid);
}

UBP_EXPORT int sighold(int signal) noexcept {
  sigset_t set;
  sigemptyset(&set);
  if (sigaddset(&set, signal) != 0) return -1;
  return sigprocmask(SIG_BLOCK, &set, nullptr);
}
UBP_EXPORT int sigignore(int signal) noexcept {
  struct sigaction act {};
  act.sa_handler = SIG_IGN;
  return wrapped_sigaction(signal, &act, nullptr);
}
