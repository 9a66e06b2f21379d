// find_boundary: is an offset of a function the start of an instruction?
//
// Decodes from the function's entry, since only those bytes are known to be code, or from what was found so. Load time
// only; no state.
#include "decoder/classify.h"

namespace ubp::decoder {

std::optional<Boundary> find_boundary(std::span<const std::uint8_t> code, std::uint32_t offset, std::uint32_t from) {
  if (offset >= code.size() || from > offset) return std::nullopt;
  std::uint32_t start = from;
  while (true) {
    const std::uint32_t length = classify(code.subspan(start)).length;
    const std::uint32_t next = start + length;
    if (start == offset) return Boundary{.is_boundary = true, .before = start, .after = next};
    if (length == 0) return std::nullopt;
    if (next > offset) return Boundary{.is_boundary = false, .before = start, .after = next};
    start = next;
  }
}

}  // namespace ubp::decoder
