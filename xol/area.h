// XOL areas: slot memory near the code it serves, one area per group of modules within rel32 reach.
//
//   executable view (RX, near the code)   | block 0 | block 1 | ... |     slot address = rx + block * block_bytes
//   writable view   (RW, anywhere)        | block 0 | block 1 | ... |                    + slot * kSlotBytes
//
// Both views map the same shared pages, so that no page is ever writable and executable. A block belongs to one task
// at a time and has the same number in every area. A forked child would share the pages with its parent: it maps
// fresh ones over both views before it uses them (map_views()).
//
// Inline and free of libc: compiled into the trap path. How areas are made: make_area.h.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "xol/slot_image.h"
#include "xol/sys.h"

namespace ubp::xol {

using sys::kPageBytes;

inline constexpr std::size_t kMaxAreas = 16;

struct Area {
  std::uint64_t rx = 0;
  std::uint64_t rw = 0;
};

// How all areas are divided: blocks x block_bytes, then the slots that threads share.
struct AreaLayout {
  std::uint64_t area_bytes = 0;
  std::uint64_t block_bytes = 0;  // whole pages: two tasks never share a page of slots
  std::uint32_t blocks = 0;
  std::uint64_t shared_offset = 0;
  std::uint64_t shared_bytes = 0;  // whole pages

  // slots: slots per thread. max_blocks: at most so many tasks; fewer when slots are many (256 MiB an area).
  // shared: slots that threads share.
  static constexpr AreaLayout for_slots(std::uint32_t slots, std::uint32_t max_blocks, std::uint64_t shared = 0) {
    const std::uint64_t block = (slots * kSlotBytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    const std::uint64_t fit = (std::uint64_t{256} << 20) / block;
    const auto blocks = static_cast<std::uint32_t>(fit < max_blocks ? fit : max_blocks);
    const std::uint64_t shared_bytes = (shared * kSlotBytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    return {block * blocks + shared_bytes, block, blocks, block * blocks, shared_bytes};
  }
};

// Where an address in an area's executable view lies.
struct SlotLocation {
  std::uint32_t block;
  std::uint32_t slot;
  std::uint32_t offset;  // bytes into the slot
};

[[gnu::always_inline]] inline SlotLocation locate(const AreaLayout& layout, const Area& area,
                                                  std::uint64_t rx_address) {
  const std::uint64_t in_area = rx_address - area.rx;
  const std::uint64_t in_block = in_area % layout.block_bytes;
  return {static_cast<std::uint32_t>(in_area / layout.block_bytes), static_cast<std::uint32_t>(in_block / kSlotBytes),
          static_cast<std::uint32_t>(in_block % kSlotBytes)};
}

// Maps fresh shared pages at both addresses, replacing what is there, all of them inaccessible until their block is
// opened (read-write in one view, read-execute in the other): anonymous shared memory doubled by mremap (no
// descriptor, no RLIMIT_FSIZE, works under most seccomp filters), else a memfd.
// rx, rw: page-aligned, reserved by the caller, bytes long. Returns false when the kernel denies both; the views are
// then undefined. Async-signal-safe: yes. Source: mremap(2), "old_size is zero"; memfd_create(2).
[[gnu::always_inline]] inline bool map_views(std::uint64_t rx, std::uint64_t rw, std::uint64_t bytes) {
  const auto a = static_cast<long>(rx), b = static_cast<long>(rw), n = static_cast<long>(bytes);
  long result = sys::call6(SYS_mmap, b, n, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
  if (!sys::failed(result)) {
    result = sys::call6(SYS_mremap, b, 0, n, MREMAP_MAYMOVE | MREMAP_FIXED, a, 0);
    if (!sys::failed(result)) {
      sys::call4(SYS_madvise, a, n, MADV_DONTDUMP);  // no core needs them
      sys::call4(SYS_madvise, b, n, MADV_DONTDUMP);
      return true;
    }
  }
  constexpr long kCloexec = 1, kExec = 0x10;  // MFD_CLOEXEC; MFD_EXEC (Linux >= 6.3, EINVAL before)
  const char name[] = {'u', 'b', 'p', '-', 'x', 'o', 'l', 0};
  long fd = sys::call4(SYS_memfd_create, reinterpret_cast<long>(name), kCloexec | kExec);
  if (sys::failed(fd)) fd = sys::call4(SYS_memfd_create, reinterpret_cast<long>(name), kCloexec);
  if (sys::failed(fd)) return false;
  result = sys::call4(SYS_ftruncate, fd, n);
  if (!sys::failed(result)) {
    result = sys::call6(SYS_mmap, a, n, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, 0);
  }
  if (!sys::failed(result)) {
    result = sys::call6(SYS_mmap, b, n, PROT_NONE, MAP_SHARED | MAP_FIXED, fd, 0);
  }
  sys::call4(SYS_close, fd);
  return !sys::failed(result);
}

// Makes a range of an area accessible: read-write in one view, read-execute in the other. offset, bytes: whole pages.
// Async-signal-safe: yes. Idempotent.
[[gnu::always_inline]] inline bool open_pages(const Area& area, std::uint64_t offset, std::uint64_t bytes) {
  const auto n = static_cast<long>(bytes);
  return !sys::failed(sys::call4(SYS_mprotect, static_cast<long>(area.rw + offset), n, PROT_READ | PROT_WRITE)) &&
         !sys::failed(sys::call4(SYS_mprotect, static_cast<long>(area.rx + offset), n, PROT_READ | PROT_EXEC));
}

}  // namespace ubp::xol
