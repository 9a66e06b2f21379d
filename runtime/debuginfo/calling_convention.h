// Where the calling convention puts a function's parameters. Source: psABI 3.2.3 ("Parameter Passing").
//
// Context: the command. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>

#include "runtime/analysis/argument_places.h"

namespace ubp::debuginfo {

class CallingConvention {
 public:
  explicit CallingConvention(Dwarf_Die& function);

  // At the function's first instruction. All of them, one behind the other: the convention counts.
  program::ArgumentPlace next(Dwarf_Die& parameter);

 private:
  int integers_ = 0, vectors_ = 0;  // registers that earlier ones have
  std::int64_t stack_ = 8;          // of the next one there, from rsp
};

}  // namespace ubp::debuginfo
