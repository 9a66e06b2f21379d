// Writing detours. See detour.h. Instruction encodings: Intel SDM volume 2.
#include "runtime/jump/detour_plan.h"

#include <algorithm>

#include "runtime/jump/detour_code.h"

namespace ubp::runtime {
namespace {

using decoder::Effect;
using decoder::Instruction;
using decoder::Route;

bool is_short_branch(Effect effect) {
  return effect == Effect::kLoop || effect == Effect::kLoopEqual || effect == Effect::kLoopNotEqual || effect == Effect::kJumpRcxZero;
}

std::uint32_t copy_bytes(const Instruction& instruction) {
  if (instruction.route == Route::kSlot) return instruction.length;
  switch (instruction.op.effect) {
    case Effect::kJump: return 5;
    case Effect::kJumpIf: return 6;
    case Effect::kCall: return 6 + 5 + 7 + 8;
    default: return is_short_branch(instruction.op.effect) ? instruction.length + 7U : instruction.length;
  }
}

// Writes what does the same as the instruction at `address`, which reads `code`.
void write_copy_of(Writer& writer, const Instruction& instruction, std::uint64_t address, std::span<const std::uint8_t> code) {
  const std::uint64_t target = address + static_cast<std::uint64_t>(instruction.target);
  if (instruction.route == Route::kSlot) {
    const std::uint64_t at = writer.here();
    writer.copy(code.first(instruction.length));
    if (instruction.rip_disp_offset == 0) return;
    std::uint8_t* const field = writer.back(instruction.length - instruction.rip_disp_offset);
    xol::store32(field, static_cast<std::uint32_t>(xol::load32(field) + (address - at)));
    return;
  }
  switch (instruction.op.effect) {
    case Effect::kJump:
      writer.bytes({0xe9});
      writer.displacement_to(target);
      return;
    case Effect::kJumpIf:
      writer.bytes({0x0f, static_cast<std::uint8_t>(0x80 | instruction.op.condition)});
      writer.displacement_to(target);
      return;
    case Effect::kCall: {  // push the original return address, which stands behind the jump; aligned: RFLAGS.AC may be set
      const auto gap = static_cast<std::uint32_t>(-(writer.here() + 6 + 5) & 7);
      writer.bytes({0xff, 0x35});
      writer.word(5 + gap);
      writer.bytes({0xe9});
      writer.displacement_to(target);
      for (std::uint32_t i = 0; i < gap; ++i) writer.bytes({0xcc});
      writer.quad(address + instruction.length);
      for (std::uint32_t i = gap; i < 7; ++i) writer.bytes({0xcc});
      return;
    }
    default:
      break;
  }
  writer.copy(code.first(instruction.length));
  if (!is_short_branch(instruction.op.effect)) return;
  *writer.back(1) = 2;           // taken: over the next jump
  writer.bytes({0xeb, 0x05, 0xe9});
  writer.displacement_to(target);
}

}  // namespace

bool boundary_pattern(const DetourPlan& plan, std::uint32_t prefixes, std::uint32_t kept, std::span<const std::uint8_t> code,
                      Pattern& pattern) {
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
    if (part.instruction.has_target) target += static_cast<std::uint64_t>(part.instruction.target);
    if (part.instruction.route == Route::kSlot && part.instruction.rip_disp_offset != 0) {
      const std::uint32_t field = xol::load32(&code[part.offset + part.instruction.rip_disp_offset]);
      target = address + part.instruction.length + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(field)});
    }
    return xol::in_reach(entry, 0, address, target);
  });
}

std::uint32_t detour_bytes(const DetourPlan& plan, const DetourConsumers* consumers) {
  std::uint32_t bytes = plan.parts.back().instruction.ends_block ? 0 : decoder::kJumpBytes;
  if (consumers != nullptr) {
    std::uint8_t scratch[1024];
    DetourInfo info;
    Writer writer(scratch, 0);
    write_consumers(writer, info, *consumers, plan.parts.front().counter, {});
    write_late(writer, info, consumers->deferred);
    bytes += writer.size();
  }
  for (const DetourPlan::Part& part : plan.parts) {
    const bool is_first = part.offset == 0;
    if (part.is_counted && !(is_first && consumers != nullptr)) {
      bytes += part.by_segment ? kSegmentCountBytes : is_first ? kCountBytes : kLaterCountBytes;
    }
    bytes += copy_bytes(part.instruction);
  }
  return bytes;
}

std::uint32_t detour_head_bytes(const DetourPlan& plan, const DetourConsumers* consumers) {
  return plan.parts.front().by_segment && consumers == nullptr ? sizeof(void*) : kDetourHead;
}

void write_detour(std::span<std::uint8_t> out, DetourInfo& info, const DetourPlan& plan, std::span<const std::uint8_t> code,
                  const DetourStorage& storage, const DetourConsumers* consumers) {
  info.count = static_cast<std::uint8_t>(plan.parts.size());
  info.length = static_cast<std::uint8_t>(plan.length);
  const std::uint32_t head_bytes = detour_head_bytes(plan, consumers);
  info.bytes = static_cast<std::uint16_t>(out.size() - head_bytes);
  std::copy_n(code.begin(), info.jump_bytes, info.original);

  Writer head(out, info.entry - head_bytes);
  head.quad(reinterpret_cast<std::uint64_t>(&info));
  if (head_bytes == kDetourHead) write_slow_way(head, storage);

  Writer writer(out.subspan(head_bytes), info.entry);
  for (std::uint32_t number = 0; number < plan.parts.size(); ++number) {
    const DetourPlan::Part& part = plan.parts[number];
    if (part.is_counted) {
      const bool calls = number == 0 && consumers != nullptr, by_segment = part.by_segment && !calls;
      info.counted = static_cast<std::uint16_t>(info.counted | 1U << number);
      if (by_segment) info.by_segment = static_cast<std::uint16_t>(info.by_segment | 1U << number);
      if (number != 0 && !by_segment) {
        writer.bytes({0xeb, kDetourSlowBytes});
        write_slow_way(writer, storage);
      }
      if (calls) {
        write_consumers(writer, info, *consumers, part.counter, storage);
      } else if (by_segment) {
        write_segment_count(writer, part.counter, storage);
      } else {
        write_count(writer, part.counter, storage);
      }
    }
    info.starts[number] = part.offset;
    info.copies[number] = static_cast<std::uint16_t>(writer.size());
    write_copy_of(writer, part.instruction, info.origin + part.offset, code.subspan(part.offset));
  }
  if (!plan.parts.back().instruction.ends_block) {
    writer.bytes({0xe9});
    writer.displacement_to(info.origin + plan.length);
  }
  if (consumers != nullptr) write_late(writer, info, consumers->deferred);
}

void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry) {
  const std::size_t prefixes = out.size() - decoder::kJumpBytes;
  for (std::size_t i = 0; i < prefixes; ++i) out[i] = 0x3e;  // ds: means nothing to a direct jump
  xol::write_jump(out.data() + prefixes, origin + prefixes, entry);
}

}  // namespace ubp::runtime
