// What an application handler is shown when it interrupted UBP: the context as it would be without UBP.
//
// Invariant 1: no suspended context ever points into an evictable slot, and none is ever resumed inside the trap path.
// translate() is pure but for the frame it rewrites. RIP is written last:
// whoever interrupts a translation and repeats it gets the same result.
//
// Inline and free of libc: compiled into the trap path (the entering range).
#pragma once

#include "runtime/trap/frame.h"
#include "runtime/trap/hit.h"
#include "runtime/trap/reads.h"

namespace ubp::trap {

// Whether the signal comes from the instruction at RIP, which repeats it.
[[gnu::always_inline]] inline bool is_fault(const siginfo_t* info) {
  constexpr std::uint64_t kFaults =
      (1u << (SIGSEGV - 1)) | (1u << (SIGBUS - 1)) | (1u << (SIGFPE - 1)) | (1u << (SIGILL - 1));
  return info->si_code > 0 && (kFaults >> (info->si_signo - 1) & 1) != 0;
}

// Gives a signal back to the kernel, for this thread. Of one that the kernel's queue has no room for any more, what it
// carries is lost, and nothing else.
[[gnu::always_inline]] inline void send_again(const siginfo_t& info) {
  constexpr long kTryAgain = -11;  // -EAGAIN: a real-time signal, and RLIMIT_SIGPENDING
  const auto send = [](const siginfo_t& sent) __attribute__((always_inline)) {
    return sys::call4(SYS_rt_tgsigqueueinfo, sys::getpid(), sys::gettid(), sent.si_signo,
                      reinterpret_cast<long>(&sent));
  };
  if (send(info) != kTryAgain) return;
  siginfo_t bare;
  copy_bytes(&bare, &info, sizeof bare);
  bare.si_code = SI_USER;  // of which the kernel notes that it is pending, where it can note no more
  send(bare);
}

[[gnu::always_inline]] inline bool has_shadow_stack() {
  std::uint64_t shadow_stack = 0;
  asm volatile("rdsspq %0" : "+r"(shadow_stack));  // a nop that leaves 0 where there is none
  return shadow_stack != 0;
}

// Gives `to` (the frame of the handler about to run) the registers, vector state and mask of `from`, all but RIP.
[[gnu::always_inline]] inline void copy_context(Context* to, const Context* from) {
  const std::uint64_t* source = &from->r8;
  std::uint64_t* target = &to->r8;
  for (int word = 0; word < 16; ++word) target[word] = source[word];  // r8 .. rsp, in the kernel's order
  to->eflags = from->eflags;
  to->cs = from->cs;
  to->ss = from->ss;
  to->mask = from->mask;
  to->stack_base = from->stack_base;  // an SS_AUTODISARM stack is disarmed only for the abandoned frame
  to->stack_flags = from->stack_flags;
  to->stack_size = from->stack_size;
  // One machine, one kernel: both images have the same layout.
  if (to->fpstate != nullptr) copy_bytes(to->fpstate, from->fpstate, fp_bytes(from));
}

// The context stands before a probepoint whose hit is counted: when the handler returns, the hit goes on.
[[gnu::always_inline]] inline void resume_later(Context* uc, std::uint64_t origin, std::uint64_t consumed) {
  uc->reserved[0] = origin;
  uc->reserved[1] = consumed;
  uc->reserved[2] = 1;  // unless a handler runs, its mask says nothing of SIGTRAP: expect_return
  uc->reserved[3] = uc->rsp;
  uc->return_address() = address_of(&ubp_resume_restorer);
  asm volatile("" ::: "memory");
  uc->rip = origin;
}

[[gnu::always_inline]] inline void set_rip(Context* uc, std::uint64_t rip) {
  asm volatile("" ::: "memory");
  uc->rip = rip;
}

// SIGILL and SIGFPE report the address of the instruction; it must be the original one. A SIGSEGV or SIGBUS may too.
[[gnu::always_inline]] inline void fix_fault_address(siginfo_t* info, std::uint64_t slot, std::uint64_t original) {
  // ... and a SIGSYS names the address behind the system call, in the same place (si_call_addr).
  const bool fault = info->si_signo == SIGSYS || info->si_signo == SIGILL || info->si_signo == SIGFPE ||
                     info->si_signo == SIGSEGV || info->si_signo == SIGBUS;
  if (fault && info->si_code > 0 && reinterpret_cast<std::uint64_t>(info->si_addr) == slot) {
    info->si_addr = reinterpret_cast<void*>(original);
  }
}

// RIP in a slot: false when it is not.
[[gnu::always_inline]] inline bool translate_slot(const CodeMap& code, const Tasks& tasks, Context* uc,
                                                  siginfo_t* info) {
  const std::uint64_t rip = uc->rip;
  const Slots& slots = code.slots;
  for (std::uint32_t area = 0; area < slots.area_count; ++area) {
    std::uint32_t point = runtime::kNotFound;
    std::uint64_t offset = 0;
    const PermanentSlots& permanent = slots.permanent[area];
    if (rip - permanent.base < permanent.bytes) {
      offset = (rip - permanent.base) % xol::kSlotBytes;
      point = code.point_of_slot(rip - offset);
      if (point == runtime::kNotFound) return false;
    } else if (rip - slots.areas[area].rx < slots.layout.area_bytes) {
      const std::uint64_t in_shared = rip - slots.areas[area].rx - slots.layout.shared_offset;
      if (in_shared < slots.layout.shared_bytes) {
        offset = in_shared % xol::kSlotBytes;
        point = code.point_of_slot(rip - offset);
        if (point == runtime::kNotFound) return false;
      } else {
        const xol::SlotLocation at = xol::locate(slots.layout, slots.areas[area], rip);
        if (at.block >= tasks.high_water->load(std::memory_order_relaxed)) return false;  // never opened
        const std::uint32_t tag = slots.cache(tasks.state(at.block), area).tags[at.slot];
        if (tag == 0) return false;
        point = tag - 1;
        offset = at.offset;
      }
    } else {
      continue;
    }
    const xol::Displaced& displaced = code.table.points[point];
    const xol::SlotPosition position = xol::position_in_slot(displaced, offset);
    const auto original = static_cast<std::uint64_t>(position.address);
    if (info != nullptr) fix_fault_address(info, rip, original);
    if (position.sets_rcx) uc->rcx = original;
    if (position.is_cloning) {
      auto* const cloning = reinterpret_cast<Cloning*>(uc->rdi);
      uc->mask = cloning->mask;
      uc->rdi = cloning->rdi;
      if (uc->rax != 0) cloning->rest = 0;  // not a child's
    }
    if (position.executed) {
      set_rip(uc, original);
    } else {
      resume_later(uc, original, kConsumed);
    }
    return true;
  }
  return false;
}

// What a detour has saved around its consumers. Registers that calls keep have their values, but for what consumers
// changed.
[[gnu::always_inline]] inline void restore_saved(Context* uc, const runtime::DetourSave& save, bool has_kept) {
  constexpr std::uint32_t kKept = 1u << 3 | 1u << 5 | 7u << 12;  // rbx, rbp, r12, r13, r14
  for (std::uint32_t reg = 0; reg < 16; ++reg) {
    if (has_kept || (kKept >> reg & 1) == 0) uc->general(reg) = save.registers[reg];
  }
  uc->eflags = runtime::with_status(uc->eflags, save.status);
}

// RIP in this detour, which has spilled what is in the thread's storage: nothing of its own runs between the detour and
// this.
[[gnu::always_inline]] inline void leave_detour(const runtime::DetourInfo& detour, const Spilled& spilled, Context* uc,
                                                siginfo_t* info) {
  const runtime::DetourPosition position = runtime::detour_position(detour, uc->rip);
  if (info != nullptr) fix_fault_address(info, uc->rip, position.rip);
  const bool is_saved = position.is(runtime::kAllSaved), is_consumed = !position.is(runtime::kUnconsumed);
  const auto* const save = reinterpret_cast<const runtime::DetourSave*>(
      is_saved && !position.is(runtime::kSaveInRcx) ? runtime::detour_save_at(uc->rsp) : uc->rcx);
  if (position.is(runtime::kStoresRax)) *reinterpret_cast<std::uint64_t*>(uc->rdx) = uc->rax;
  if (position.is(runtime::kStatusInRax)) uc->eflags = runtime::with_status(uc->eflags, uc->rax);
  if (position.is(runtime::kStatusSpilled)) uc->eflags = runtime::with_status(uc->eflags, spilled.status);
  if (position.is(runtime::kRaxSaved)) uc->rax = save->registers[0];
  if (position.is(runtime::kRcxSpilled)) uc->rcx = spilled.rcx;
  if (position.is(runtime::kRaxSpilled)) uc->rax = spilled.rax;
  if (position.is(runtime::kRdxSpilled)) uc->rdx = spilled.rdx;
  if (is_saved) {
    restore_saved(uc, *save, position.is(runtime::kKeptSaved));
    auto* const task = reinterpret_cast<TaskState*>(save->context[runtime::kContextTask]);
    const std::uint64_t deferred = __atomic_load_n(&task->has_deferred, __ATOMIC_RELAXED);  // its own, as below
    if (is_consumed && deferred != 0) {  // its end will not be reached
      uc->mask = save->mask;
      asm volatile("" ::: "memory");
      __atomic_store_n(&task->has_deferred, 0, __ATOMIC_RELAXED);
      if (deferred != kDelivering) send_again(task->deferred);
    }
  }
  if (position.is(runtime::kDirectionSaved)) {
    uc->eflags = (uc->eflags & ~runtime::kDirectionFlag) | (save->rflags & runtime::kDirectionFlag);
  }
  // The call is over, though the detour has not returned yet: the thread is in the caller.
  const bool is_over = position.is(runtime::kReturns) || (position.is(runtime::kOverrides) && save->is_overridden != 0);
  if (is_over) {
    if (is_saved) uc->rax = save->returned;
    const std::uint64_t caller = *reinterpret_cast<const std::uint64_t*>(uc->rsp);
    uc->rsp += sizeof(std::uint64_t);
    set_rip(uc, caller);
  } else if (position.is(runtime::kCounted)) {
    resume_later(uc, position.rip, is_consumed ? kConsumed : kNotConsumed);
  } else {
    set_rip(uc, position.rip);
  }
}

// RIP in a detour: false when it is not.
[[gnu::always_inline]] inline bool translate_detour(const CodeMap& code, Context* uc, siginfo_t* info) {
  const runtime::DetourInfo* const detour = code.detours.around(uc->rip);
  if (detour == nullptr) return false;
  leave_detour(*detour, this_thread().spilled, uc, info);
  return true;
}

// Whether RIP is in a detour, none of whose instructions have been executed.
[[gnu::always_inline]] inline bool is_before_copies(const CodeMap& code, std::uint64_t rip) {
  const runtime::DetourInfo* const detour = code.detours.around(rip);
  return detour != nullptr && runtime::detour_position(*detour, rip).is_before;
}

// Gives the thread that a system call has just made its own state and %gs, and sends it on.
[[gnu::always_inline]] inline void give_birth(Context* uc, const xol::Displaced& made_by) {
  if (current_task(uc->rsp) == nullptr) {
    set_gs_base(0);  // or it would count in its maker's block
    g_process.segment.uncounted_tasks.fetch_add(1, std::memory_order_relaxed);  // a statistic
  }
  uc->rcx = made_by.next();
  set_rip(uc, made_by.next());
}

// A handler has returned: what it left of SIGTRAP in the mask is the application's, and must not reach the kernel. May
// be done again.
[[gnu::always_inline]] inline void note_mask(Context* frame) {
  if (frame->reserved[2] == 0) this_thread().app_trap.is_blocked = (frame->mask & kTrapBit) != 0;
  asm volatile("" ::: "memory");
  frame->reserved[2] = 1;
  asm volatile("" ::: "memory");
  frame->mask &= ~kTrapBit;
}

// A hit was interrupted before it was counted. To begin it again takes a trap, for which a timer may leave no time: it
// is counted here, where that is simple, and goes on when the handler has returned. Consumers run where the trap puts
// them.
[[gnu::always_inline]] inline bool count_early(Context* frame, const Context* hit, std::uint32_t point) {
  TaskState* const task = known_task(hit->rsp);
  if (task == nullptr || this_thread().in_runtime || task->consumer.load(std::memory_order_relaxed) != 0)
    return false;  // its own
  const std::uint64_t origin = hit->rip - 1;
  const bool is_simple = hit->stack_base == g_process.tasks.stack_of(task->block) && task->moved_origin != origin &&
                         !g_process.table.points[point].has_consumers && !g_process.table.points[point].is_hook;
  if (!is_simple) return false;
  copy_context(frame, hit);
  ++task->counters[point];  // once: signals are blocked, but for a SIGTRAP that another sends
  resume_later(frame, origin, kNotConsumed);
  return true;
}

// Shows the original context in the frame of a handler that is about to run. info: that frame's, or null.
[[gnu::always_inline]] inline void translate(Context* frame, siginfo_t* info) {
#ifdef UBP_TEST_NO_TRANSLATION  // tests/preload/controls_test.cpp: handlers see, and return to, what they interrupted
  return;
#endif
  if (translate_slot(g_process, g_process.tasks, frame, info) || translate_detour(g_process, frame, info)) return;
  const Range range = range_of(frame->rip);
  if (range == Range::kOutside || range == Range::kEntering) return;
  const Context* hit = interrupted_frame(frame);
  const Continuation& next = continuation(const_cast<Context*>(hit));
  switch (range) {
    case Range::kUncounted: {
      const std::uint64_t origin = hit->rip - 1;
      if (const_cast<Context*>(hit)->info()->si_code != SI_KERNEL) return;  // as below
      if (const std::uint64_t next_address = left_pool(g_process, origin)) {
        copy_context(frame, hit);
        set_rip(frame, next_address);
        return;
      }
      // Another's SIGTRAP must still be delivered, so its handler is not abandoned.
      Detoured detoured;
      const std::uint32_t point = g_process.table.find(origin);
      const bool is_point = point != runtime::kNotFound;
      if (is_point && count_early(frame, hit, point)) return;
      if (const xol::Displaced* const made_by = is_point ? nullptr : born_at(g_process, hit->rip, hit->rax)) {
        copy_context(frame, hit);
        give_birth(frame, *made_by);
        return;
      }
      if (!is_point && !find_detoured(g_process, hit->rip, detoured)) return;
      copy_context(frame, hit);
      set_rip(frame, is_point ? origin : detoured.origin);
      return;
    }
    case Range::kPending:
      copy_context(frame, hit);
      if (next.kind != TrapKind::kHit) {
        set_rip(frame, next.origin);
      } else {
        resume_later(frame, next.origin, next.consumed);
      }
      return;
    case Range::kStored:
      copy_context(frame, hit);
      if (next.is_emulated) {
        frame->rsp = next.rsp;
        frame->rcx = next.rcx;
        set_rip(frame, next.rip);
        translate_detour(g_process, frame, nullptr);
      } else {
        resume_later(frame, next.origin, kConsumed);
      }
      return;
    case Range::kResuming:
      note_mask(const_cast<Context*>(hit));
      copy_context(frame, hit);
      if (hit->reserved[0] != 0 && (hit->rip == hit->reserved[0] || !is_fault(const_cast<Context*>(hit)->info()))) {
        resume_later(frame, hit->reserved[0], hit->reserved[1]);
        frame->reserved[3] = hit->reserved[3];
      }
      set_rip(frame, hit->rip);
      return;
    default: return;
  }
}

// The last word before a handler runs: it returns to the resuming range, which looks at the mask that it leaves behind,
// and it finds the application's SIGTRAP in the one it is shown. Not where a shadow stack holds the return address.
[[gnu::always_inline]] inline void expect_return(Context* frame) {
  forget_faults(this_thread());  // the handler's mask is another
  if (has_shadow_stack()) return;
  if (frame->return_address() != address_of(&ubp_resume_restorer)) {
    frame->reserved[0] = 0;
    asm volatile("" ::: "memory");
    frame->return_address() = address_of(&ubp_resume_restorer);
  }
  frame->reserved[2] = 0;
  const Thread* const storage = thread_in_storage();
  frame->reserved[4] = storage == nullptr ? 1 : g_process.processor.has_fsgsbase ? fs_base() : 0;
  const bool is_blocked = (storage != nullptr ? *storage : this_thread()).app_trap.is_blocked;
  if (is_blocked) frame->mask |= kTrapBit;  // that may have it already: lent by a system call (begins_in_lent_mask)
}

// The load of a program's block has faulted: it goes on behind the read, by the runtime's own way.
[[gnu::always_inline]] inline void end_read(Context* uc) {
  if (!has_shadow_stack()) uc->return_address() = address_of(&ubp_trap_restorer);
  set_rip(uc, reinterpret_cast<std::uint64_t>(ubp_read_fault));
}

// The context in which the kernel starts the handler whose frame is `inner`.
[[gnu::always_inline]] inline void start_handler(Context* uc, Context* inner, std::uint64_t handler,
                                                 std::uint64_t signal) {
  uc->rdi = signal;
  uc->rsi = reinterpret_cast<std::uint64_t>(inner->info());
  uc->rdx = reinterpret_cast<std::uint64_t>(inner);
  uc->rax = 0;
  uc->rsp = uc->rdx - 8;
  set_rip(uc, handler > 1 ? handler : address_of(&ubp_signal_entry));
}

// Prepares the frame of a handler that is about to run: its context is the original one, and it lies where it would
// without UBP. Returns it, moved or not.
//
// The kernel delivers several signals at once, and a signal may interrupt the preparation of another: the handler that
// was about to run then shows as interrupted. Its frame is prepared here in its stead, and it as interrupted at its own
// first instruction; innermost first, because every further handler may refill slots and use the stack.
// Signals must be blocked. Everything can be done again from the start by whoever interrupts later. nullptr: the
// application's alternate stack has no room for all of them.
[[gnu::always_inline]] inline Context* settle(Context* uc) {
  constexpr int kDeepest = 96;  // more than the stack has room for (arm/process_memory.cpp)
  Context* frames[kDeepest];
  int depth = 0;
  frames[0] = uc;
  while (depth + 1 < kDeepest && range_of(frames[depth]->rip) == Range::kEntering) {
    frames[depth + 1] = interrupted_frame(frames[depth]);
    ++depth;
  }
  if (depth > 0 && is_read_fault(frames[depth]->info(), frames[depth])) {  // no handler was about to run
    copy_context(frames[depth - 1], frames[depth]);
    set_rip(frames[depth - 1], reinterpret_cast<std::uint64_t>(ubp_read_fault));
    --depth;
  }
  Context* frame = frames[depth];
  translate(frame, frame->info());
  for (;;) {
    const auto signal = static_cast<std::uint64_t>(frame->info()->si_signo) & 127;
    const std::uint64_t handler =
        g_handlers.handler[signal % 65].load(std::memory_order_acquire);  // pairs with sigaction
    const std::uint64_t target = handler > 1 ? frame_target(frame, signal) : 0;
    if (target != 0) frame = move_frame(frame, target);
    if (depth == 0 || frame == nullptr) return frame;
    if (handler > 1) expect_return(frame);
    Context* const outer = frames[--depth];
    start_handler(outer, frame, handler, signal);
    frame = outer;
  }
}

}  // namespace ubp::trap
