// Putting detours together. See detour_writer.h.
#include "runtime/jump/detour_writer.h"

#include <algorithm>
#include <stdexcept>

#include "runtime/jump/detour_assembler.h"

namespace ubp::runtime {

struct DetourWriter::Shape {
  DetourShape stages;
  BlockCode first, late;

  std::uint32_t head_bytes() const { return static_cast<std::uint32_t>(sizeof(void*)) + first.block.entry; }
};

DetourWriter::DetourWriter(const DetourStorage& storage)
    : storage_(storage), assembler_(std::make_unique<DetourAssembler>(storage)) {
  later_ = std::make_unique<const BlockCode>(assembler_->count(true));
  by_segment_ = std::make_unique<const BlockCode>(assembler_->count_by_segment());
}

DetourWriter::~DetourWriter() = default;

const DetourWriter::Shape& DetourWriter::shape_of(const DetourPlan& plan, const DetourConsumers* consumers) {
  const auto bits = [](std::initializer_list<bool> values) {
    unsigned all = 0;
    for (const bool value : values) all = all << 1 | static_cast<unsigned>(value);
    return all;
  };
  const bool acts = consumers != nullptr, by_segment = !acts && plan.parts.front().by_segment;
  const ActionNeeds needs = acts ? consumers->needs : ActionNeeds{};
  const ActionKind kind = acts ? needs.block : ActionKind::kCount;
  const bool has_shortcut = kind == ActionKind::kShortcut, records = kind == ActionKind::kRecord,
             calls = kind == ActionKind::kCall || has_shortcut;
  const unsigned key = bits({calls, records, by_segment, acts && consumers->is_inside, needs.reads, needs.modifies,
                             needs.xmm, needs.all_fp, needs.overrides});
  std::unique_ptr<const Shape>& kept = shapes_[{key, has_shortcut ? needs.shortcut : nullptr}];
  if (kept != nullptr) return *kept;
  auto shape = std::make_unique<Shape>();
  shape->first = records        ? assembler_->record()
                 : has_shortcut ? assembler_->shortcut(*consumers)
                 : calls        ? assembler_->consumers(*consumers)
                 : by_segment   ? *by_segment_
                                : assembler_->count(false);
  if (calls) shape->late = assembler_->late(shape->first, *consumers);
  shape->stages.first = shape->first.block;
  shape->stages.late = shape->late.block;
  shape->stages.later = &later_->block;
  shape->stages.by_segment = &by_segment_->block;
  shape->stages.is_for_consumers = acts;
  shape->stages.saves_direction = calls && consumers->is_inside;
  kept = std::move(shape);
  return *kept;
}

DetourSize DetourWriter::size_of(const DetourPlan& plan, const DetourConsumers* consumers) {
  const Shape& shape = shape_of(plan, consumers);
  std::uint32_t bytes = shape.first.block.bytes - shape.first.block.entry + std::uint32_t{shape.late.block.bytes};
  if (!plan.parts.back().instruction.ends_block) bytes += decoder::kJumpBytes;
  for (const DetourPlan::Part& part : plan.parts) {
    if (part.is_counted && part.offset != 0) bytes += (part.by_segment ? by_segment_ : later_)->block.bytes;
    bytes += part.chain != nullptr ? decoder::kJumpBytes : DetourAssembler::copy_bytes(part.instruction);
  }
  return {shape.head_bytes(), bytes};
}

void DetourWriter::write(std::span<std::uint8_t> out, DetourInfo& info, const DetourPlan& plan,
                         std::span<const std::uint8_t> code, const DetourConsumers* consumers) {
  const Shape& shape = shape_of(plan, consumers);
  DetourAssembler& assembler = *assembler_;
  const std::uint32_t head = shape.head_bytes();
  const auto behind_entry = [&] { return static_cast<std::uint16_t>(assembler.getSize() - head); };
  info.shape = &shape.stages;
  info.count = static_cast<std::uint8_t>(plan.parts.size());
  info.length = static_cast<std::uint8_t>(plan.length);
  info.bytes = static_cast<std::uint16_t>(out.size() - head);
  std::copy_n(code.begin(), info.jump_bytes, info.original);

  std::size_t resume = 0;
  const auto value_for = [&](std::uint32_t counter) {
    return [&, counter](Blank blank, std::size_t end) -> std::uint64_t {
      switch (blank) {
        case Blank::kCounter: return counter;
        case Blank::kInSegment: return static_cast<std::uint32_t>(storage_.segment) + counter;
        case Blank::kDropped: return consumers->dropped;
        case Blank::kSkipped: return consumers->skipped;
        case Blank::kPerformed: return consumers->performed;
        case Blank::kList: return consumers->list;
        case Blank::kPoint: return info.point;
        case Blank::kAction: return consumers->needs.counter;
        case Blank::kToLate: return head + info.late - end;
        case Blank::kToResume: return resume - end;
        case Blank::kToReturn: return head + info.late + shape.late.leave - end;
      }
      return 0;
    };
  };
  const auto put = [&](const BlockCode& block, std::uint32_t counter) {
    const std::size_t at = assembler.getSize();
    assembler.put(block);
    assembler.fill(block, at, value_for(counter));
  };

  assembler.start_at(info.entry - head);
  assembler.dq(reinterpret_cast<std::uint64_t>(&info));
  const std::size_t first = assembler.getSize();
  resume = first + shape.first.resume;
  assembler.put(shape.first);
  for (std::uint32_t number = 0; number < plan.parts.size(); ++number) {
    const DetourPlan::Part& part = plan.parts[number];
    if (part.is_counted) {
      const bool by_segment = part.by_segment && (number != 0 || consumers == nullptr);
      info.counted = static_cast<std::uint16_t>(info.counted | 1U << number);
      if (by_segment) info.by_segment = static_cast<std::uint16_t>(info.by_segment | 1U << number);
      if (number != 0) put(by_segment ? *by_segment_ : *later_, part.counter);
    }
    info.starts[number] = part.offset;
    info.copies[number] = behind_entry();
    if (part.chain != nullptr) {
      info.chain = part.chain;
      info.chain_part = static_cast<std::uint8_t>(number);
      assembler.jump_to(part.chain->entry);
    } else {
      assembler.copy_of(part.instruction, info.origin + part.offset, code.subspan(part.offset));
    }
  }
  if (!plan.parts.back().instruction.ends_block) assembler.jump_to(info.origin + plan.length);
  if (!shape.late.bytes.empty()) {
    info.late = behind_entry();
    put(shape.late, 0);
  }
  assembler.fill(shape.first, first, value_for(plan.parts.front().counter));
  const std::span<const std::uint8_t> written = assembler.written();
  if (written.size() != out.size()) throw std::logic_error("a detour is not as long as it was said to be");
  std::copy(written.begin(), written.end(), out.begin());
}

void DetourWriter::write_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry) {
  constexpr int kNoSegment = 0x3e;  // ds: means nothing to a direct jump
  assembler_->start_at(origin);
  while (assembler_->getSize() + decoder::kJumpBytes < out.size()) assembler_->db(kNoSegment);
  assembler_->jump_to(entry);
  const std::span<const std::uint8_t> written = assembler_->written();
  std::copy(written.begin(), written.end(), out.begin());
}

}  // namespace ubp::runtime
