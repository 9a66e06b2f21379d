// See api_lock.h.
#include "runtime/api/api_lock.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <xmmintrin.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <new>

#include "runtime/api/programs.h"
#include "runtime/report/report.h"
#include "runtime/signals/interpose.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::runtime {
namespace {

using trap::g_process;

// A mutex that calls nothing of libc's, which may be probed. Source: U. Drepper, "Futexes are tricky", mutex 3.
class Lock {
 public:
  bool try_lock() {
    std::uint32_t free = 0;
    return word_.compare_exchange_strong(free, 1, std::memory_order_acquire);  // pairs with unlock()
  }
  void lock() {
    if (try_lock()) return;
    while (word_.exchange(2, std::memory_order_acquire) != 0) {  // pairs with unlock()
      sys::call4(SYS_futex, reinterpret_cast<long>(&word_), FUTEX_WAIT_PRIVATE, 2);
    }
  }
  bool lock_briefly() {
    constexpr int kMoments = 2'000;  // of a millisecond
    for (int turn = 0; turn < kMoments; ++turn) {
      if (try_lock()) return true;
      const timespec moment{0, 1'000'000};
      sys::call4(SYS_nanosleep, reinterpret_cast<long>(&moment), 0);
    }
    return false;
  }
  void unlock() {
    if (word_.exchange(0, std::memory_order_release) == 2)
      sys::call4(SYS_futex, reinterpret_cast<long>(&word_), FUTEX_WAKE_PRIVATE, 1);
  }

 private:
  std::atomic<std::uint32_t> word_{0};  // 1: held; 2: and somebody may wait
};

// Made at the first call, never destroyed: threads and exit handlers may outlive any destructor.
alignas(Interface) constinit std::byte g_memory[sizeof(Interface)]{};
constinit bool g_is_made = false;
constinit Lock g_mutex;  // of everything here
constinit std::atomic<std::uint32_t> g_owner{
    0};  // the thread that holds it; relaxed: who asks compares it with its own number
constinit std::atomic<bool> g_is_forking{false};  // it is held across fork(); relaxed: only its owner asks
constinit std::atomic<std::uint32_t> g_pid{0};    // of the process that this is up to date for; 0: nothing was armed
constinit bool g_is_lost = false;                 // a forked child, of a process in the middle of a change

void make() {
  if (g_is_made) return;
  g_is_made = true;
  new (g_memory) Interface;
}

// Whether the call is made by a consumer; by a process that borrows this memory.
bool is_in_consumer() {
  return trap::ubp_trap_is_consuming(reinterpret_cast<std::uint64_t>(__builtin_frame_address(0)));
}
bool is_borrowed_memory() {
  return g_process.tasks.fork_state != nullptr &&
         g_process.tasks.fork_state->load(std::memory_order_acquire) == trap::kReady &&
         !sys::is_process(g_process.tasks.pid);
}

void before_fork() {
  if (g_owner.load(std::memory_order_relaxed) == sys::gettid())
    return;  // only this thread can have stored its own number
  const SignalsHeld quiet;
  if (!is_in_consumer()) {
    g_mutex.lock();
  } else if (!g_mutex.try_lock()) {
    return;  // its holder may be waiting for this very consumer
  }
  g_owner.store(sys::gettid(), std::memory_order_relaxed);
  g_is_forking.store(true, std::memory_order_relaxed);
}

void after_fork_in_parent() {
  if (!g_is_forking.load(std::memory_order_relaxed) || g_owner.load(std::memory_order_relaxed) != sys::gettid())
    return;  // under the lock
  const SignalsHeld quiet;
  g_is_forking.store(false, std::memory_order_relaxed);
  g_owner.store(0, std::memory_order_relaxed);
  g_mutex.unlock();
}

void after_fork_in_child() {
  // Relaxed: this thread holds the lock, or whoever does is not here.
  g_is_lost |= g_owner.load(std::memory_order_relaxed) != 0 && !g_is_forking.load(std::memory_order_relaxed);
  new (&g_mutex) Lock;  // its holder is this thread under another number, or not here
  g_is_forking.store(false, std::memory_order_relaxed);
  g_owner.store(0, std::memory_order_relaxed);
  if (g_process.tasks.fork_state == nullptr) return;  // nothing was ever armed
  trap::ubp_trap_set_up_child();
  report::release_error_duplicate();
  interface().registry.set_up_child();
  set_up_programs_in_child();
  g_pid.store(g_process.tasks.pid, std::memory_order_relaxed);  // read by a child that has one thread
}

}  // namespace

Interface& interface() { return *reinterpret_cast<Interface*>(g_memory); }

KeptFloating::KeptFloating() : mxcsr_(_mm_getcsr()) {
  constexpr std::uint32_t kDefault = 0x1f80;
  _mm_setcsr(kDefault);
}
KeptFloating::~KeptFloating() { _mm_setcsr(mxcsr_); }

SignalsHeld::SignalsHeld() {
  const std::uint64_t others = trap::kHoldable;  // SIGTRAP stays as it is: take_over() has to know
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, reinterpret_cast<long>(&others), reinterpret_cast<long>(&mask_),
             sizeof mask_);
  in_runtime_.emplace();
  error_ = errno;
}

// Taken over meanwhile, SIGTRAP is no longer blocked, whatever it was.
void SignalsHeld::let_signals_in() const {
  sys::set_signal_mask(signals::has_taken_over() ? mask_ & ~(std::uint64_t{1} << (SIGTRAP - 1)) : mask_);
}

SignalsHeld::~SignalsHeld() {
  errno = error_;
  in_runtime_.reset();
  if (trap::t_thread.app_trap.is_pending && !trap::t_thread.app_trap.is_blocked)
    trap::ubp_trap_block(false);  // it waited: ubp_trap_foreign()
  let_signals_in();
}

ApiLock::ApiLock(bool needs_init, Wait wait) {
  // A child by a system call of its own: no handler was called. Its first hit may have made it ready for hits.
  const bool is_started = g_process.tasks.fork_state != nullptr;
  const std::uint32_t pid = g_pid.load(std::memory_order_relaxed);  // a child has one thread
  const bool is_unready = is_started && g_process.tasks.fork_state->load(std::memory_order_acquire) != trap::kReady;
  const bool is_forked = is_unready || (is_started && pid != 0 && pid != g_process.tasks.pid);
  if (is_forked) after_fork_in_child();
  if (is_in_consumer()) {
    status_ = UBP_E_IN_CONSUMER;
  } else if (is_borrowed_memory() || g_is_lost) {
    status_ = UBP_E_WRONG_PROCESS;
  } else if (g_owner.load(std::memory_order_relaxed) ==
             sys::gettid()) {  // only this thread can have stored its own number
    status_ = UBP_E_BUSY;
  }
  if (status_ != UBP_OK) return;
  if (wait == Wait::kForever) {
    g_mutex.lock();
  } else if (wait == Wait::kBriefly ? !g_mutex.lock_briefly() : !g_mutex.try_lock()) {
    status_ = UBP_E_BUSY;
    return;
  }
  make();
  static bool handles_fork = false;
  if (!handles_fork) {
    handles_fork = true;
    pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
  }
  if (needs_init && !interface().is_initialised) {
    status_ = UBP_E_NOT_ACTIVE;
    g_mutex.unlock();
    return;
  }
  g_owner.store(sys::gettid(), std::memory_order_relaxed);
}

ApiLock::~ApiLock() {
  if (status_ != UBP_OK) return;
  if (g_process.tasks.fork_state != nullptr)
    g_pid.store(g_process.tasks.pid, std::memory_order_relaxed);  // as in ApiLock()
  g_owner.store(0, std::memory_order_relaxed);
  g_mutex.unlock();
}

}  // namespace ubp::runtime
