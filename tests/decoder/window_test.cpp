// Windows: what a jump may displace, and what leads into it.
#include "decoder/window.h"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

namespace ubp::decoder {
namespace {

using Bytes = std::vector<std::uint8_t>;

// The problem of a five-byte jump at the start of `code`, of which `own` bytes are the function's.
WindowProblem problem(const Bytes& code, std::uint32_t own) {
  const FunctionCode function{code, own};
  return window_problem(function, 0, follow(function, 0, 16, kJumpBytes), kJumpBytes);
}

}  // namespace

TEST_CASE("window: whole instructions, up to what leaves") {
  const Bytes code = {0x55, 0x48, 0x89, 0xe5, 0x31, 0xc0, 0x5d, 0xc3};  // push; mov; xor; pop; ret
  const FunctionCode function{code, 8};
  const Straight straight = follow(function, 0, 16, kJumpBytes);
  REQUIRE(straight.parts.size() == 5);
  CHECK(straight.parts[1].offset == 1);
  CHECK(straight.parts[2].offset == 4);
  CHECK(straight.length == 8);
  CHECK(problem(code, 8) == WindowProblem::kNone);
}

TEST_CASE("window: padding behind a return is free, somebody's code is not") {
  CHECK(problem({0x89, 0xf8, 0xc3, 0x90, 0x90}, 3) == WindowProblem::kNone);            // mov; ret | nop; nop
  CHECK(problem({0x89, 0xf8, 0xc3, 0x55, 0xc3}, 3) == WindowProblem::kTooShort);        // mov; ret | push; ret
  CHECK(problem({0xc3, 0xf3, 0x0f, 0x1e, 0xfa}, 1) == WindowProblem::kTooShort);        // ret | endbr64
  CHECK(problem({0x89, 0xf8, 0xff, 0xc0, 0x90, 0x90}, 4) == WindowProblem::kTooShort);  // falls into the padding
  CHECK(problem({0xeb, 0x04, 0x66, 0x90, 0x66, 0x90, 0xc3}, 7) ==
        WindowProblem::kNone);                                                       // jmp; nops that nothing executes
  CHECK(problem({0x0f, 0x05, 0x90, 0x90, 0x90}, 5) == WindowProblem::kInstruction);  // syscall
}

TEST_CASE("window: a call ends it as soon as a jump fits") {
  const Bytes code = {0x48, 0x83, 0xec, 0x08, 0x31, 0xc0, 0xe8, 0, 0, 0, 0, 0xc3};
  const FunctionCode function{code, 12};
  CHECK(follow(function, 0, 16, kJumpBytes).length == 6);
  CHECK(follow(function, 4, 16, kJumpBytes).length ==
        7);  // inside, it may be: what is behind is reached by its return alone
}

TEST_CASE("window: branches into it") {
  // 1: xor %eax,%eax; 2: inc %eax; cmp %edi,%eax; jl 2b; ret
  const Bytes code = {0x31, 0xc0, 0xff, 0xc0, 0x39, 0xf8, 0x7c, 0xfa, 0xc3};
  const FunctionCode function{code, 9};
  BranchTargets targets(function);
  CHECK(targets.lead_into(1, 5));
  CHECK(targets.lead_into(2, 3));
  CHECK_FALSE(targets.lead_into(3, 8));
  CHECK_FALSE(targets.lead_into(0, 2));
  // A byte pair that only looks like a branch, in an immediate.
  const Bytes immediate = {0xb8, 0x7c, 0xfd, 0x00, 0x00, 0xc3};
  const FunctionCode other{immediate, 6};
  BranchTargets none(other);
  CHECK_FALSE(none.lead_into(0, 6));
}

TEST_CASE("window: where a jump has room for what leaves, and has none itself") {
  const auto approach = [](const Bytes& code, std::uint32_t begin, std::uint32_t offset) {
    const FunctionCode function{code, static_cast<std::uint32_t>(code.size())};
    BranchTargets targets(function);
    return approach_of(function, targets, begin, offset).value_or(0);
  };
  // seven nops; 7: xor %eax,%eax; 9: pop %rbx; 10: pop %r12; 12: ret; 13: cmp %edi,%esi; 15: ret
  Bytes code = {0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x31, 0xc0, 0x5b, 0x41, 0x5c, 0xc3, 0x39, 0xfe, 0xc3};
  CHECK(approach(code, 0, 12) == 7);   // four bytes from 9 on, six from here
  CHECK(approach(code, 9, 12) == 0);   // control comes from elsewhere before that
  CHECK(approach(code, 12, 12) == 0);  // and here it always does
  code[6] = 0x50;
  code[4] = 0xeb;  // 4: jmp 9 + ...: into the window of 7
  code[5] = 0x03;
  CHECK(approach(code, 6, 12) == 0);
  code[5] = 0x01;  // to 7 itself, which is where the jump stands
  CHECK(approach(code, 6, 12) == 7);
  // What a jump at the entry takes is left alone; and with room behind it, an exit needs nothing.
  CHECK(approach({0x31, 0xc0, 0x5b, 0x41, 0x5c, 0xc3, 0x39, 0xfe, 0xc3}, 0, 5) == 0);
  Bytes padded = code;
  padded[13] = padded[14] = padded[15] = 0x90;
  padded.insert(padded.end(), {0x90, 0xc3});
  CHECK(approach(padded, 6, 12) == 0);
}

TEST_CASE("window: what jumps behind a function's entry, from the code before it") {
  const Bytes near = {0x90, 0xeb, 0x05, 0x90, 0x90, 0x90, 0x90}, wide = {0xe9, 0x03, 0x00, 0x00, 0x00, 0x90};
  const auto found = jumps_behind_entry(near, 20), other = jumps_behind_entry(wide, 20);
  REQUIRE(found.size() == 1);
  CHECK((found[0].at == 1 && found[0].target == 1));
  REQUIRE(other.size() == 1);
  CHECK((other[0].at == 0 && other[0].target == 2));
  CHECK(jumps_behind_entry(near, 1).empty());
  CHECK(jumps_behind_entry(Bytes{0xeb, 0x00}, 20).empty());  // to the entry itself
  const FunctionCode function{near, 7};
  BranchTargets targets(function, {3});
  CHECK(targets.lead_into(3, 4));
  CHECK_FALSE(targets.lead_into(4, 7));
}

TEST_CASE("a branch anywhere in a function is seen, and only where it leads") {
  constexpr std::uint32_t kSize = 70, kJump = 5;
  for (std::uint32_t at = 0; at + kJump <= kSize; ++at) {
    for (std::uint32_t target = 0; target < kSize; ++target) {
      Bytes code(kSize, 0x90);
      code[at] = 0xe9;
      const std::uint32_t displacement = target - (at + kJump);
      std::memcpy(&code[at + 1], &displacement, sizeof displacement);
      const FunctionCode function{code, kSize};
      BranchTargets targets(function), others(function), below(function);
      REQUIRE(targets.lead_into(target, target + 1));
      REQUIRE_FALSE(others.lead_into(target + 1, target + 6));
      REQUIRE_FALSE(below.lead_into(target < 5 ? 0 : target - 5, target));
    }
  }
}

}  // namespace ubp::decoder
