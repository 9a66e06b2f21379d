// Interposed libc functions: the application cannot take SIGTRAP away from the runtime, and reads back what it set.
//
// Each function passes straight to libc's until take_over(). Afterwards every handler the application installs is
// kept in trap::g_handlers, and the kernel is given ubp_signal_entry instead (trap/disposition.h says what that means).
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
#include "runtime/trap/disposition.h"
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

// Whose turn it is to change one signal's disposition: 0, or a thread, with its process. A forked child may find the
// turn of a thread that it does not have, and takes it over.
std::atomic<std::uint64_t> g_turns[65];

// Serialises changes of one signal's disposition. No handler of the application's runs meanwhile, that of its SIGTRAP
// included: it could call sigaction itself.
class DispositionLock {
 public:
  explicit DispositionLock(int signal) : turn_(g_turns[signal]) {
    before_ = sys::set_signal_mask(~bit_of(SIGTRAP));  // the functions called under the lock may be probed
    trap::forget_faults(trap::t_thread);
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
    trap::forget_faults(trap::t_thread);
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

using Handler = void (*)(int);

std::uint64_t word_of(Handler handler) { return reinterpret_cast<std::uint64_t>(handler); }
Handler handler_of(std::uint64_t word) { return reinterpret_cast<Handler>(word); }

// An action as the kernel has it, and as libc does. (libc sets the restorer itself.)
trap::KernelSigaction kernel_form(const struct sigaction& act) {
  return {word_of(act.sa_handler), static_cast<unsigned>(act.sa_flags),
          reinterpret_cast<std::uint64_t>(act.sa_restorer), kernel_mask(act.sa_mask)};
}
struct sigaction libc_form(const trap::KernelSigaction& act) {
  struct sigaction result {};
  result.sa_handler = handler_of(act.handler);
  result.sa_flags = static_cast<int>(act.flags);
  result.sa_restorer = reinterpret_cast<void (*)()>(act.restorer);
  std::memcpy(&result.sa_mask, &act.mask, sizeof act.mask);
  return result;
}

// A vfork child has signal dispositions of its own but shares this memory with its parent: what it sets goes to the
// kernel as it is, and the parent's tables stay.
bool is_vfork_child() {
  return trap::g_process.tasks.fork_state->load(std::memory_order_acquire) ==
             trap::kReady &&  // pairs with set_up_child
         !sys::is_process(trap::g_process.tasks.pid);
}

// Whether libc's function does all there is to do. SIGTRAP never reaches it: a vfork child may meet an int3 too.
bool passes_through(int signal) {
  if (!g_active.load(std::memory_order_acquire) || !is_signal(signal)) return true;  // pairs with take_over
  return signal != SIGTRAP && is_vfork_child();
}

// SIGTRAP, as the application believes it set it. Returns what it was.
trap::KernelSigaction change_trap(const trap::KernelSigaction* act) {
  if (is_vfork_child()) return trap::trap_disposition(trap::is_cleared_guest());
  DispositionLock lock(SIGTRAP);
  const trap::KernelSigaction before = trap::trap_disposition(false);
  if (act != nullptr) trap::set_trap_disposition(*act);
  return before;
}

int wrapped_sigaction(int signal, const struct sigaction* act, struct sigaction* old) {
  const auto real = UBP_REAL(sigaction);
  if (passes_through(signal)) return real(signal, act, old);
  trap::KernelSigaction asked{};
  if (act != nullptr) asked = kernel_form(*act);
  const trap::KernelSigaction* const wanted = act != nullptr ? &asked : nullptr;
  if (signal == SIGTRAP) {
    const trap::KernelSigaction before = change_trap(wanted);
    if (old != nullptr) *old = libc_form(before);
    return 0;
  }
  DispositionLock lock(signal);
  const trap::DispositionChange change = trap::begin_change(static_cast<std::uint64_t>(signal), wanted, true);
  const struct sigaction kernel_act = libc_form(change.kernel);
  struct sigaction kernel_old {};
  trap::t_thread.app_trap.in_wrapper = true;
  const int result = real(signal, act != nullptr ? &kernel_act : nullptr, &kernel_old);
  trap::t_thread.app_trap.in_wrapper = false;
  if (result != 0) {
    trap::take_back(change);
    return result;
  }
  trap::KernelSigaction shown = kernel_form(kernel_old);
  trap::complete_change(change, wanted, &shown);
  if (old != nullptr) *old = libc_form(shown);
  return 0;
}

// signal() and its relatives: libc's function is given ubp_signal_entry, and its answer is translated back.
template <typename Real>
Handler wrapped_signal(Real real, int signal, Handler handler) {
  if (passes_through(signal)) return real(signal, handler);
  if (handler == SIG_ERR) {
    errno = EINVAL;
    return SIG_ERR;
  }
  trap::KernelSigaction asked{};
  asked.handler = word_of(handler);
  if (signal == SIGTRAP) {
    asked.flags = SA_RESTART;
    return handler_of(change_trap(&asked).handler);
  }
  DispositionLock lock(signal);
  const trap::DispositionChange change = trap::begin_change(static_cast<std::uint64_t>(signal), &asked, true);
  trap::t_thread.app_trap.in_wrapper = true;
  const Handler old = real(signal, handler_of(change.kernel.handler));
  trap::t_thread.app_trap.in_wrapper = false;
  if (old == SIG_ERR) {
    trap::take_back(change);
    return old;
  }
  trap::KernelSigaction shown{};
  shown.handler = word_of(old);
  trap::complete_change(change, &asked, &shown);
  return handler_of(shown.handler);
}

// Puts ubp_signal_entry in front of a handler that was installed before take_over(). Raw: libc refuses its internal
// signals.
void wrap_existing(int signal) {
  trap::KernelSigaction act{};
  if (sys::failed(sys::call4(SYS_rt_sigaction, signal, 0, reinterpret_cast<long>(&act), kSigsetBytes))) return;
  if (!trap::is_function(act.handler)) return;
  trap::note(static_cast<std::uint64_t>(signal), trap::notes_of(act));
  act = trap::behind_entry(act);
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
    if (!are(signal) || g_handlers.handler[signal].load(std::memory_order_acquire) != 0) continue;  // pairs with note()
    const long number = static_cast<long>(signal);
    if (sys::failed(sys::call4(SYS_rt_sigaction, number, 0, reinterpret_cast<long>(&act), kSigsetBytes))) continue;
    if (act.handler != (guards ? 0 : trap::entry_address())) continue;
    act = guards ? trap::guard_action() : trap::KernelSigaction{};
    trap::begin_fault_change();
    sys::call4(SYS_rt_sigaction, number, reinterpret_cast<long>(&act), 0, kSigsetBytes);
  }
  trap::end_fault_change();
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
  sys::call4(SYS_rt_sigprocmask, SIG_UNBLOCK, reinterpret_cast<long>(&trap), reinterpret_cast<long>(&mask),
             kSigsetBytes);
  trap::t_thread.app_trap.is_blocked = (mask & trap) != 0;  // inherited through exec
  g_active.store(true, std::memory_order_release);          // pairs with the wrappers' acquire loads
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

#define UBP_SIGNAL_FUNCTION(name)                                             \
  extern "C" SignalHandler name(int, SignalHandler) noexcept;                 \
  UBP_EXPORT SignalHandler name(int signal, SignalHandler handler) noexcept { \
    return wrapped_signal(UBP_REAL(name), signal, handler);                   \
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
  struct sigaction act {
  }, old{};
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
    if ((flags & CLONE_SETTLS) == 0)
      ubp::trap::g_process.tasks.shares_tls.store(true,
                                                  std::memory_order_relaxed);  // this thread makes the task after this
    if ((flags & CLONE_SETTLS) != 0) {
      ubp::trap::leave_storage();
    } else if (ubp::trap::g_process.upcalls.before_sharing_tls != nullptr) {
      ubp::trap::g_process.upcalls.before_sharing_tls();
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
