// The trap path: everything between an int3 and the displaced instruction, and the start of application handlers.
//
// Context: signal handlers in application threads. Rules, enforced by tests/checks/link_check: no libc, no allocation,
// no lock, no C++ runtime; every function in a section of its own range (trap_entry.S explains the ranges); r15 is
// left alone (-ffixed-r15); general registers only.
#include "runtime/trap/gate.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"
#include "xol/emulate.h"

#define UBP_RANGE(name) __attribute__((section(name), noinline, used))

namespace ubp::trap {

constinit Process g_process;
thread_local constinit bool t_in_runtime __attribute__((tls_model("initial-exec"))) = false;
constinit AppHandlers g_handlers;
thread_local constinit TaskState* t_state __attribute__((tls_model("initial-exec"))) = nullptr;

namespace {

inline constexpr std::uint64_t kRetry = 1;

// The thread gets no state: out of memory, or more tasks than blocks. The probepoint is taken out, so that the
// program goes on as if it had never been armed.
[[gnu::always_inline]] inline bool take_out(const xol::Displaced& point) {
  const char path[] = "/proc/self/mem";
  constexpr long kReadWriteCloexec = 02 | 02000000;
  const long fd = sys::call4(SYS_openat, -100, reinterpret_cast<long>(path), kReadWriteCloexec);
  if (sys::failed(fd)) return false;
  const long wrote = sys::call4(SYS_pwrite64, fd, reinterpret_cast<long>(&point.first_byte), 1,
                                static_cast<long>(point.address));
  sys::call4(SYS_close, fd);
  return wrote == 1;
}

[[gnu::always_inline]] inline std::uint32_t read_pkru() {
  std::uint32_t value, high;
  asm volatile("rdpkru" : "=a"(value), "=d"(high) : "c"(0));
  return value;
}

// Whether the thread may leave by XRSTOR and IRETQ instead of rt_sigreturn: only when rt_sigreturn would do nothing
// else. Source: arch/x86/kernel/signal_64.c, fpu/signal.c.
[[gnu::always_inline]] inline bool can_return_fast(const Context* uc) {
  constexpr std::uint64_t kTrapFlag = 0x100, kNestedTask = 0x4000, kAutodisarm = std::uint64_t{1} << 31;
  constexpr std::uint16_t kUserCode = 0x33, kUserStack = 0x2b;
  if (!g_process.fast_return || (uc->eflags & (kTrapFlag | kNestedTask)) != 0 || (uc->stack_flags & kAutodisarm) != 0) return false;
  if (uc->cs != kUserCode || uc->ss != kUserStack) return false;
  if (uc->fpstate == nullptr || fp_word(uc, 464) != kFpMagic1) return false;
  std::uint64_t shadow_stack = 0;
  asm volatile("rdsspq %0" : "+r"(shadow_stack));  // a nop that leaves 0 where there is none
  if (shadow_stack != 0) return false;
  if (g_process.pkru_offset != 0) {
    constexpr std::uint32_t kPkruBit = 1u << 9, kXstateBv = 512;
    const std::uint32_t saved = (fp_word(uc, kXstateBv) & kPkruBit) != 0 ? fp_word(uc, g_process.pkru_offset) : 0;
    if (saved != read_pkru()) return false;
  }
  return true;
}

[[gnu::always_inline]] inline xol::Registers registers_of(const Context* uc) {
  return {{&uc->rax, &uc->rcx, &uc->rdx, &uc->rbx, &uc->rsp, &uc->rbp, &uc->rsi, &uc->rdi, &uc->r8, &uc->r9, &uc->r10,
           &uc->r11, &uc->r12, &uc->r13, &uc->r14, &uc->r15},
          uc->eflags};
}

// The address of a slot that holds the probepoint's instruction, refilled if need be.
[[gnu::always_inline]] inline std::uint64_t slot_for(TaskState* task, std::uint32_t index, const xol::Displaced& point) {
  xol::SlotCache cache = g_process.cache(task, point.area);
  const xol::Area& area = g_process.areas[point.area];
  const std::uint64_t block = task->block * g_process.layout.block_bytes;
  std::uint32_t slot = cache.find(index);
  if (slot == xol::kNoSlot) {
    const xol::SlotCache::Claim claim = cache.claim(index);
    slot = claim.slot;
    const std::uint64_t offset = block + slot * xol::kSlotBytes;
    xol::write_slot(reinterpret_cast<std::uint8_t*>(area.rw + offset), xol::SlotAddress{area.rx + offset}, point);
    cache.publish(slot, index);
    ++task->misses;
    ++task->refills;
    task->evictions += claim.evicted ? 1 : 0;
  } else {
    ++task->slot_hits;
  }
  return area.rx + block + slot * xol::kSlotBytes;
}

// True when a frame's RIP may have to be translated: it lies in libubp or in slot memory.
[[gnu::always_inline]] inline bool is_in_ubp(std::uint64_t rip) {
  if (rip - g_process.text_low < g_process.text_high - g_process.text_low) return true;
  for (std::uint32_t area = 0; area < g_process.area_count; ++area) {
    if (rip - g_process.areas[area].rx < g_process.layout.area_bytes) return true;
    if (rip - g_process.permanent[area].base < g_process.permanent[area].bytes) return true;
  }
  return false;
}

[[gnu::always_inline]] inline void translate_blocked(Context* uc, siginfo_t* info) {
  constexpr long kSetMask = 2;
  const std::uint64_t all = ~std::uint64_t{0};
  std::uint64_t before;
  sys::call4(SYS_rt_sigprocmask, kSetMask, reinterpret_cast<long>(&all), reinterpret_cast<long>(&before), 8);
  translate(uc, info);
  sys::call4(SYS_rt_sigprocmask, kSetMask, reinterpret_cast<long>(&before), 0, 8);
}

}  // namespace

extern "C" {

// Range: uncounted. Returns the counter to increment, 0 when the trap is not a probepoint's, kRetry when the
// probepoint was taken out and the thread shall go on at its address.
UBP_RANGE("ubp_trap_a") std::uint64_t ubp_trap_decide(Context* uc) {
  const std::uint64_t origin = uc->rip - 1;
  const std::uint32_t index = g_process.table.find(origin);
  if (index == probes::kNotFound) return 0;
  TaskState* task = current_task(uc->rsp);
  if (task == nullptr) [[unlikely]] {
    if (!take_out(g_process.table.points[index])) return 0;
    g_process.taken_out->fetch_add(1, std::memory_order_relaxed);  // a statistic
    uc->rip = origin;
    return kRetry;
  }
  Continuation& next = continuation(uc);
  next.origin = origin;
  next.index = index;
  next.task = task;
  next.may_be_fast = 1;
  if (t_in_runtime) [[unlikely]] return reinterpret_cast<std::uint64_t>(&next.scratch);  // counted nowhere
  return reinterpret_cast<std::uint64_t>(task->counters + index);
}

// Range: pending. The hit is counted; finds where its displaced instruction is carried out.
UBP_RANGE("ubp_trap_b") void ubp_trap_displace(Context* uc) {
  Continuation& next = continuation(uc);
  const xol::Displaced& point = g_process.table.points[next.index];
  next.store_address = address_of(&next.scratch);
  next.rsp = uc->rsp;
  next.rcx = uc->rcx;
  next.emulated = 0;
  switch (point.route) {
    case decoder::Route::kEmulate: {
      const xol::Outcome outcome = xol::emulate(point, registers_of(uc));
      next.rip = outcome.rip;
      next.rsp = outcome.rsp;
      next.rcx = outcome.rcx;
      if (outcome.stores) {
        next.store_address = outcome.store_address;
        next.store_value = outcome.store_value;
      }
      next.emulated = 1;
      break;
    }
    case decoder::Route::kSystem:
      if (point.is_gate && pass_gate(uc, point)) {
        next.rip = point.next();
        next.rcx = uc->rcx;
        next.emulated = 1;
        next.may_be_fast = 0;  // all signals are blocked until rt_sigreturn sets the new mask
        break;
      }
      next.rip = g_process.permanent[point.area].base + point.system.permanent * xol::kSlotBytes;
      break;
    default: next.rip = slot_for(next.task, static_cast<std::uint32_t>(next.index), point); break;
  }
  next.fast = next.may_be_fast != 0 && can_return_fast(uc) ? 1 : 0;
}

// Range: resuming. An application handler has returned from a translated frame. 1: the context still stands before
// the probepoint, whose counted hit goes on; 0: the handler has moved it, and it is resumed as it is.
UBP_RANGE("ubp_trap_r") int ubp_trap_resume(Context* uc) {
  const std::uint64_t origin = uc->reserved[0];
  if (uc->rip != origin) return 0;
  const std::uint32_t index = g_process.table.find(origin);
  TaskState* task = current_task(uc->rsp);
  if (index == probes::kNotFound || task == nullptr) return 0;
  Continuation& next = continuation(uc);
  next.origin = origin;
  next.index = index;
  next.task = task;
  next.may_be_fast = 0;  // the handler ran with a mask of its own
  return 1;
}

// Range: entering. Shows the handler the original context; returns the handler, or 0 when it was removed meanwhile.
UBP_RANGE("ubp_signal_s") std::uint64_t ubp_signal_prepare(int signal, siginfo_t* info, Context* uc) {
  if (is_in_ubp(uc->rip)) [[unlikely]] translate_blocked(uc, info);
  const std::uint64_t handler = g_handlers.handler[signal].load(std::memory_order_acquire);  // pairs with sigaction
  return handler <= 1 ? 0 : handler;  // SIG_DFL, SIG_IGN
}

// Outside the ranges. A SIGTRAP that no probepoint caused: what the application's disposition makes of it. Returns
// its handler, or 0 when there is nothing to call and the thread shall go on.
UBP_RANGE("ubp_trap_f") std::uint64_t ubp_trap_foreign(siginfo_t* info, Context* uc) {
  if (is_in_ubp(uc->rip)) translate_blocked(uc, info);
  const std::uint64_t handler = g_handlers.handler[SIGTRAP].load(std::memory_order_acquire);  // pairs with sigaction
  if (handler > 1) return handler;
  const bool is_breakpoint = info->si_code == SI_KERNEL;
  if (handler == 1 && info->si_code <= 0) return 0;  // SIG_IGN stops kill(2), not a fault
  // The default: die of SIGTRAP where the kernel would have let it die.
  const KernelSigaction act{0, 0, 0, 0};
  sys::call4(SYS_rt_sigaction, SIGTRAP, reinterpret_cast<long>(&act), 0, 8);
  if (is_breakpoint) {
    const auto* before = reinterpret_cast<const std::uint8_t*>(uc->rip);
    uc->rip -= before[-1] == 0xcc ? 1 : 2;  // int3, or int $3
  } else {
    sys::call4(SYS_tkill, static_cast<long>(sys::gettid()), SIGTRAP);
  }
  return 0;
}

// Outside the ranges: called at load.
UBP_RANGE("ubp_trap_f") void ubp_trap_adopt_main(std::uint64_t stack_low, std::uint64_t stack_high) {
  TaskState* task = claim_state({sys::gettid(), true});
  if (task == nullptr) return;
  t_state = task;
  task->verified_low = stack_low;
  task->verified_bytes = stack_high - stack_low;
}

// Outside the ranges: called by the fork handler of a child, so that the child has its slot pages before it may
// forbid itself the system calls that make them.
UBP_RANGE("ubp_trap_f") bool ubp_trap_set_up_child() { return set_up_child(sys::gettid()); }

}  // extern "C"

}  // namespace ubp::trap
