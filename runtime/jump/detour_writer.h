// Writes detours: puts together what the assembler makes of their blocks, once for each shape, and of the displaced
// instructions.
//
// Context: normal. Thread-safe: no. What DetourInfo::shape leads to lives as long as the writer.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <utility>

#include "runtime/jump/detour_plan.h"

namespace ubp::runtime {

class DetourAssembler;
struct BlockCode;

class DetourWriter {
 public:
  explicit DetourWriter(const DetourStorage& storage);
  ~DetourWriter();
  DetourWriter(const DetourWriter&) = delete;
  DetourWriter& operator=(const DetourWriter&) = delete;

  // How many bytes a detour takes. consumers: null where there are none.
  DetourSize size_of(const DetourPlan& plan, const DetourConsumers* consumers);

  // Writes the detour: what it stands for in `info`, whose entry, origin, point and jump_bytes are set, and its code.
  // out: size_of() bytes, to run so that what follows the head is at info.entry; code: the original bytes, plan.length
  // or jump_bytes, whichever is more; info stays where it is for ever. Throws std::exception where the size is another,
  // or something out of reach.
  void write(std::span<std::uint8_t> out, DetourInfo& info, const DetourPlan& plan, std::span<const std::uint8_t> code,
             const DetourConsumers* consumers);

  // Writes the jump to it. out: decoder::kJumpBytes + prefixes bytes.
  void write_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry);

 private:
  struct Shape;
  const Shape& shape_of(const DetourPlan& plan, const DetourConsumers* consumers);

  DetourStorage storage_;
  std::unique_ptr<DetourAssembler> assembler_;
  std::unique_ptr<const BlockCode> later_, by_segment_;
  std::map<std::pair<unsigned, const Shortcut*>, std::unique_ptr<const Shape>> shapes_;
};

}  // namespace ubp::runtime
