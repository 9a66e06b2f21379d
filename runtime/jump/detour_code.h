// Probepoints code for detours: a writer of instructions, and what stands before the copies of a detour.
//
// Context: normal. Instruction encodings: Intel SDM volume 2.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include "runtime/jump/detour_plan.h"

namespace ubp::runtime {

// Appends code.
class Writer {
 public:
  Writer(std::span<std::uint8_t> out, std::uint64_t address) : out_(out), address_(address) {}
  std::uint32_t size() const { return used_; }
  std::uint64_t here() const { return address_ + used_; }

  void bytes(std::initializer_list<std::uint8_t> values) {
    for (const std::uint8_t value : values) out_[used_++] = value;
  }
  void copy(std::span<const std::uint8_t> values) {
    for (const std::uint8_t value : values) out_[used_++] = value;
  }
  void word(std::uint32_t value) {
    xol::store32(&out_[used_], value);
    used_ += 4;
  }
  void quad(std::uint64_t value) {
    xol::store64(&out_[used_], value);
    used_ += 8;
  }
  std::uint8_t* back(std::uint32_t back) { return &out_[used_ - back]; }  // so many bytes back
  // A displacement that ends the instruction.
  void displacement_to(std::uint64_t target) { word(static_cast<std::uint32_t>(target - (here() + 4))); }
  // mov between a register (0 rax, 1 rcx) and the thread's storage.
  void storage(std::uint8_t opcode, std::uint8_t reg, std::int32_t offset) {
    bytes({0x64, 0x48, opcode, static_cast<std::uint8_t>(0x04 | reg << 3), 0x25});
    word(static_cast<std::uint32_t>(offset));
  }

 private:
  std::span<std::uint8_t> out_;
  std::uint64_t address_;
  std::uint32_t used_ = 0;
};

inline constexpr std::uint8_t kLoad = 0x8b, kStore = 0x89, kRax = 0, kRcx = 1, kRdx = 2, kRsp = 4, kRsi = 6, kRdi = 7, kR15 = 15;

// Where the hit is left to the breakpoint tier: rcx is spilled.
void write_slow_way(Writer& writer, const DetourStorage& storage);
// Counts, by the 69 bytes that kCountBytes says.
void write_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage);
// Counts in one instruction, by the 9 bytes that kSegmentCountBytes says.
void write_segment_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage);
// Counts, and calls the consumers or records; says in `info` where.
void write_consumers(Writer& writer, DetourInfo& info, const DetourConsumers& consumers, std::uint32_t counter, const DetourStorage& storage);
// What belongs to that, behind the copies.
void write_late(Writer& writer, DetourInfo& info, std::uint32_t deferred);

}  // namespace ubp::runtime
