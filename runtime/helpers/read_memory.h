// What a run reads of the program's memory (trap/read_memory.h).
//
// Inline and free of libc. Context: hits; begin and end, where nothing is certain. Async-signal-safe: yes.
#pragma once

#include "runtime/helpers/memory.h"
#include "runtime/trap/read_memory.h"

namespace ubp::program {

inline bool is_at_hit(const Run* run) { return run->context->task != nullptr; }

// As many bytes as can be read; returns how many.
inline std::uint64_t read_memory(const Run* run, std::uint64_t address, void* to, std::uint64_t bytes) {
  return trap::read_memory(is_at_hit(run), address, to, bytes);
}

// Copies a text, up to its NUL, or to what cannot be read: how many bytes are before it. None: nothing can be
// read.
inline std::uint64_t read_text_of(const Run* run, std::uint64_t address, char* to, std::uint64_t most, bool& is_there) {
  is_there = false;
  if (!trap::may_ask()) return 0;
  std::uint64_t length = 0;
  if (trap::reads_by_loads(is_at_hit(run), address, most)) {
    const trap::Loaded loaded = trap::ubp_read_text(to, address, most);
    is_there = loaded.has_faulted == 0 || loaded.bytes != 0;
    if (loaded.has_faulted == 0) return loaded.bytes;
    length = loaded.bytes;
  }
  const std::uint64_t got = length + trap::read_by_call(address + length, to + length, most - length);
  is_there |= got != 0;
  while (length < got && to[length] != '\0') ++length;
  return length;
}

}  // namespace ubp::program
