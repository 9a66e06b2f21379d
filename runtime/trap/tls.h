// What the runtime keeps for the running thread, wherever %fs leads. A program may set that to anything, by arch_prctl,
// wrfsbase, or a clone of its own (Go's runtime has no use for libc's storage): nothing is read or written there before
// it is seen to be libc's.
//
// A task that has left libc's storage is found among the states by its number, which it cannot move; what is kept for
// it is where it was, or, if that is gone or never was, in its state. Its consumers are C functions, which need libc's
// storage: they do not run. Detours cannot look where %fs leads: a program that is seen to set it has none
// (leave_storage()).
//
// Inline and free of libc: compiled into the trap path. Context: any. Async-signal-safe: yes.
// Source: psABI 3.4.2 (thread-local storage); arch_prctl(2); SDM volume 2, RDFSBASE.
#pragma once

#include "runtime/trap/trap_state.h"
#include "xol/sys.h"

namespace ubp::trap {

inline constexpr long kSetFs = 0x1002, kGetFs = 0x1003;  // asm/prctl.h: ARCH_SET_FS, ARCH_GET_FS

[[gnu::always_inline]] inline std::uint64_t fs_base() {
  std::uint64_t base = 0;
  if (g_process.processor.has_fsgsbase) {
    asm volatile("rdfsbase %0" : "=r"(base));
  } else {
    sys::call4(SYS_arch_prctl, kGetFs, reinterpret_cast<long>(&base));
  }
  return base;
}
[[gnu::always_inline]] inline void set_fs_base(std::uint64_t base) {
  sys::call4(SYS_arch_prctl, kSetFs, static_cast<long>(base));
}

// Where t_thread lies from %fs.
[[gnu::always_inline]] inline std::uint64_t thread_offset() {
  std::uint64_t offset;
  asm("movq _ZN3ubp4trap8t_threadE@gottpoff(%%rip), %0" : "=r"(offset));
  return offset;
}

[[gnu::always_inline]] inline bool is_marked(const Thread* thread) {
  return sys::is_readable(reinterpret_cast<std::uint64_t>(&thread->mark)) && thread->mark == kThreadMark;
}

// Where %fs has been seen to lead to libc's storage: to look there takes a system call.
inline constexpr std::uint64_t kKnownBases = 4096;
extern std::uint64_t g_known_bases[kKnownBases];

// What is kept in libc's storage of the running thread; nullptr: %fs leads elsewhere.
[[gnu::always_inline]] inline Thread* thread_in_storage() {
  // Without FSGSBASE the kernel would have to be asked at each hit.
  if (!g_process.processor.has_fsgsbase && !sys::is_set(ubp_moves_fs)) return &t_thread;
  const std::uint64_t base = fs_base();
  auto* const thread = reinterpret_cast<Thread*>(base + thread_offset());
  std::uint64_t& known = g_known_bases[(base >> 12) % kKnownBases];
  if (base != 0 && __atomic_load_n(&known, __ATOMIC_RELAXED) == base) [[likely]] {  // on its own, as below
    return thread->mark == kThreadMark ? thread : nullptr;
  }
  if (!is_marked(thread)) return nullptr;
  __atomic_store_n(&known, base, __ATOMIC_RELAXED);  // as above
  return thread;
}

// Who runs here. A member is a thread of the process that was loaded (or forked); a guest is another process that
// shares its memory: a vfork child, or what clone(CLONE_VM) without CLONE_THREAD made.
struct Identity {
  std::uint32_t key;  // names the task among the states: its tid; guests are marked, since tids of another
                      // pid namespace may be those of members
  bool is_member;
  bool may_ask;  // after other tasks by their numbers
};
inline constexpr std::uint32_t kGuest = 0x80000000, kOtherNamespace = 0x40000000;

[[gnu::always_inline]] inline Identity identify(std::uint32_t tid) {
  if (sys::is_process(g_process.tasks.pid)) return {tid, true, true};
  // The parent of a task in a new pid namespace has no number there; and one that is made there has another parent, or
  // process 1.
  const long parent = sys::call4(SYS_getppid, 0);
  const bool is_here = parent == static_cast<long>(g_process.tasks.pid) && parent != 1;
  return {tid | kGuest | (parent == 0 ? kOtherNamespace : 0), false, is_here};
}

// The state whose owner has this key; nullptr: none has.
[[gnu::always_inline]] inline TaskState* find_state(std::uint32_t key, std::uint32_t used) {
  for (std::uint32_t block = 0; block < used; ++block) {
    // Relaxed: only the task itself ever stores its own key, so it sees its own claim.
    if (g_process.tasks.state(block)->tid.load(std::memory_order_relaxed) == key) return g_process.tasks.state(block);
  }
  return nullptr;
}

// The task's storage of libc's, if it has not gone with an earlier owner of the state.
[[gnu::always_inline]] inline Thread* storage_of(const TaskState* task) {
  Thread* const thread = task->storage;
  return thread != nullptr && is_marked(thread) && thread->state == task ? thread : nullptr;
}

// The running task's state, where %fs leads elsewhere; nullptr: it has none.
[[gnu::always_inline]] inline TaskState* state_elsewhere() {
  if (g_process.tasks.high_water == nullptr) return nullptr;
  return find_state(identify(sys::gettid()).key, g_process.tasks.used_blocks());
}

// What is kept for the running thread. g_nobody: nothing is, and what is written there is lost.
[[gnu::always_inline]] inline Thread& this_thread() {
  if (Thread* const thread = thread_in_storage()) [[likely]]
    return *thread;
  TaskState* const task = state_elsewhere();
  if (task == nullptr) return g_nobody;
  Thread* const storage = storage_of(task);
  return storage != nullptr ? *storage : task->own;
}

// Gives the thread libc's storage for a while: its own, or else that of the thread that has loaded libubp, where that
// may do.
class Storage {
 public:
  [[gnu::always_inline]] explicit Storage(bool may_borrow) {
    if (thread_in_storage() != nullptr) return;
    const TaskState* const task = state_elsewhere();
    const Thread* const own = task != nullptr ? storage_of(task) : nullptr;
    const std::uint64_t base = own != nullptr ? reinterpret_cast<std::uint64_t>(own) - thread_offset()
                               : may_borrow   ? g_process.tasks.loading_tls
                                              : 0;
    is_there_ = base != 0;
    if (!is_there_) return;
    was_ = fs_base();
    is_changed_ = true;
    set_fs_base(base);
  }
  [[gnu::always_inline]] ~Storage() {
    if (is_changed_) set_fs_base(was_);
  }
  [[gnu::always_inline]] bool is_there() const { return is_there_; }
  [[gnu::always_inline]] void keep() { is_changed_ = false; }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

 private:
  std::uint64_t was_ = 0;
  bool is_there_ = true, is_changed_ = false;
};

// %fs is about to be set by the program: from now on no detour is to use what it leads to.
[[gnu::always_inline]] inline void leave_storage() {
  if (thread_in_storage() == nullptr) return;  // it has before
  if (__atomic_exchange_n(reinterpret_cast<bool*>(&ubp_moves_fs), true, __ATOMIC_ACQ_REL))
    return;  // pairs with Machine::start
  if (g_process.upcalls.before_sharing_tls != nullptr) g_process.upcalls.before_sharing_tls();
}

// Whether this is a vfork child whose handlers clone3 has reset (clone.h): it shares g_handlers with its parent.
[[gnu::always_inline]] inline bool is_cleared_guest() {
  const std::uint32_t guest = this_thread().app_trap.cleared_guest;
  return guest != 0 && !sys::is_process(g_process.tasks.pid) && guest == sys::gettid();
}

}  // namespace ubp::trap
