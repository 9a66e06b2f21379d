// What sigaction means while the runtime stands before every handler: one definition for the interposed functions
// (signals/interpose.cpp) and for the system call made at a gate (gate.h).
//
// The application's handler is kept in g_handlers, and the kernel is given ubp_signal_entry instead, with the
// application's own flags and mask, less SIGTRAP. What the application reads back is what it has set. SIGTRAP's
// disposition is kept in g_handlers alone.
//
// The order of a change: begin_change(), the kernel's answer, then complete_change() or take_back(). What
// ubp_signal_prepare needs is noted before the kernel knows ubp_signal_entry, since the signal may come at once; the
// rest is noted once the kernel has agreed.
//
// Inline and free of libc: compiled into the trap path. Context: any. Async-signal-safe: yes. Source: sigaction(2).
#pragma once

#include <initializer_list>

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::trap {

// What g_handlers holds of one signal.
struct Noted {
  std::uint64_t handler = 0;  // a function, or 0 where it was SIG_DFL
  bool on_stack = false;      // SA_ONSTACK
  bool takes_info = false;    // SA_SIGINFO: the kernel is always asked for it
  bool masks_trap = false;    // its sa_mask held SIGTRAP
};

// One change of a disposition, or a look at it, under way.
struct DispositionChange {
  std::uint64_t signal = 0;
  bool is_kept = false;      // g_handlers is to keep what is set: not a vfork child's, nor of what is no signal
  bool is_noted = false;     // it does already
  Noted before;              // what it held
  KernelSigaction kernel{};  // what the kernel is to be told
};

[[gnu::always_inline]] inline std::uint64_t entry_address() {
  return reinterpret_cast<std::uint64_t>(&ubp_signal_entry);
}

// Whether a sa_handler is a function, and not SIG_DFL or SIG_IGN.
[[gnu::always_inline]] inline bool is_function(std::uint64_t handler) { return handler > 1; }

// What is to be noted of an action that the application asks for.
[[gnu::always_inline]] inline Noted notes_of(const KernelSigaction& act) {
  return {act.handler, (act.flags & SA_ONSTACK) != 0, (act.flags & SA_SIGINFO) != 0, (act.mask & kTrapBit) != 0};
}

// What g_handlers holds of a signal (1 to 64).
[[gnu::always_inline]] inline Noted noted(std::uint64_t signal) {
  return {g_handlers.handler[signal].load(std::memory_order_relaxed),  // shown, not called
          has_bit(g_handlers.on_stack, signal), has_bit(g_handlers.takes_info, signal),
          has_bit(g_handlers.masks_trap, signal)};
}

[[gnu::always_inline]] inline void note_flags(std::uint64_t signal, const Noted& notes) {
  set_bit(g_handlers.on_stack, signal, notes.on_stack);
  set_bit(g_handlers.takes_info, signal, notes.takes_info);
  set_bit(g_handlers.masks_trap, signal, notes.masks_trap);
}

[[gnu::always_inline]] inline void note(std::uint64_t signal, const Noted& notes) {
  note_flags(signal, notes);
  g_handlers.handler[signal].store(notes.handler, std::memory_order_release);  // pairs with ubp_signal_prepare
}

// An action with a handler of the application's, as the kernel is given it.
[[gnu::always_inline]] inline KernelSigaction behind_entry(KernelSigaction act) {
  act.handler = entry_address();
  act.flags |= SA_SIGINFO;
  act.mask &= ~kTrapBit;
  return act;
}

// SIGSEGV's or SIGBUS's disposition is about to change: loads may not fault (reads.h) until the kernel is seen to have
// ubp_signal_entry for both.
[[gnu::always_inline]] inline bool is_of_reads(std::uint64_t signal) { return signal == SIGSEGV || signal == SIGBUS; }
[[gnu::always_inline]] inline void begin_fault_change() {
  std::uint64_t word = g_handlers.faults.load(std::memory_order_relaxed);
  while (!g_handlers.faults.compare_exchange_weak(word, (word | 1) + 1, std::memory_order_relaxed)) {  // on its own
  }
}
[[gnu::always_inline]] inline void end_fault_change() {
  std::uint64_t word = g_handlers.faults.load(std::memory_order_relaxed);
  for (const long signal : {SIGSEGV, SIGBUS}) {
    KernelSigaction act{};
    const long result = sys::call4(SYS_rt_sigaction, signal, 0, reinterpret_cast<long>(&act), 8);
    if (sys::failed(result) || act.handler != entry_address() || (act.flags & SA_RESETHAND) != 0) return;
  }
  // Unless another change has begun meanwhile, which ends like this one.
  g_handlers.faults.compare_exchange_strong(word, word | 1, std::memory_order_relaxed);
}

// Begins a change of a signal's disposition (not SIGTRAP's). act: what is asked for; null: only a look. is_member: the
// caller is no vfork child, which has dispositions of its own but shares g_handlers with its parent.
[[gnu::always_inline]] inline DispositionChange begin_change(std::uint64_t signal, const KernelSigaction* act,
                                                             bool is_member) {
  DispositionChange change;
  const bool is_signal = signal >= 1 && signal <= 64;
  change.signal = signal;
  change.is_kept = is_signal && is_member;
  if (is_signal) change.before = noted(signal);
  if (act == nullptr) return change;
  if (change.is_kept && is_of_reads(signal)) begin_fault_change();
  change.kernel = *act;
  change.kernel.mask &= ~kTrapBit;
  if (!change.is_kept || !is_function(act->handler) || act->handler == entry_address()) return change;
  change.kernel = behind_entry(*act);
  note(signal, notes_of(*act));
  change.is_noted = true;
  return change;
}

// The kernel has not made the change.
[[gnu::always_inline]] inline void take_back(const DispositionChange& change) {
  if (change.is_noted) note(change.signal, change.before);
  if (change.is_kept && is_of_reads(change.signal)) end_fault_change();
}

// The kernel has made the change. act: as in begin_change(). old: what the kernel had, to become what the application
// had set; may be null.
[[gnu::always_inline]] inline void complete_change(const DispositionChange& change, const KernelSigaction* act,
                                                   KernelSigaction* old) {
  if (act != nullptr && change.is_kept && !change.is_noted) note_flags(change.signal, notes_of(*act));
  if (act != nullptr && change.is_kept && is_of_reads(change.signal)) end_fault_change();
  if (old == nullptr) return;
  const bool was_entry = old->handler == entry_address();
  if (was_entry) {
    old->handler = change.before.handler;
    if (change.before.handler == 0) old->flags = 0;  // the guard's (death.h)
    if (!change.before.takes_info) old->flags &= ~std::uint64_t{SA_SIGINFO};
  }
  if (change.before.masks_trap && (was_entry || change.is_kept)) old->mask |= kTrapBit;
}

// SIGTRAP's disposition as the application has set it; the restorer is not kept. is_cleared: a vfork child asks whose
// handlers were reset when it was made.
[[gnu::always_inline]] inline KernelSigaction trap_disposition(bool is_cleared) {
  constexpr auto kOrder = std::memory_order_relaxed;  // shown, not called
  const std::uint64_t handler = g_handlers.handler[SIGTRAP].load(kOrder);
  if (is_cleared) return {is_function(handler) ? 0 : handler, 0, 0, 0};  // what is ignored stays so
  return {handler, g_handlers.trap_flags.load(kOrder), 0, g_handlers.trap_mask.load(kOrder)};
}
[[gnu::always_inline]] inline void set_trap_disposition(const KernelSigaction& act) {
  constexpr auto kOrder = std::memory_order_relaxed;  // for the handler, which is stored last
  g_handlers.trap_flags.store(act.flags, kOrder);
  g_handlers.trap_mask.store(act.mask, kOrder);
  g_handlers.handler[SIGTRAP].store(act.handler, std::memory_order_release);  // pairs with ubp_trap_foreign
}

}  // namespace ubp::trap
