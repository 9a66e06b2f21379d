// Emulated instructions against the processor: each runs natively in a little assembly function and through emulate().
#include <doctest/doctest.h>

#include <initializer_list>

#include "xol/emulate.h"

using namespace ubp::xol;
using namespace ubp::decoder;

namespace {

struct Probepoints {
  std::uint64_t gpr[16] = {};
  std::uint64_t flags = 0x202;

  Registers registers() const {
    Registers regs{};
    for (int i = 0; i < 16; ++i) regs.gpr[i] = &gpr[i];
    regs.rflags = flags;
    return regs;
  }
};

Displaced point_of(EmulateOp op, std::uint8_t length) {
  Displaced point;
  point.address = 0x401000;
  point.length = length;
  point.route = Route::kEmulate;
  point.op = op;
  return point;
}

EmulateOp op_of(Effect effect) {
  EmulateOp op;
  op.effect = effect;
  return op;
}

// What the processor does with a condition under the given flags.
#define NATIVE(cc)                                                                                  \
  [](std::uint64_t flags) {                                                                         \
    std::uint8_t taken;                                                                             \
    asm volatile("pushq %1\n\tpopfq\n\tset" #cc " %0" : "=q"(taken) : "r"(flags) : "cc", "memory"); \
    return taken != 0;                                                                              \
  }
bool (*const kNative[16])(std::uint64_t) = {NATIVE(o),  NATIVE(no), NATIVE(b),  NATIVE(ae), NATIVE(e), NATIVE(ne),
                                            NATIVE(be), NATIVE(a),  NATIVE(s),  NATIVE(ns), NATIVE(p), NATIVE(np),
                                            NATIVE(l),  NATIVE(ge), NATIVE(le), NATIVE(g)};

}  // namespace

TEST_CASE("all sixteen conditions under all flag combinations agree with the processor") {
  constexpr std::uint64_t kBits[] = {0x1, 0x4, 0x40, 0x80, 0x800};
  for (unsigned combination = 0; combination < 32; ++combination) {
    std::uint64_t flags = 0x202;
    for (unsigned bit = 0; bit < 5; ++bit) {
      if (combination >> bit & 1) flags |= kBits[bit];
    }
    for (std::uint8_t condition = 0; condition < 16; ++condition) {
      CAPTURE(int{condition});
      CAPTURE(flags);
      REQUIRE(condition_holds(condition, flags) == kNative[condition](flags));
    }
  }
}

TEST_CASE("jumps go to target or next and touch nothing else") {
  Probepoints machine;
  machine.gpr[4] = 0x7ffe0000;
  machine.gpr[1] = 77;
  EmulateOp op = op_of(Effect::kJumpIf);
  op.displacement = -0x20;
  op.condition = 4;
  machine.flags = 0x242;
  Outcome taken = emulate(point_of(op, 2), machine.registers());
  CHECK(taken.rip == 0x401000 + 2 - 0x20);
  CHECK(taken.rsp == 0x7ffe0000);
  CHECK(taken.rcx == 77);
  CHECK_FALSE(taken.stores);
  machine.flags = 0x202;
  CHECK(emulate(point_of(op, 2), machine.registers()).rip == 0x401002);
  op.effect = Effect::kJump;
  CHECK(emulate(point_of(op, 5), machine.registers()).rip == 0x401005 - 0x20);
  CHECK(emulate(point_of(op_of(Effect::kNone), 9), machine.registers()).rip == 0x401009);
}

TEST_CASE("loops count in 64 or 32 bits and look at ZF") {
  Probepoints machine;
  EmulateOp op = op_of(Effect::kLoop);
  op.displacement = 0x10;
  machine.gpr[1] = 1;
  Outcome out = emulate(point_of(op, 2), machine.registers());
  CHECK(out.rcx == 0);
  CHECK(out.rip == 0x401002);
  machine.gpr[1] = 0;
  out = emulate(point_of(op, 2), machine.registers());
  CHECK(out.rcx == ~std::uint64_t{0});
  CHECK(out.rip == 0x401012);
  op.narrow_address = true;
  machine.gpr[1] = 0x500000000;  // ecx is 0
  out = emulate(point_of(op, 3), machine.registers());
  CHECK(out.rcx == 0xffffffff);
  CHECK(out.rip == 0x401013);
  machine.gpr[1] = 0x500000001;
  CHECK(emulate(point_of(op, 3), machine.registers()).rip == 0x401003);
  op.narrow_address = false;
  machine.gpr[1] = 5;
  for (const bool zero : {false, true}) {
    machine.flags = zero ? 0x242 : 0x202;
    op.effect = Effect::kLoopEqual;
    CHECK((emulate(point_of(op, 2), machine.registers()).rip == 0x401012) == zero);
    op.effect = Effect::kLoopNotEqual;
    CHECK((emulate(point_of(op, 2), machine.registers()).rip == 0x401012) == !zero);
  }
}

TEST_CASE("jrcxz and jecxz") {
  Probepoints machine;
  EmulateOp op = op_of(Effect::kJumpRcxZero);
  op.displacement = 0x10;
  machine.gpr[1] = 0x100000000;
  CHECK(emulate(point_of(op, 2), machine.registers()).rip == 0x401002);
  op.narrow_address = true;
  const Outcome out = emulate(point_of(op, 3), machine.registers());
  CHECK(out.rip == 0x401013);
  CHECK(out.rcx == 0x100000000);  // only tested
}

TEST_CASE("push and call store below the stack pointer, and only name the store") {
  alignas(16) std::uint64_t stack[4] = {11, 22, 33, 44};
  Probepoints machine;
  machine.gpr[4] = reinterpret_cast<std::uint64_t>(&stack[2]);
  EmulateOp op = op_of(Effect::kPush);
  op.base = 4;  // push %rsp stores the value before the push
  Outcome out = emulate(point_of(op, 1), machine.registers());
  CHECK(out.store_value == machine.gpr[4]);
  CHECK(out.store_address == reinterpret_cast<std::uint64_t>(&stack[1]));
  CHECK(out.rsp == out.store_address);
  CHECK(stack[1] == 22);
  op = op_of(Effect::kCall);
  op.displacement = 0x1000;
  out = emulate(point_of(op, 5), machine.registers());
  CHECK(out.rip == 0x402005);
  CHECK(out.store_value == 0x401005);  // the original return address
  CHECK(stack[1] == 22);
}

TEST_CASE("indirect calls read their target before the push") {
  std::uint64_t table[8] = {0, 0, 0x1111, 0x2222, 0x3333, 0, 0, 0};
  Probepoints machine;
  machine.gpr[4] = reinterpret_cast<std::uint64_t>(&table[2]);
  EmulateOp op = op_of(Effect::kCallIndirect);
  op.is_memory = true;
  op.base = 4;
  op.displacement = 8;  // call *8(%rsp): the pre-push %rsp
  CHECK(emulate(point_of(op, 4), machine.registers()).rip == 0x2222);
  op.base = 3;
  op.index = 9;
  op.scale = 3;
  op.displacement = -8;
  machine.gpr[3] = reinterpret_cast<std::uint64_t>(table);
  machine.gpr[9] = 5;
  CHECK(emulate(point_of(op, 5), machine.registers()).rip == 0x3333);
  op = op_of(Effect::kCallIndirect);
  op.base = 4;  // call *%rsp
  CHECK(emulate(point_of(op, 2), machine.registers()).rip == machine.gpr[4]);
}

TEST_CASE("RIP-relative and fs-relative pointers") {
  static std::uint64_t pointer = 0x4242;
  Probepoints machine;
  EmulateOp op = op_of(Effect::kCallIndirect);
  op.is_memory = true;
  op.base = kRipRegister;
  op.displacement = 0x40;
  Displaced point = point_of(op, 6);
  point.address = reinterpret_cast<std::uint64_t>(&pointer) - 0x40 - 6;
  CHECK(emulate(point, machine.registers()).rip == 0x4242);
  op.base = kNoRegister;
  op.segment = 1;
  op.displacement = 0;  // %fs:0 holds its own address (psABI TLS variant II)
  std::uint64_t self;
  asm("movq %%fs:0, %0" : "=r"(self));
  CHECK(emulate(point_of(op, 8), machine.registers()).rip == self);
}

TEST_CASE("ret pops the address and its immediate") {
  std::uint64_t stack[2] = {0x777, 0x888};
  Probepoints machine;
  machine.gpr[4] = reinterpret_cast<std::uint64_t>(stack);
  EmulateOp op = op_of(Effect::kReturn);
  CHECK(emulate(point_of(op, 1), machine.registers()).rip == 0x777);
  CHECK(emulate(point_of(op, 1), machine.registers()).rsp == machine.gpr[4] + 8);
  op.displacement = 0x18;
  CHECK(emulate(point_of(op, 3), machine.registers()).rsp == machine.gpr[4] + 8 + 0x18);
}

TEST_CASE("32-bit addresses wrap") {
  Probepoints machine;
  EmulateOp op = op_of(Effect::kCallIndirect);
  op.base = 3;
  op.displacement = 0x10;
  op.narrow_address = true;
  machine.gpr[3] = 0xfffffffffffffff8;
  CHECK(effective_address(op, machine.registers(), 0) == 8);
}
