// See reserve.h.
#include "runtime/base/reserve.h"

#include <sys/mman.h>

namespace ubp::runtime {

std::uint64_t reserve_below(std::uint64_t address, std::uint64_t bytes) {
  constexpr std::uint64_t kGap = std::uint64_t{1} << 30, kPage = 4096;
  const std::uint64_t below = address & ~(kPage - 1);
  void* const hint = below > bytes + 2 * kGap ? reinterpret_cast<void*>(below - bytes - kGap) : nullptr;
  void* const memory = mmap(hint, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, bytes, MADV_DONTDUMP);
  return reinterpret_cast<std::uint64_t>(memory);
}

}  // namespace ubp::runtime
