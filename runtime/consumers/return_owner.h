// A registration, as far as its returns go, and its functions: what hits know of them.
//
// Plain data, free of libc. What a frame may refer to is never freed.
#pragma once

#include <cstdint>

#include "runtime/consumers/consumer_list.h"

namespace ubp::runtime {

struct CodeSpan {
  std::uint64_t begin, end;  // run-time addresses
};
struct CodeSpans {
  const CodeSpan* spans;  // ascending
  std::uint64_t count;
};

struct ReturnOwner {
  std::uint16_t generation;        // changes whenever it is enabled or disabled
  const CodeSpans* followed;       // whose exits it watches
  const void* family = nullptr;    // of its calls (call_stack.h); null: nothing is kept of them
  bool keeps_arguments = false;    // likewise
  bool is_net = false;             // its calls' times are without those of its probes
  ubp_consumer entered = nullptr;  // is called at entries, too, when what is kept of them is known; null: nothing is
  void* entered_data = nullptr;
  bool is_for_other_hits = false;  // what is kept is for who is hit within the calls (kept_arguments.h)
};

struct ReturnFunction {
  const ReturnOwner* owner;
  Consumer told;          // at a return: what is called, with the entry's probepoint
  std::uint64_t entry;    // its run-time address
  std::uint32_t entries;  // its first counter
  bool returns_twice;     // vfork
};

}  // namespace ubp::runtime
