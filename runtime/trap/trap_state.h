// What the trap path knows: one process-wide structure, and one state per task that has hit a probe.
//
// Written by the core at load (before the first int3 is armed) and by the trap path itself. Plain data.
#pragma once

#include <signal.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/table/detour_save.h"
#include "runtime/table/detour_view.h"
#include "runtime/table/table_view.h"
#include "runtime/trap/layout.h"
#include "xol/area.h"
#include "xol/shared_slots.h"
#include "xol/slot_cache.h"

namespace ubp::trap {

// Where the 16 general registers stand in a Context, by the hardware's numbers: in words from r8 on.
inline constexpr std::uint8_t kRegisterWords[16] = {13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7};

// The kernel's ucontext, as the signal frame holds it (uapi/asm/ucontext.h; glibc's ucontext_t begins alike).
struct Context {
  std::uint64_t flags;
  std::uint64_t link;
  std::uint64_t stack_base, stack_flags, stack_size;
  std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  std::uint16_t cs, gs, fs, ss;
  std::uint64_t err, trapno, oldmask, cr2;
  std::uint8_t* fpstate;
  std::uint64_t reserved[8];  // ignored by rt_sigreturn, and not what they were at the start. Of a handler's frame
                              // (translate.h): [0]: the probepoint whose hit goes on; 0: none does; [1]: Consumed; [2]:
                              // note_mask() has been here; [3]: the stack pointer of that hit
  std::uint64_t mask;

  // A general register by its number (0 rax, 1 rcx, ... 15 r15).
  [[gnu::always_inline]] inline std::uint64_t& general(unsigned number) { return (&r8)[kRegisterWords[number]]; }
  siginfo_t* info() { return reinterpret_cast<siginfo_t*>(reinterpret_cast<std::uint8_t*>(this) + UBP_UC_SIGINFO); }
  std::uint64_t& return_address() { return *(reinterpret_cast<std::uint64_t*>(this) - 1); }
};
static_assert(offsetof(Context, rdi) == offsetof(Context, r8) + 8 * 8 &&
              offsetof(Context, rsp) == offsetof(Context, r8) + 15 * 8);
static_assert(offsetof(Context, rax) == offsetof(Context, r8) + 13 * 8 &&
              offsetof(Context, rbx) == offsetof(Context, r8) + 11 * 8);
static_assert(offsetof(Context, r8) == UBP_UC_R8 && offsetof(Context, r15) == UBP_UC_R15);
static_assert(offsetof(Context, rcx) == UBP_UC_RCX && offsetof(Context, rip) == UBP_UC_RIP);
static_assert(offsetof(Context, cs) == UBP_UC_CS && offsetof(Context, ss) == UBP_UC_SS);
static_assert(offsetof(Context, fpstate) == UBP_UC_FPSTATE);
static_assert(offsetof(Context, reserved) == UBP_UC_RESERVED && offsetof(Context, mask) == UBP_UC_MASK);
static_assert(sizeof(Context) == UBP_UC_SIGINFO);

struct TaskState;

// What a detour has spilled.
struct Spilled {
  std::uint64_t rcx, rax, rdx;
};

// The alternate stack that this thread's sigaltstack() set and reads back; size 0: none.
struct AppStack {
  std::uint64_t base, size;
};
[[gnu::always_inline]] inline bool is_on(const AppStack& stack, std::uint64_t rsp) {
  return stack.size != 0 && rsp > stack.base && rsp - stack.base <= stack.size;  // as the kernel's on_sig_stack
}
// The thread's SIGTRAP as the application set it: the mask bit, and one that arrived while it was blocked.
struct AppTrap {
  bool is_blocked;  // the first: trap_entry.S
  bool is_pending;
  bool in_wrapper;              // libc's sigaction is called by the interposed one, which translates the answer itself
  bool guest_is_blocked;        // the mask bit of a vfork child that runs on this TLS,
  std::uint32_t guest;          // whose tid this is
  std::uint32_t cleared_guest;  // the tid of one whose handlers clone3 has reset (CLONE_CLEAR_SIGHAND)
  siginfo_t info;
};

// A clone3 under way whose arguments the gate has changed (clone.h). What the kernel is given comes first: rdi points
// to it.
inline constexpr std::uint64_t kMostCloneWords = 16;  // struct clone_args has 11; newer kernels may add some
struct Cloning {
  std::uint64_t args[kMostCloneWords];
  std::uint64_t rdi;             // the application's pointer
  std::uint64_t mask;            // the thread's signal mask
  std::uint64_t cleared_before;  // AppTrap::cleared_guest
  std::uint64_t rest;            // how many there are from this one on; 0: it is free
};
inline constexpr std::uint64_t kMostClonings = 4;  // one within another: what a vfork child starts, on its parent's TLS

// What is kept for a thread, in its TLS (t_thread), or in its state where it has none of libc's (tls.h).
struct Thread {
  AppTrap app_trap;    // the first: trap_entry.S
  std::uint64_t mark;  // kThreadMark wherever libc has made this TLS
  TaskState* state;    // the thread's, or one that counts nothing: detours read it as it is
  Spilled spilled;
  AppStack app_stack;
  bool is_away;     // detours of this thread are not to count (segment.h)
  bool in_runtime;  // it runs libubp's own code at load and exit: what that calls is no hit of the application's
  Cloning clonings[kMostClonings];
};
inline constexpr std::uint64_t kThreadMark = 0x534c545f50425521;

// What a task counts at each probepoint, and for each probe that has an action: of a probepoint, hits = trapped +
// jumped + missed; of an action, hits = performed + missed, and performed = recorded + filtered + dropped.
enum class Counter : std::uint8_t {
  kTrapped,               // by its int3
  kPerformed = kTrapped,  // of an action
  kMissed,                // made by what ran at a hit of the same task
  kJumped,                // by its detour
  kFiltered,              // its filter said no
  kDropped,               // there was no room for what it recorded
};
inline constexpr std::uint64_t kCounterNames = 5;

// One task: a thread, or a process made by clone(CLONE_VM) that shares its parent's TLS. Lives in memory that a
// forked child finds wiped (MADV_WIPEONFORK), so that a child never takes itself for its parent.
struct TaskState {
  std::atomic<std::uint32_t> tid;  // owner; 0: never used
  std::uint32_t block;             // its block in every XOL area
  // Stack addresses at which this state's owner has been verified with gettid: a hit whose RSP lies in
  // [verified_low, verified_low + verified_bytes) skips the call. Small and contiguous, so that a task which borrows
  // this task's TLS (clone(CLONE_VM) without CLONE_SETTLS) and runs on another stack is told apart.
  std::uint64_t verified_low, verified_bytes;
  std::uint64_t* counters;  // by Counter, then by probepoint, and by probe that has an action
  std::uint64_t* jumped;    // of them, Counter::kJumped's
  // Where detours count: jumped. 0: they leave the hit to the breakpoint tier, because the task has none yet (also a
  // forked child's, whose states are wiped), is inside the runtime, or shares its TLS.
  std::uint64_t* fast;
  std::uint64_t stack_tries;  // to put its signal frames on UBP's stack (frame.h)
  std::uint64_t slot_hits, misses, refills, evictions;
  std::atomic<std::uint64_t> held;  // policy steal: the pool's slot that the task may be in, area << 32 | slot, plus 1
  std::uint64_t turn;               // policy steal: where it looks for a slot next
  std::atomic<std::uint64_t> consumer;  // not 0 while the task runs consumers (consume.h)
  std::uint64_t consumer_frame;         // the ucontext of the hit whose consumers it runs, unless a detour does
  std::uint64_t has_deferred;           // a signal arrived meanwhile: `deferred`; 0 at other times
  std::uint64_t consumer_stack;         // where detours run consumers: below its DetourSave
  std::uint64_t ring, ring_head, ring_tail, ring_limit;  // what it records (record/rings.h); 0: it has not yet
  std::uint64_t own_traps;  // of libubp's own code, at probepoints in libc: no hits, but they cost as much
  // A hit whose consumers have run, when a handler sent the thread elsewhere before its instruction: if it comes back,
  // it is the same hit. 0: there is none.
  std::uint64_t moved_origin, moved_rsp;
  siginfo_t deferred;
  Thread* storage;             // the task's, in libc's storage; null: it has come with another
  Thread own;                  // and then this is (tls.h)
  std::uint64_t signal_stack;  // where the kernel puts its signal frames, as it was seen last (task.h); 0: not known
  // Then, per area: geometry.slots tags and geometry.sets hands (see caches()).
};

inline constexpr std::uint64_t kDelivering = 2;  // TaskState::has_deferred, while its handler is prepared

// Fork generations: the word lives in wiped memory, so zero means "a forked child that has not set itself up".
// Otherwise kReady, or the tid of the task that is setting up, shifted left by one.
inline constexpr std::uint32_t kReady = 1;

// Raw kernel sigaction (uapi/asm/signal.h).
struct KernelSigaction {
  std::uint64_t handler, flags, restorer, mask;
};

// Verdicts on SIGTRAP the application asked for, and every other handler of its.
struct AppHandlers {
  std::atomic<std::uint64_t> handler[65];  // what ubp_signal_entry calls; SIGTRAP's is its virtual disposition
  std::atomic<std::uint64_t> masks_trap;   // bit (signal - 1): the application's sa_mask held SIGTRAP
  std::atomic<std::uint64_t> on_stack;     // the same: the application asked for SA_ONSTACK
  std::atomic<std::uint64_t> takes_info;   // the same: for SA_SIGINFO
  std::atomic<std::uint64_t> trap_flags, trap_mask;  // SIGTRAP's virtual sa_flags and sa_mask
};

// The signals whose default is a core dump, and those that end the process without one; SIGTRAP is neither here, nor
// the two that libc uses within itself.
[[gnu::always_inline]] inline bool dumps_core(std::uint64_t signal) {
  constexpr std::uint64_t kCore = (1u << (SIGQUIT - 1)) | (1u << (SIGILL - 1)) | (1u << (SIGABRT - 1)) |
                                  (1u << (SIGBUS - 1)) | (1u << (SIGFPE - 1)) | (1u << (SIGSEGV - 1)) |
                                  (1u << (SIGSYS - 1)) | (1u << (SIGXCPU - 1)) | (1u << (SIGXFSZ - 1));
  return signal >= 1 && signal <= 64 && (kCore >> (signal - 1) & 1) != 0;
}
[[gnu::always_inline]] inline bool terminates(std::uint64_t signal) {
  constexpr std::uint64_t kLater = ~std::uint64_t{0} << 33;  // the real-time ones that programs may use
  constexpr std::uint64_t kEnds = (1u << (SIGHUP - 1)) | (1u << (SIGINT - 1)) | (1u << (SIGUSR1 - 1)) |
                                  (1u << (SIGUSR2 - 1)) | (1u << (SIGPIPE - 1)) | (1u << (SIGALRM - 1)) |
                                  (1u << (SIGTERM - 1)) | (1u << (SIGSTKFLT - 1)) | (1u << (SIGVTALRM - 1)) |
                                  (1u << (SIGPROF - 1)) | (1u << (SIGIO - 1)) | (1u << (SIGPWR - 1)) | kLater;
  return signal >= 1 && signal <= 64 && (kEnds >> (signal - 1) & 1) != 0;
}
[[gnu::always_inline]] inline bool ends_process(std::uint64_t signal) {
  return dumps_core(signal) || terminates(signal);
}

// What an instruction may raise, SIGTRAP included: never blocked by the runtime, since the kernel kills then.
inline constexpr std::uint64_t kSynchronousSignals = (1u << (SIGTRAP - 1)) | (1u << (SIGSEGV - 1)) |
                                                     (1u << (SIGBUS - 1)) | (1u << (SIGFPE - 1)) |
                                                     (1u << (SIGILL - 1)) | (1u << (SIGSYS - 1));

// What the trap path blocks where no handler may come between. A system call filter of the program's may raise SIGSYS
// for a call of its own (refused_call, signal_path.cpp), and the kernel kills where that is blocked.
inline constexpr std::uint64_t kAllSignals = ~(std::uint64_t{1} << (SIGSYS - 1));

inline constexpr std::uint64_t kTrapBit = std::uint64_t{1} << (SIGTRAP - 1);

// libc's SIGSETXID: whoever changes the process's user or group waits until every thread has handled it.
inline constexpr std::uint64_t kSetxid = 33;
// What the runtime may hold back for a while.
inline constexpr std::uint64_t kHoldable = ~kSynchronousSignals & ~(std::uint64_t{1} << (kSetxid - 1));

// Remembers, or forgets, one bit of what the application asked of a signal.
[[gnu::always_inline]] inline void set_bit(std::atomic<std::uint64_t>& bits, std::uint64_t signal, bool value) {
  const std::uint64_t bit = std::uint64_t{1} << (signal - 1);
  if (value) {
    bits.fetch_or(bit, std::memory_order_relaxed);  // on its own: read by handlers that the kernel starts later
  } else {
    bits.fetch_and(~bit, std::memory_order_relaxed);  // as above
  }
}
[[gnu::always_inline]] inline bool has_bit(const std::atomic<std::uint64_t>& bits, std::uint64_t signal) {
  return (bits.load(std::memory_order_relaxed) >> (signal - 1) & 1) != 0;  // as above
}

struct PermanentSlots {
  std::uint64_t base = 0;   // RX pages, each written once before it is executable; kSlotBytes a slot
  std::uint64_t bytes = 0;  // reserved
  std::uint64_t used = 0;   // of them written, in whole pages
};

inline constexpr std::uint32_t kHeatEntries = 65536;

struct Process {
  runtime::TableView table;
  xol::CacheGeometry geometry;
  xol::AreaLayout layout;
  xol::Area areas[xol::kMaxAreas];
  xol::Policy policy = xol::Policy::kThread;
  xol::SharedSlots shared[xol::kMaxAreas];
  std::uint8_t* heat = nullptr;  // policy adaptive: refills by probepoint modulo kHeatEntries, roughly
  std::uint32_t area_count = 0;
  PermanentSlots permanent[xol::kMaxAreas];  // one group per area

  std::uint8_t* states = nullptr;  // layout.blocks x state_bytes
  std::uint64_t state_bytes = 0;
  std::uint8_t* counters = nullptr;  // layout.blocks x counter_bytes
  std::uint64_t counter_bytes = 0;
  std::uint64_t counted = 0;  // probepoints and actions: counters of each name in a task
  runtime::DetourView detours;
  void (*run_consumers)(Context*, TaskState*, std::uint32_t point,
                        bool missed) = nullptr;  // consumers/run_consumers.cpp
  std::uint64_t stacks = 0;                      // layout.blocks x own_stack_bytes
  std::uint64_t own_stack_bytes = 0;  // UBP's own signal stack of one task; its lowest page stays inaccessible
  std::uint64_t rings = 0;            // layout.blocks x record::kRingBytes; 0: no probe ever recorded
  std::atomic<std::uint32_t>* fork_state = nullptr;
  std::atomic<std::uint32_t>* high_water = nullptr;  // blocks ever claimed
  std::atomic<std::uint32_t>* threads_seen = nullptr;
  std::uint32_t pid = 0;                            // of the process that these states belong to
  std::atomic<bool> shares_tls{false};              // some task runs on another's TLS: never trust it without asking
  std::atomic<std::uint64_t>* taken_out = nullptr;  // hits of tasks without a state: counted nowhere else
  std::uint32_t own_points = 0;                     // the first ones in the table: the runtime's

  std::uint64_t text_low = 0, text_high = 0;  // of the trap path's code
  std::uint32_t pkru_offset = 0;              // of PKRU in the XSAVE image; 0: the system has no protection keys
  std::uint64_t on_modules_changed = 0;       // function called in place of the dynamic linker's r_brk; 0: none
  bool counts_by_segment = false;             // detours may count in one instruction (segment.h: by atomic accesses)
  std::atomic<std::uint32_t> uncounted_tasks{
      0};                            // for which there were no counters: what they hit by such detours is lost
  bool has_fsgsbase = false;         // %gs can be set without a system call
  std::uint64_t segment_unread = 0;  // counter_bytes below 2 GiB that nobody reads; 0: never made
  void (*on_exit)(int status) =
      nullptr;  // preload/entry.cpp: called in place of an exit_group outside libc; null: no report is to be made
  std::uint64_t loading_tls = 0;  // the TLS of the thread that has loaded libubp
  void (*leave_segment)() =
      nullptr;  // called before a task sets its %gs, or forbids itself to; null: nothing was armed
  void (*before_sharing_tls)() =
      nullptr;  // called when a task is about to be made on its maker's TLS, or one of its own making
  void (*promote)(std::uint32_t point) = nullptr;  // api/lifecycle.cpp: a probepoint is hot; null: none is promoted
  bool (*report_death)() =
      nullptr;  // preload/exit_report.cpp: a signal ends the process; returns whether the text is as it was
  void (*before_exec)(const char* path) =
      nullptr;  // preload/entry.cpp: a program is about to be executed; null: nobody asks. May be null itself
  std::atomic<bool> is_sandboxed{
      false};                 // it has a system call filter of its own making: nothing new is asked of the kernel
  bool keeps_stacks = false;  // the process has Go code: frame.h
  bool has_gate = false;      // libc's own rt_sigprocmask and rt_sigaction pass gate.h
  bool fast_return = false;   // user-mode return is possible at all

  // How many blocks were ever claimed.
  [[gnu::always_inline]] std::uint32_t used_blocks() const {
    if (high_water == nullptr) return 0;
    const std::uint32_t used = high_water->load(std::memory_order_acquire);  // pairs with claims
    return used < layout.blocks ? used : layout.blocks;
  }
  // Where a name's counters begin among a task's.
  [[gnu::always_inline]] std::uint64_t offset_of(Counter name) const {
    return static_cast<std::uint64_t>(name) * counted;
  }
  std::uint64_t* counters_of(std::uint32_t block) const {
    return reinterpret_cast<std::uint64_t*>(counters + block * counter_bytes);
  }
  TaskState* state(std::uint32_t block) const { return reinterpret_cast<TaskState*>(states + block * state_bytes); }
  // The lowest address of a task's own stack, as the kernel is told.
  [[gnu::always_inline]] std::uint64_t stack_of(std::uint32_t block) const {
    return stacks + block * own_stack_bytes + xol::kPageBytes;
  }
  // The end of what signal frames and consumers may use of it; there the task's DetourSave begins.
  [[gnu::always_inline]] std::uint64_t stack_end(std::uint32_t block) const {
    return stack_of(block) + own_stack_bytes - xol::kPageBytes - runtime::kDetourSaveBytes + runtime::kDetourSaveSkew;
  }
  [[gnu::always_inline]] bool is_own_stack(std::uint64_t address) const {
    return address - stacks < layout.blocks * own_stack_bytes;
  }
  // The task's cache of one area.
  [[gnu::always_inline]] inline xol::SlotCache cache(TaskState* task, std::uint32_t area) const {
    const std::uint64_t per_area = geometry.slots * sizeof(xol::SlotCache::Tag) + geometry.sets;
    std::uint8_t* at = reinterpret_cast<std::uint8_t*>(task + 1) + area * ((per_area + 7) & ~std::uint64_t{7});
    return {reinterpret_cast<xol::SlotCache::Tag*>(at), at + geometry.slots * sizeof(xol::SlotCache::Tag), geometry};
  }
};

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

inline constexpr std::uint64_t kRestorer = 0x04000000;  // SA_RESTORER

// What the kernel is told of a guarded signal whose disposition is the default.
[[gnu::always_inline]] inline KernelSigaction guard_action() {
  return {reinterpret_cast<std::uint64_t>(&ubp_signal_entry), SA_SIGINFO | SA_ONSTACK | kRestorer,
          reinterpret_cast<std::uint64_t>(&ubp_trap_restorer), 0};
}

}  // namespace ubp::trap
