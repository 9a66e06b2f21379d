// Expected Instructions for table-driven tests of classify(), and the loop that checks every field of every
// case.
//
// run() classifies each case alone and followed by junk, and every proper prefix of it, which must be
// truncated.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "decoder/classify.h"

namespace ubp::decoder {

using Bytes = std::vector<std::uint8_t>;

struct Case {
  const char* text;
  Bytes bytes;
  Instruction expected;
};

inline Instruction slot(std::uint8_t length, std::uint8_t rip_disp_offset = 0) {
  return {.length = length, .route = Route::kSlot, .rip_disp_offset = rip_disp_offset};
}

inline Instruction slot_jump(std::uint8_t length, std::uint8_t rip_disp_offset = 0) {
  return {.length = length, .route = Route::kSlot, .rip_disp_offset = rip_disp_offset, .ends_block = true};
}

inline Instruction system_call(std::uint8_t length) { return {.length = length, .route = Route::kSystem}; }

inline Instruction emulated(std::uint8_t length, EmulateOp op) {
  return {.length = length, .route = Route::kEmulate, .op = op};
}

inline Instruction branch(std::uint8_t length, Effect effect, std::int32_t displacement) {
  Instruction out = emulated(length, {.displacement = displacement, .effect = effect});
  out.ends_block = effect == Effect::kJump;
  out.is_call = effect == Effect::kCall;
  out.has_target = true;
  out.target = std::int64_t{length} + displacement;
  return out;
}

inline Instruction jump_if(std::uint8_t length, std::uint8_t condition, std::int32_t displacement) {
  Instruction out = branch(length, Effect::kJumpIf, displacement);
  out.op.condition = condition;
  return out;
}

inline Instruction narrow(Instruction out) {
  out.op.narrow_address = true;
  return out;
}

inline Instruction returning(std::uint8_t length, std::int32_t popped = 0) {
  Instruction out = emulated(length, {.displacement = popped, .effect = Effect::kReturn});
  out.ends_block = true;
  return out;
}

inline Instruction call_through(std::uint8_t length, EmulateOp op) {
  op.effect = Effect::kCallIndirect;
  Instruction out = emulated(length, op);
  out.is_call = true;
  return out;
}

inline Instruction call_memory(std::uint8_t length, EmulateOp op) {
  op.is_memory = true;
  return call_through(length, op);
}

inline Instruction refused(std::uint8_t length, Refusal refusal) { return {.length = length, .refusal = refusal}; }

inline Instruction refused_end(std::uint8_t length, Refusal refusal) {
  return {.length = length, .refusal = refusal, .ends_block = true};
}

inline Instruction refused_branch(std::uint8_t length, std::int64_t target) {
  return {.length = length, .refusal = Refusal::kOperandSizeBranch, .has_target = true, .target = target};
}

inline void check_equal(const Instruction& actual, const Instruction& expected) {
  CHECK(int{actual.length} == int{expected.length});
  CHECK(static_cast<int>(actual.route) == static_cast<int>(expected.route));
  CHECK(refusal_code(actual.refusal) == refusal_code(expected.refusal));
  CHECK(int{actual.rip_disp_offset} == int{expected.rip_disp_offset});
  CHECK(actual.ends_block == expected.ends_block);
  CHECK(actual.has_target == expected.has_target);
  CHECK(actual.is_call == expected.is_call);
  CHECK(actual.target == expected.target);
  CHECK(static_cast<int>(actual.op.effect) == static_cast<int>(expected.op.effect));
  CHECK(std::int32_t{actual.op.displacement} == std::int32_t{expected.op.displacement});
  CHECK(int{actual.op.condition} == int{expected.op.condition});
  CHECK(int{actual.op.base} == int{expected.op.base});
  CHECK(int{actual.op.index} == int{expected.op.index});
  CHECK(int{actual.op.scale} == int{expected.op.scale});
  CHECK(int{actual.op.segment} == int{expected.op.segment});
  CHECK(actual.op.is_memory == expected.op.is_memory);
  CHECK(actual.op.narrow_address == expected.op.narrow_address);
}

inline void run(const std::vector<Case>& cases) {
  for (const Case& test : cases) {
    CAPTURE(test.text);
    check_equal(classify(test.bytes), test.expected);
    for (const int junk : {0x00, 0x90, 0xff}) {
      Bytes longer = test.bytes;
      longer.resize(test.bytes.size() + 16, static_cast<std::uint8_t>(junk));
      check_equal(classify(longer), test.expected);
    }
    if (test.expected.length == 0) continue;
    CHECK(test.bytes.size() == test.expected.length);
    for (std::size_t size = 0; size < test.bytes.size(); ++size) {
      check_equal(classify({test.bytes.data(), size}), refused(0, Refusal::kTruncated));
    }
  }
}

}  // namespace ubp::decoder
