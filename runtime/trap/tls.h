// Whether %fs leads to what libc has made of the thread's storage. A program may set it to anything: by arch_prctl, wrfsbase, or a clone of
// its own (Go's runtime has no use for libc's).
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
  if (g_process.has_fsgsbase) {
    asm volatile("rdfsbase %0" : "=r"(base));
  } else {
    sys::call4(SYS_arch_prctl, kGetFs, reinterpret_cast<long>(&base));
  }
  return base;
}
[[gnu::always_inline]] inline void set_fs_base(std::uint64_t base) { sys::call4(SYS_arch_prctl, kSetFs, static_cast<long>(base)); }

// Where t_mark lies from %fs.
[[gnu::always_inline]] inline std::int64_t mark_offset() {
  std::int64_t offset;
  asm("movq _ZN3ubp4trap6t_markE@gottpoff(%%rip), %0" : "=r"(offset));
  return offset;
}

[[gnu::always_inline]] inline bool has_libcs_tls() {
  const std::uint64_t mark = fs_base() + static_cast<std::uint64_t>(mark_offset());
  return sys::is_readable(mark) && *reinterpret_cast<const std::uint64_t*>(mark) == kTlsMark;
}

}  // namespace ubp::trap
