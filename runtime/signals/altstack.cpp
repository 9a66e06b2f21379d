// sigaltstack(): the application's alternate stack is its own to set and read, while the kernel is told of UBP's once
// the thread has hit a probe (trap/frame.h).
//
// The pointers are the application's: the kernel is asked whether they are good.
//
// Context: any, handlers included. Source: sigaltstack(2), kernel/signal.c (do_sigaltstack).
#include <errno.h>
#include <signal.h>

#include "runtime/signals/real.h"
#include "runtime/trap/app_stack.h"
#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace {

constexpr int kAutodisarmFlag = static_cast<int>(1U << 31);  // SS_AUTODISARM

[[gnu::always_inline]] inline std::uint64_t stack_pointer() {
  return reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
}

bool is_on_app_stack() { return ubp::trap::is_on(ubp::trap::t_thread.app_stack, stack_pointer()); }

bool is_readable(const stack_t* stack) {
  const auto first = reinterpret_cast<std::uint64_t>(stack);
  return ubp::sys::is_readable(first) && ubp::sys::is_readable(first + sizeof *stack - 8);
}

}  // namespace

UBP_EXPORT int sigaltstack(const stack_t* wanted, stack_t* old) noexcept {
  const auto real = UBP_REAL(sigaltstack);
  stack_t kernel{};
  const bool is_virtual = ubp::signals::g_active.load(std::memory_order_acquire) &&  // pairs with take_over
                          real(nullptr, &kernel) == 0 &&
                          ubp::trap::g_process.tasks.is_own_stack(reinterpret_cast<std::uint64_t>(kernel.ss_sp));
  if (!is_virtual) return real(wanted, old);  // the first hit takes it over
  ubp::trap::AppStack& stack = ubp::trap::t_thread.app_stack;
  stack_t before{};
  before.ss_sp = reinterpret_cast<void*>(stack.base);
  before.ss_size = stack.size;
  before.ss_flags = stack.size == 0 ? SS_DISABLE : is_on_app_stack() ? SS_ONSTACK : 0;
  if (wanted != nullptr) {
    if (!is_readable(wanted)) {
      errno = EFAULT;
      return -1;
    }
    const stack_t copy = *wanted;
    int error = 0;
    if ((copy.ss_flags & kAutodisarmFlag) == 0) {
      const ubp::trap::AppStack asked{reinterpret_cast<std::uint64_t>(copy.ss_sp), copy.ss_size};
      error = ubp::trap::set_app_stack(stack, asked, copy.ss_flags, stack_pointer());
    } else if (is_on_app_stack()) {
      error = EPERM;
    } else {  // the kernel's bookkeeping is needed: its hits stay on that stack
      const int result = real(wanted, nullptr);
      ubp::trap::forget_faults(ubp::trap::t_thread);
      if (result != 0) return result;
      stack = {0, 0};
    }
    if (error != 0) {
      errno = error;
      return -1;
    }
  }
  if (old != nullptr) {
    if (real(nullptr, old) != 0) return -1;  // the kernel cannot write there, and says so after the change, as ever
    *old = before;
  }
  return 0;
}
