// What a status means, in words. Context: any; async-signal-safe.
#include "runtime/registry/registry.h"

const char* ubp_version() { return ubp::runtime::kVersion; }

const char* ubp_status_string(ubp_status status) {
  switch (status) {
    case UBP_OK: return "no error";
    case UBP_E_INVALID: return "an argument is null, out of range, or has unknown flags";
    case UBP_E_STRUCT_SIZE: return "struct_size is smaller than any version of the structure";
    case UBP_E_NOT_ACTIVE: return "not between ubp_init and ubp_shutdown";
    case UBP_E_SPEC: return "the specification cannot be read";
    case UBP_E_NOT_FOUND: return "no such module, function or address";
    case UBP_E_REFUSED: return "found, but no instruction there can be probed";
    case UBP_E_NO_MEMORY: return "memory was denied";
    case UBP_E_NO_ROOM: return "more probepoints or consumers than there is room for";
    case UBP_E_STALE: return "the probe was unregistered, or is none";
    case UBP_E_IN_CONSUMER: return "called inside a consumer";
    case UBP_E_BUSY: return "called by a signal handler that interrupted another call of its thread";
    case UBP_E_WRONG_PROCESS: return "called by a process that borrows its parent's memory";
    case UBP_E_TRANSACTION: return "no transaction is open, one is open already, or an earlier call in it failed";
    case UBP_E_SYSTEM: return "the kernel denied something";
    case UBP_E_OTHER_RUNTIME: return "another copy of UBP owns this process";
  }
  return "unknown status";
}
