// Dying of a signal as the program would without UBP: at its true RIP, over its own bytes; but the report is made
// before.
//
// A signal whose default ends the process is not left to the kernel: ubp_signal_entry stands before it (the guard), and
// when the application's disposition is the default, the frame shows the original context, the report is made, every
// int3 is taken out, the kernel's default is restored, and the thread goes back to where it stood: a fault happens
// again there, natively; another signal is sent again and takes effect there. No handler of the application's runs
// meanwhile: all signals are blocked.
//
// Inline and free of libc: compiled into the trap path. Source: signal(7), rt_sigqueueinfo(2).
#pragma once

#include "runtime/trap/disposition.h"
#include "runtime/trap/task.h"
#include "runtime/trap/translate.h"

namespace ubp::trap {

// Replaces a probepoint's jump, or its int3, through an open /proc/self/mem; leaves alone what is neither any more (or
// not mapped).
[[gnu::always_inline]] inline bool restore_jump(long fd, std::uint32_t index) {
  const runtime::DetourInfo* const info = g_process.detours.of(index);
  if (info == nullptr || info->point != index || __atomic_load_n(&info->is_active, __ATOMIC_RELAXED) == 0)
    return true;  // the byte decides
  const auto offset = static_cast<long>(g_process.table.points[index].address);
  std::uint8_t byte = 0;
  if (sys::call4(SYS_pread64, fd, reinterpret_cast<long>(&byte), 1, offset) != 1) return false;
  if (!runtime::is_detour_jump(&byte)) return true;
  return sys::call4(SYS_pwrite64, fd, reinterpret_cast<long>(info->original), info->jump_bytes, offset) ==
         info->jump_bytes;
}
[[gnu::always_inline]] inline bool restore_byte(long fd, std::uint32_t index) {
  const xol::Displaced& point = g_process.table.points[index];
  const auto offset = static_cast<long>(point.address);
  std::uint8_t byte = 0;
  if (sys::call4(SYS_pread64, fd, reinterpret_cast<long>(&byte), 1, offset) != 1) return false;
  return byte != 0xcc || sys::call4(SYS_pwrite64, fd, reinterpret_cast<long>(&point.first_byte), 1, offset) == 1;
}

// Opens /proc/self/mem for writing text; closed by the caller. A negative errno when it is denied.
[[gnu::always_inline]] inline long open_memory() {
  const char path[] = "/proc/self/mem";
  constexpr long kReadWriteCloexec = 02 | 02000000, kAtCwd = -100;
  return sys::call4(SYS_openat, kAtCwd, reinterpret_cast<long>(path), kReadWriteCloexec);
}

[[gnu::always_inline]] inline void restore_text() {
  const long fd = open_memory();
  if (sys::failed(fd)) return;  // the core then shows the int3s
  for (std::uint32_t point = 0; point < g_process.table.count; ++point)
    restore_jump(fd, point);  // first: int3s are among their bytes
  for (std::uint32_t point = 0; point < g_process.table.count; ++point) restore_byte(fd, point);
  sys::call4(SYS_close, fd);
}

// Makes the return from this frame end the process by `signal`. sent: not caused by the instruction at RIP.
[[gnu::always_inline]] inline void die(Context* uc, std::uint64_t signal, bool sent) {
  if (sent && sys::getpid() == 1) return;  // the kernel ignores it for the first process of a namespace
  sys::set_signal_mask(kAllSignals & ~(std::uint64_t{1} << (SIGTRAP - 1)));  // until the return
  forget_faults(this_thread());
  bool is_restored = false;
  if (g_process.upcalls.report_death != nullptr) {
    const Storage storage(true);  // the instruction at RIP may need what the program has
    is_restored = g_process.upcalls.report_death();
  }
  // Only a core dump shows the text, and another thread may meet what is left of the gate. A vfork child dies alone.
  if (!is_restored && !terminates(signal) && sys::is_process(g_process.tasks.pid)) restore_text();
  const KernelSigaction act{0, 0, 0, 0};
  begin_fault_change();  // for good
  sys::call4(SYS_rt_sigaction, static_cast<long>(signal), reinterpret_cast<long>(&act), 0, 8);
  uc->mask &= ~(std::uint64_t{1} << (signal - 1));
  uc->return_address() = address_of(&ubp_trap_restorer);
  if (!sent) return;
  const std::uint64_t own = std::uint64_t{1} << (signal - 1);  // blocked until the return: it takes effect there
  sys::call4(SYS_rt_sigprocmask, SIG_BLOCK, reinterpret_cast<long>(&own), 0, 8);
  const long result = sys::call4(SYS_rt_tgsigqueueinfo, sys::getpid(), sys::gettid(), static_cast<long>(signal),
                                 reinterpret_cast<long>(uc->info()));
  if (sys::failed(result)) sys::call4(SYS_tkill, sys::gettid(), static_cast<long>(signal));
}

}  // namespace ubp::trap
