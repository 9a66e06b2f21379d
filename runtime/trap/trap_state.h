// What the trap path knows: of the process (process.h), of each task (task_state.h), of the application's handlers
// (handlers.h). And its entries.
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/trap/context.h"
#include "runtime/trap/handlers.h"
#include "runtime/trap/process.h"
#include "runtime/trap/task_state.h"

namespace ubp::trap {

extern thread_local constinit Thread t_thread __attribute__((tls_model("initial-exec")));
extern Thread g_nobody;  // of tasks without a state whose %fs leads elsewhere

extern Process g_process;
extern AppHandlers g_handlers;

// Whether ubp_signal_entry stands before the default of a signal too (death.h). Behind a filter of the program's own
// making death must not need a system call; but for a core dump the text is put back all the same.
[[gnu::always_inline]] inline bool is_guarded(std::uint64_t signal) {
  return dumps_core(signal) ||
         (terminates(signal) &&
          !__atomic_load_n(reinterpret_cast<const bool*>(&g_process.is_sandboxed), __ATOMIC_RELAXED));
}

extern "C" {
extern std::atomic<bool>
    ubp_moves_fs;  // the program sets %fs, or may: what it leads to is asked everywhere (trap_entry.S reads this)

// Assembly entry points and range labels (trap_entry.S).
void ubp_trap_entry();
void ubp_trap_entry_r15();
void ubp_trap_counted();
void ubp_trap_stored();
void ubp_trap_iret();
void ubp_trap_end();
void ubp_trap_restorer();
void ubp_trap_deliver(std::uint64_t, TaskState*);
void ubp_resume_restorer();
void ubp_resume_restorer_r15();
void ubp_resume_end();
void ubp_signal_entry();
void ubp_signal_entry_r15();
void ubp_signal_end();

// The runtime's own probepoint, and the function that passes it once.
void ubp_calibration_call();
extern const char ubp_calibration_point[];

// Gives the calling thread its state before it hits anything, and takes [stack_low, stack_high) for its stack, so that
// it makes no system call later (a seccomp filter may allow next to none). Load time.
void ubp_trap_adopt_main(std::uint64_t stack_low, std::uint64_t stack_high);

// Where the trap path's code lies.
void ubp_trap_text(std::uint64_t* low, std::uint64_t* high);

// Whether code with this stack pointer was called by a consumer.
bool ubp_trap_is_consuming(std::uint64_t rsp);

// Blocks or unblocks SIGTRAP for the application in this thread; one that was pending comes again when it is unblocked.
// Async-signal-safe: yes.
void ubp_trap_block(bool blocked);

// Gives a forked child slot pages of its own. Returns false when the kernel denies them (the next hit tries again).
// Async-signal-safe: yes. Idempotent.
bool ubp_trap_set_up_child();
}

static_assert(offsetof(Thread, faults) == UBP_THREAD_FAULTS);

inline constexpr std::uint64_t kRestorer = 0x04000000;  // SA_RESTORER

// What the kernel is told of a guarded signal whose disposition is the default.
[[gnu::always_inline]] inline KernelSigaction guard_action() {
  return {reinterpret_cast<std::uint64_t>(&ubp_signal_entry), SA_SIGINFO | SA_ONSTACK | kRestorer,
          reinterpret_cast<std::uint64_t>(&ubp_trap_restorer), 0};
}

}  // namespace ubp::trap
