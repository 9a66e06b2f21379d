// The application's alternate stack, as the kernel would let it be set.
//
// Inline and free of libc: compiled into the trap path. Source: kernel/signal.c (do_sigaltstack).
#pragma once

#include "runtime/trap/task_state.h"

namespace ubp::trap {

// flags: less SS_AUTODISARM. rsp: where the thread is. Returns 0, or the errno.
[[gnu::always_inline]] inline int set_app_stack(AppStack& stack, const AppStack& wanted, int flags, std::uint64_t rsp) {
  constexpr std::uint64_t kLeastBytes = 2048;                    // MINSIGSTKSZ
  constexpr int kDenied = 1, kNoSuchFlags = 22, kTooSmall = 12;  // EPERM, EINVAL, ENOMEM
  const bool is_disabled = flags == SS_DISABLE;
  if (is_on(stack, rsp)) return kDenied;
  if (!is_disabled && flags != 0 && flags != SS_ONSTACK) return kNoSuchFlags;
  if (!is_disabled && wanted.size < kLeastBytes) return kTooSmall;
  stack = is_disabled ? AppStack{0, 0} : wanted;
  return 0;
}

}  // namespace ubp::trap
