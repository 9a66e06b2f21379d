// See floating.h.
#include "runtime/jump/floating.h"

#include <cpuid.h>

#include <algorithm>

#include "runtime/table/detour_save.h"
#include "runtime/trap/layout.h"

static_assert(offsetof(ubp::runtime::DetourSave, mxcsr) == UBP_SAVE_MXCSR &&
              offsetof(ubp::runtime::DetourSave, in_use) == UBP_SAVE_IN_USE);
static_assert(offsetof(ubp::runtime::DetourSave, masks) == UBP_SAVE_MASKS &&
              offsetof(ubp::runtime::DetourSave, vectors) == UBP_SAVE_VECTORS);
static_assert(offsetof(ubp::runtime::DetourSave, image) == UBP_SAVE_IMAGE);

extern "C" {
void ubp_save_floating(), ubp_restore_floating();  // for detours only: they keep no calling convention
extern std::uint32_t ubp_floating_components, ubp_floating_others;
}

namespace ubp::runtime {
namespace {

constexpr std::uint64_t kSse = 1u << 1, kMoved = kSse | 1u << 2 | 7u << 5;  // what floating.S moves: SSE, AVX, AVX-512

// Whether XGETBV(1) tells what is in use, and mask registers have as many bits as floating.S moves.
bool can_move(std::uint64_t components) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTellsInUse = 1u << 2, kAvx512bw = 1u << 30;
  if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d) == 0 || (a & kTellsInUse) == 0 || components >> 32 != 0) return false;
  const bool has_masks = (components >> 5 & 1) != 0;
  return !has_masks || (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & kAvx512bw) != 0);
}

}  // namespace

std::optional<Floating> find_floating() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kOsxsave = 1u << 27, kXsavec = 1u << 1;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kOsxsave) == 0) return std::nullopt;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  // The tile registers need permission, and the protection keys' is no register of a consumer's.
  Floating floating;
  constexpr std::uint64_t kLeftOut = (1u << 9) | (3u << 17);
  floating.components = (std::uint64_t{high} << 32 | low) & ~kLeftOut;
  floating.compacts = __get_cpuid_count(0xd, 1, &a, &b, &c, &d) != 0 && (a & kXsavec) != 0;
  std::uint64_t size = 512 + 64;
  for (unsigned component = 2; component < 63; ++component) {
    if ((floating.components >> component & 1) == 0 || __get_cpuid_count(0xd, component, &a, &b, &c, &d) == 0) continue;
    size =
        std::max<std::uint64_t>(size, std::uint64_t{b} + a);  // the standard format's offset and size: the longer one
  }
  if (size > sizeof(DetourSave::image)) return std::nullopt;
  if (!can_move(floating.components)) return floating;
  // The same for every detour.
  ubp_floating_components = static_cast<std::uint32_t>(floating.components & ~kSse);
  ubp_floating_others = static_cast<std::uint32_t>(floating.components & ~kMoved);
  floating.save = reinterpret_cast<std::uint64_t>(&ubp_save_floating);
  floating.restore = reinterpret_cast<std::uint64_t>(&ubp_restore_floating);
  return floating;
}

}  // namespace ubp::runtime
