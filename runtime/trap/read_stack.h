// Words of the stack that a walk begins on (stack/walk.h).
//
// Inline and free of libc. Context: hits, in the thread whose stack it is. Async-signal-safe: yes.
#pragma once

#include <cstdint>

#include "runtime/trap/read_memory.h"

namespace ubp::trap {

// Reads what may not be there, as read_memory(). But the page that the stack pointer is in stays for as long as its
// thread is here: once it has been read, loads do. They are aligned, whatever the thread has set.
class StackReader {
 public:
  StackReader(bool is_at_hit, std::uint64_t rsp) : is_at_hit_(is_at_hit), page_(rsp / kPage) {}

  [[gnu::always_inline]] bool operator()(std::uint64_t address, std::uint64_t* to, std::uint64_t words) const {
    const std::uint64_t bytes = words * sizeof *to;
    const bool is_own = address / kPage == page_ && (address + bytes - 1) / kPage == page_;
    if (is_own && is_there_ && address % sizeof *to == 0) [[likely]] {
      for (std::uint64_t i = 0; i < words; ++i)
        to[i] = *reinterpret_cast<const volatile std::uint64_t*>(address + i * sizeof *to);
      return true;
    }
    const bool is_read = read_memory(is_at_hit_, address, to, bytes) == bytes;
    is_there_ |= is_own && is_read && is_at_hit_;
    return is_read;
  }

 private:
  static constexpr std::uint64_t kPage = 4096;

  bool is_at_hit_;
  std::uint64_t page_;
  mutable bool is_there_ = false;
};

}  // namespace ubp::trap
