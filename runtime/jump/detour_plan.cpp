// Whether a detour's jump can be had, and its copies. See detour_plan.h.
#include "runtime/jump/detour_plan.h"

#include <algorithm>

#include "xol/slot_image.h"

namespace ubp::runtime {

bool boundary_pattern(const DetourPlan& plan, std::uint32_t prefixes, std::uint32_t kept,
                      std::span<const std::uint8_t> code, Pattern& pattern) {
  pattern = {};
  const auto fix = [&](std::uint32_t offset, std::uint8_t value) {
    if (offset <= prefixes) return false;  // a prefix's, or the opcode's
    const std::uint32_t shift = 8 * (offset - prefixes - 1);
    pattern.mask |= 0xffU << shift;
    pattern.value |= std::uint32_t{value} << shift;
    return true;
  };
  const std::uint32_t end = decoder::kJumpBytes + prefixes;
  for (const DetourPlan::Part& part : plan.parts) {
    if (part.offset != 0 && part.offset < std::min(end, kept) && !fix(part.offset, 0xcc)) return false;
  }
  for (std::uint32_t offset = kept; offset < end; ++offset) {
    if (!fix(offset, code[offset])) return false;
  }
  return true;
}

bool reaches(const DetourPlan& plan, std::uint64_t origin, std::uint64_t entry, std::span<const std::uint8_t> code) {
  return std::all_of(plan.parts.begin(), plan.parts.end(), [&](const DetourPlan::Part& part) {
    const std::uint64_t address = origin + part.offset;
    std::uint64_t target = address;
    if (part.chain != nullptr) return xol::in_reach(entry, 0, address, part.chain->entry);
    if (part.instruction.has_target) target += static_cast<std::uint64_t>(part.instruction.target);
    if (part.instruction.route == decoder::Route::kSlot && part.instruction.rip_disp_offset != 0) {
      const std::uint32_t field = xol::load32(&code[part.offset + part.instruction.rip_disp_offset]);
      target = address + part.instruction.length +
               static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(field)});
    }
    return xol::in_reach(entry, 0, address, target);
  });
}

}  // namespace ubp::runtime
