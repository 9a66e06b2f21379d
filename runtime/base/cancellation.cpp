// See cancellation.h.
#include "runtime/base/cancellation.h"

#include <pthread.h>

#include <array>
#include <optional>

namespace ubp::runtime {

Uncancelled::Uncancelled() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state_); }
Uncancelled::~Uncancelled() noexcept(false) {
  int ignored = 0;
  pthread_setcancelstate(state_, &ignored);
}

// libc keeps whether a thread may be cancelled in a bit of what begins at %fs:0, and does not say where: the one byte
// that follows what it is told. Source: glibc, nptl/descr.h (CANCELSTATE_BITMASK).
std::int32_t find_cancel_state() {
  constexpr std::size_t kBytes = 2048;  // a struct pthread is longer
  constexpr std::uint8_t kDisabled = 1;
  const auto* const thread = static_cast<const std::uint8_t*>(__builtin_thread_pointer());
  int before = 0;
  std::array<std::uint8_t, kBytes> enabled, disabled;
  const auto read = [&](int state, std::array<std::uint8_t, kBytes>& into) {
    pthread_setcancelstate(state, &before);
    for (std::size_t i = 0; i < kBytes; ++i)
      into[i] = __atomic_load_n(&thread[i], __ATOMIC_RELAXED);  // a byte is whole
  };
  std::int32_t found = 0;
  int candidates = 0;
  const Uncancelled uncancelled;  // puts it back
  read(PTHREAD_CANCEL_DISABLE, disabled);
  read(PTHREAD_CANCEL_ENABLE, enabled);
  for (std::size_t i = 0; i < kBytes; ++i) {
    if ((disabled[i] ^ enabled[i]) != kDisabled || (disabled[i] & kDisabled) == 0) continue;
    found = static_cast<std::int32_t>(i);
    ++candidates;
  }
  return candidates == 1 ? found : 0;
}

}  // namespace ubp::runtime
