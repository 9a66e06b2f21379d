// What every call of the C interface does: arguments checked, exceptions turned into statuses.
//
// Context: normal. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <cstdint>
#include <exception>
#include <new>

#include "runtime/api/api_lock.h"
#include "runtime/base/cancellation.h"
#include "runtime/include/ubp.h"
#include "runtime/report/report.h"

namespace ubp::runtime {

inline std::uint64_t id_of(const ubp_probe* probe) { return reinterpret_cast<std::uint64_t>(probe); }

// Structures of this version or a later one: what the caller does not have is not written.
template <typename T>
ubp_status check_size(const T* structure) {
  if (structure == nullptr) return UBP_E_INVALID;
  return structure->struct_size < sizeof(T) ? UBP_E_STRUCT_SIZE : UBP_OK;
}

// Runs body, which returns a status. No exception leaves: the callers are C.
template <typename Body>
ubp_status guarded(const Body& body) {
  const SignalsHeld quiet;
  const Uncancelled uncancelled;
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return UBP_E_NO_MEMORY;
  } catch (const std::exception& error) {
    report::say(report::Level::kError, error.what());
    return UBP_E_SYSTEM;
  }
}

// The same, under the ApiLock.
template <typename Body>
ubp_status inside(const Body& body, bool needs_init = true) {
  return guarded([&]() -> ubp_status {
    const ApiLock lock(needs_init);
    return lock.status() == UBP_OK ? body() : lock.status();
  });
}

}  // namespace ubp::runtime
