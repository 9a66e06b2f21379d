// A process, its tasks and signal frames made up for the trap path's decisions: nothing is probed, and no handler is
// called. What they do to the thread that tests them (its mask, signals that they send again) is put back.
#pragma once

#include <doctest/doctest.h>
#include <signal.h>
#include <time.h>

#include <array>
#include <cstring>
#include <memory>

#include "runtime/table/table.h"
#include "runtime/trap/slots.h"
#include "runtime/trap/translate.h"

extern "C" {
// What a trap or a signal is answered with: the handler to call, or 0, and the frame to call it with.
struct Answer {
  std::uint64_t handler;
  ubp::trap::Context* frame;
};
Answer ubp_trap_foreign(siginfo_t* info, ubp::trap::Context* uc);
Answer ubp_signal_prepare(siginfo_t* info, ubp::trap::Context* uc);
void ubp_trap_decide();
void ubp_trap_displace();
int ubp_trap_resume(ubp::trap::Context* uc);
void ubp_trap_broken(const char* text, std::uint64_t size);
}

namespace ubp::trap {

inline constexpr std::uint64_t kOrigin = 0x401000, kSystem = 0x402000, kHandlerAt = 0x404000;
inline constexpr std::uint64_t kStateBytes = sizeof(TaskState) + 256;  // and a cache
inline const std::uint64_t kResume = address_of(&ubp_resume_restorer);

template <typename Function>
std::uint64_t code_of(Function* function) {
  return reinterpret_cast<std::uint64_t>(function);
}
inline constexpr std::uint64_t bit_of(int signal) { return std::uint64_t{1} << (signal - 1); }
inline constexpr std::uint64_t kHitMask = bit_of(SIGQUIT) | bit_of(SIGPIPE);

// Room for Continuation and friends below the frame, the frame, its siginfo and a legacy FP image.
struct Frame {
  alignas(64) std::array<std::uint8_t, 1024> below{};
  std::uint64_t padding = 0;
  std::uint64_t return_address = 0xdead;
  alignas(16) Context uc{};
  siginfo_t info{};
  alignas(64) std::array<std::uint8_t, 512> fp{};

  Frame() { uc.fpstate = fp.data(); }
};
static_assert(offsetof(Frame, info) - offsetof(Frame, uc) == UBP_UC_SIGINFO);
static_assert(offsetof(Frame, uc) - offsetof(Frame, return_address) == 8);

// The mask of the thread that runs a test, whatever the test does to it; and no signal is left pending.
class KeptMask {
 public:
  KeptMask() { sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&before_), 8); }
  ~KeptMask() {
    sys::set_signal_mask(~std::uint64_t{0});
    siginfo_t info;
    while (take(info) > 0) {
    }
    sys::set_signal_mask(before_);
  }
  KeptMask(const KeptMask&) = delete;
  KeptMask& operator=(const KeptMask&) = delete;

  static std::uint64_t present() {
    std::uint64_t mask = 0;
    sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, 0, reinterpret_cast<long>(&mask), 8);
    return mask;
  }
  // The next signal that is pending, as the kernel orders them; 0: none is.
  static int take(siginfo_t& info) {
    const std::uint64_t all = ~std::uint64_t{0};
    const timespec now{};
    const long signal = sys::call4(SYS_rt_sigtimedwait, reinterpret_cast<long>(&all), reinterpret_cast<long>(&info),
                                   reinterpret_cast<long>(&now), 8);
    return signal > 0 ? static_cast<int>(signal) : 0;
  }

 private:
  std::uint64_t before_ = 0;
};

// One slot-routed probepoint at kOrigin, one syscall at kSystem, one XOL area with two tasks: this thread is the
// second.
class World {
 public:
  World() {
    slot_point_.address = kOrigin;
    slot_point_.length = 3;
    slot_point_.route = decoder::Route::kSlot;
    system_ = slot_point_;
    system_.address = kSystem;
    system_.length = 2;
    system_.route = decoder::Route::kSystem;
    system_.is_gate = true;
    system_.bytes[0] = 0x0f;
    system_.bytes[1] = 0x05;
    system_.system.permanent = 0;
    table_ = std::make_unique<runtime::Table>(2);
    table_->add(slot_point_);
    table_->add(system_);
    std::construct_at(&g_process);
    g_process.table = table_->view();
    g_process.slots.geometry = xol::CacheGeometry::for_slots(4);
    g_process.slots.layout = xol::AreaLayout::for_slots(4, 2);
    g_process.slots.area_count = 1;
    g_process.slots.areas[0] = {0x10000000, 0x20000000};
    xol::write_permanent_slot(permanent_.data(), xol::SlotAddress{permanent()}, system_);
    g_process.slots.permanent[0] = {permanent(), xol::kSlotBytes};
    g_process.tasks.blocks = g_process.slots.layout.blocks;
    g_process.tasks.high_water = &high_water_;
    g_process.tasks.fork_state = &fork_state_;
    g_process.tasks.pid = sys::getpid();
    g_process.tasks.states = states_.data();
    g_process.tasks.state_bytes = kStateBytes;
    ubp_trap_text(&g_process.text.low, &g_process.text.high);
    xol::SlotCache cache = g_process.slots.cache(task(), 0);
    slot_ = cache.claim(0).slot;
    cache.publish(slot_, 0);
  }
  ~World() {
    for (auto& handler : g_handlers.handler) handler = 0;
    for (auto* bits : {&g_handlers.masks_trap, &g_handlers.on_stack, &g_handlers.takes_info}) *bits = 0;
    g_handlers.trap_flags = g_handlers.trap_mask = 0;
    t_thread = thread_before_;
    std::construct_at(&g_process);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  // The executable address of the slot that holds kOrigin's instruction, in block 1.
  std::uint64_t slot() const { return 0x10000000 + g_process.slots.layout.block_bytes + slot_ * xol::kSlotBytes; }
  std::uint64_t permanent() const { return reinterpret_cast<std::uint64_t>(permanent_.data()); }
  const xol::Displaced& system_call() const { return g_process.table.points[1]; }
  TaskState* task() const { return g_process.tasks.state(1); }
  // Gives this thread its state.
  TaskState* own_task() {
    task()->tid = sys::gettid();
    task()->block = 1;
    task()->counters = task()->jumped = counters_.data();
    own_storage(task());
    return task();
  }
  std::array<std::uint64_t, 8>& counters() { return counters_; }

 private:
  Thread thread_before_ = t_thread;
  xol::Displaced slot_point_, system_;
  std::unique_ptr<runtime::Table> table_;
  alignas(64) std::array<std::uint8_t, 2 * kStateBytes> states_{};
  alignas(64) std::array<std::uint8_t, xol::kSlotBytes> permanent_{};
  std::array<std::uint64_t, 8> counters_{};
  std::uint32_t slot_ = 0;
  std::atomic<std::uint32_t> high_water_{2}, fork_state_{kReady};
};

// A hit under way in `hit`, interrupted by the handler whose frame is `handler`, at `rip`.
inline void interrupt(Frame& handler, Frame& hit, std::uint64_t rip) {
  hit.uc.rip = kOrigin + 1;
  hit.uc.rsp = 0x7ffe1000;
  hit.uc.rcx = 5;
  hit.uc.rbx = 0xb0b;
  hit.uc.r15 = 0xf15;
  hit.uc.mask = kHitMask;
  hit.uc.eflags = 0x246;
  hit.info.si_code = SI_KERNEL;
  hit.fp[100] = 0x77;
  Continuation& next = continuation(&hit.uc);
  next.origin = kOrigin;
  next.rip = 0x405000;
  next.rsp = 0x7ffe0ff8;
  next.rcx = 4;
  next.kind = TrapKind::kHit;
  handler.uc.rip = rip;
  handler.uc.r15 = reinterpret_cast<std::uint64_t>(&hit.uc);
}

inline void check_copied(const Frame& handler) {
  CHECK(handler.uc.rbx == 0xb0b);
  CHECK(handler.uc.r15 == 0xf15);
  CHECK(handler.uc.mask == kHitMask);
  CHECK(handler.uc.eflags == 0x246);
  CHECK(handler.fp[100] == 0x77);
}

}  // namespace ubp::trap
