// What of the process's memory can be read: text and tables that a module's headers promise may be gone, or protected.
//
// Context: normal. Async-signal-safe: yes. Thread-safe: no. What another thread unmaps meanwhile, nobody can know.
#pragma once

#include <sys/syscall.h>

#include <algorithm>
#include <cstdint>

#include "xol/sys.h"

namespace ubp::symbols {

// Remembers the pages that it has asked the kernel for, those of one run: made for one piece of work, in which the
// functions of a page are asked for one after another, and the page is asked for once.
class Readable {
 public:
  // The first address of [begin, end) that cannot be read; `end`: there is none.
  std::uint64_t end_of(std::uint64_t begin, std::uint64_t end) {
    if (begin < low_ || begin >= high_) low_ = high_ = begin & ~(sys::kPageBytes - 1);
    if (high_ < end && end - high_ > sys::kPageBytes && is_whole(high_, end))
      high_ = (end + sys::kPageBytes - 1) & ~(sys::kPageBytes - 1);
    while (high_ < end && sys::is_readable(high_)) high_ += sys::kPageBytes;
    return std::min(std::max(begin, high_), end);
  }

 private:
  // One call for many pages, which are about to be read: it maps them, too. Source: madvise(2), since Linux 5.14; an
  // older kernel says EINVAL, and is asked page by page.
  static bool is_whole(std::uint64_t begin, std::uint64_t end) {
    constexpr long kPopulateRead = 22;  // MADV_POPULATE_READ
    return !sys::failed(
        sys::call4(SYS_madvise, static_cast<long>(begin), static_cast<long>(end - begin), kPopulateRead));
  }

  std::uint64_t low_ = 0, high_ = 0;  // pages that can be read
};

}  // namespace ubp::symbols
