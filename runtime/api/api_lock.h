// The door of the C interface: who may come in, and what holds inside.
//
// Inside, one thread at a time: every signal is put off but SIGTRAP and faults, so no handler of the application's runs
// in the middle (its hits would not be counted, and its own calls would wait for ever); and what libubp calls is no hit
// of the application's.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/registry/registry.h"
#include "runtime/trap/segment.h"

namespace ubp::runtime {

// While one is there, MXCSR is as C has it at the start of a program, and then what it was: neither the program's
// unmasked exceptions nor its way of rounding are libubp's, nor libubp's flags the program's. Nests. (There is no x87
// code in libubp: tests/checks/link_check.)
class KeptFloating {
 public:
  KeptFloating();
  ~KeptFloating();
  KeptFloating(const KeptFloating&) = delete;
  KeptFloating& operator=(const KeptFloating&) = delete;

 private:
  std::uint32_t mxcsr_;
};

// While one is there, no handler of the application's runs in this thread, and what libubp calls is no hit. Nests.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

  // From here on the program's own mask holds again: for long work at the end of the process, when no probe is left to
  // hit.
  void let_signals_in() const;

 private:
  KeptFloating floating_;
  std::optional<trap::InRuntime> in_runtime_;  // within the time that signals are blocked: a handler's hits count
  std::uint64_t mask_;
  int error_;
};

class ApiLock {
 public:
  // kBriefly: some seconds, where whoever is inside may wait for what this thread was interrupted in.
  enum class Wait : std::uint8_t { kForever, kBriefly, kNot };

  // needs_init: fails with UBP_E_NOT_ACTIVE outside ubp_init() .. ubp_shutdown(). wait: then it fails with UBP_E_BUSY
  // where another thread is inside. In a SignalsHeld only.
  explicit ApiLock(bool needs_init = true, Wait wait = Wait::kForever);
  ~ApiLock();
  ApiLock(const ApiLock&) = delete;
  ApiLock& operator=(const ApiLock&) = delete;

  // UBP_OK: inside. Else the caller is not, and returns this.
  ubp_status status() const { return status_; }

 private:
  ubp_status status_ = UBP_OK;
};

// Everything the interface works on. Under the ApiLock only.
struct Interface {
  Registry registry;
  bool is_initialised = false;  // between ubp_init() and ubp_shutdown()
  bool is_embedded = false;     // by the application, not only by the preload entry
  std::uint32_t shutdowns = 0;  // transactions end with one
};
Interface& interface();

}  // namespace ubp::runtime
