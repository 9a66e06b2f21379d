// What a detour does of a program by itself. See detour_assembler.h and runtime/table/shortcut.h.
#include <algorithm>
#include <type_traits>

#include "runtime/jump/detour_assembler.h"
#include "runtime/table/shortcut.h"
#include "runtime/trap/trap_state.h"

namespace ubp::runtime {

using Step = ShortcutStep;
using Xbyak::Label;
using Xbyak::Reg64;

namespace {

bool is_short(std::uint64_t number) {
  return number == static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(number)});
}

bool is_shift(const Step& step) { return step.kind >= Step::kShiftLeft && step.kind <= Step::kShiftSigned; }

bool takes_operand(const Step& step) { return step.kind <= Step::kXor || is_shift(step) || step.kind == Step::kBranch; }

}  // namespace

// What a shortcut's code keeps where: rcx leads to where the task counts, until it is lost to an operand; rax has the
// status flags, rdx the number at hand, if there is one.
class ShortcutRegisters {
 public:
  explicit ShortcutRegisters(const Shortcut& shortcut)
      : has_number_(shortcut.act != Shortcut::kCall ||
                    std::any_of(shortcut.filter.begin(), shortcut.filter.end(),
                                [](const Step& step) { return step.kind == Step::kLoad; })) {}
  bool has_number() const { return has_number_; }
  bool is_spilled(std::uint64_t reg) const {
    return reg == Xbyak::Operand::RCX || reg == Xbyak::Operand::RAX || (reg == Xbyak::Operand::RDX && has_number_);
  }
  // Whether a step's operand goes through rcx.
  bool loses_rcx(const Step& step) const {
    if (!takes_operand(step) || step.kind == Step::kLoad) return false;
    if (is_shift(step)) return step.is_register;
    if (!step.is_register) return !is_short(step.operand);
    return step.kind == Step::kBranch && step.subject >= 0 && is_spilled(step.operand) &&
           is_spilled(static_cast<std::uint64_t>(step.subject));
  }

 private:
  bool has_number_;
};

// The status flags are in rax, as in a DetourSave.
void DetourAssembler::keep_flags() {
  lahf();
  seto(al);
  holds(kStatusInRax);
}

// A comparison sets OF as it was, and leaves rax as it is until all is done.
void DetourAssembler::restore_flags() {
  constexpr std::uint8_t kOverflowsFromOne = 0x81;  // 1 + 127 does, 0 + 127 does not
  cmp(al, kOverflowsFromOne);
  sahf();
  holds_no_longer(kStatusInRax | kStatusSpilled);
}

// Gives the thread its registers back: with_rcx: all of them.
void DetourAssembler::leave_shortcut(const ShortcutRegisters& registers, bool with_rcx) {
  restore_flags();
  if (registers.has_number()) unspill(rdx);
  unspill(rax);
  if (with_rcx) unspill(rcx);
}

// Calls use() with a step's operand, a register, memory or a number of 32 bits, to write one instruction.
template <typename Use>
void DetourAssembler::with_operand(const ShortcutStep& step, const ShortcutRegisters& registers, const Use& use) {
  const Reg64 reg(static_cast<int>(step.operand % 16));
  const bool is_spilled = step.is_register && registers.is_spilled(step.operand);
  if (registers.loses_rcx(step)) {
    if (!step.is_register) {
      mov(rcx, step.operand);
    } else if (is_spilled) {
      mov(rcx, thread(spilled_at(reg)));
    } else {
      mov(rcx, reg);
    }
    use(rcx);
  } else if (!step.is_register) {
    use(static_cast<std::uint32_t>(step.operand));
  } else if (is_spilled) {
    use(thread(spilled_at(reg), &qword));
  } else {
    use(reg);
  }
}

void DetourAssembler::branch(const ShortcutStep& step, const ShortcutRegisters& registers, const Label& target) {
  using JumpIf = void (CodeGenerator::*)(const Label&, LabelType);
  static constexpr JumpIf kJumpIf[16] = {
      &CodeGenerator::jo, &CodeGenerator::jno, &CodeGenerator::jb,  &CodeGenerator::jae,
      &CodeGenerator::je, &CodeGenerator::jne, &CodeGenerator::jbe, &CodeGenerator::ja,
      &CodeGenerator::js, &CodeGenerator::jns, &CodeGenerator::jp,  &CodeGenerator::jnp,
      &CodeGenerator::jl, &CodeGenerator::jge, &CodeGenerator::jle, &CodeGenerator::jg};
  const Reg64 subject(step.subject >= 0 ? step.subject : rdx.getIdx());
  const bool is_in_memory = step.subject >= 0 && registers.is_spilled(static_cast<std::uint64_t>(step.subject));
  with_operand(step, registers, [&](const auto& operand) {
    is_in_memory ? cmp(thread(spilled_at(subject), &qword), operand) : cmp(subject, operand);
  });
  (this->*kJumpIf[step.condition])(target, T_NEAR);
}

// A step that changes the number at hand.
void DetourAssembler::compute(const ShortcutStep& step, const ShortcutRegisters& registers) {
  const auto with = [&](const auto& by_operand, const auto& by_number) {
    with_operand(step, registers, [&](const auto& operand) {
      if constexpr (std::is_same_v<decltype(operand), const std::uint32_t&>) {
        by_number(operand);
      } else {
        by_operand(operand);
      }
    });
  };
  const auto number_of = [](std::uint32_t operand) { return static_cast<int>(operand); };
  switch (step.kind) {
    case Step::kLoad:
      if (!step.is_register) return mov(rdx, step.operand);
      return with_operand(step, registers, [&](const auto& operand) { mov(rdx, operand); });
    case Step::kAdd: return with_operand(step, registers, [&](const auto& operand) { add(rdx, operand); });
    case Step::kSubtract: return with_operand(step, registers, [&](const auto& operand) { sub(rdx, operand); });
    case Step::kAnd: return with_operand(step, registers, [&](const auto& operand) { and_(rdx, operand); });
    case Step::kOr: return with_operand(step, registers, [&](const auto& operand) { or_(rdx, operand); });
    case Step::kXor: return with_operand(step, registers, [&](const auto& operand) { xor_(rdx, operand); });
    case Step::kMultiply:
      return with([&](const auto& operand) { imul(rdx, operand); },
                  [&](std::uint32_t operand) { imul(rdx, rdx, number_of(operand)); });
    case Step::kShiftLeft:
      return with([&](const auto&) { shl(rdx, cl); }, [&](std::uint32_t by) { shl(rdx, number_of(by & 63)); });
    case Step::kShiftRight:
      return with([&](const auto&) { shr(rdx, cl); }, [&](std::uint32_t by) { shr(rdx, number_of(by & 63)); });
    case Step::kShiftSigned:
      return with([&](const auto&) { sar(rdx, cl); }, [&](std::uint32_t by) { sar(rdx, number_of(by & 63)); });
    case Step::kExtend:
      switch (step.operand) {
        case 8: return step.is_signed ? movsx(rdx, dl) : movzx(edx, dl);
        case 16: return step.is_signed ? movsx(rdx, dx) : movzx(edx, dx);
        default: return step.is_signed ? movsxd(rdx, edx) : mov(edx, edx);
      }
    default: return;
  }
}

// Counts the hit, and then what has become of it.
void DetourAssembler::count_as(Blank outcome) {
  mov(rcx, thread(storage_.state));
  mov(rcx, ptr[rcx + offsetof(trap::TaskState, fast)]);
  inc(qword[rcx + kBlank]);
  leave_blank(Blank::kCounter);
  holds(kCounted);
  inc(qword[rcx + kBlank]);
  leave_blank(outcome);
}

// Goes on behind it where the filter says yes; where it says no, to that label.
void DetourAssembler::ask(const Shortcut& shortcut, const ShortcutRegisters& registers, const Label& no) {
  std::vector<Label> labels(shortcut.labels);
  for (const Step& step : shortcut.filter) {
    const Label& target = step.label == Shortcut::kNo ? no : labels[step.label];
    switch (step.kind) {
      case Step::kBranch: branch(step, registers, target); break;
      case Step::kGo: jmp(target, T_NEAR); break;
      case Step::kLabel: L(labels[step.label]); break;
      default: compute(step, registers);
    }
  }
}

// The hit is one, and its filter has said no.
void DetourAssembler::skip() {
  count_as(Blank::kSkipped);
  holds_no_longer(kUnconsumed);
}

// Adds to the task's own cell, unless that is for the program to do. What is written last is already known when the hit
// counts as performed, so that whoever interrupts the two finishes them.
void DetourAssembler::perform(const Shortcut& shortcut, const ShortcutRegisters& registers, const Label& calls) {
  mov(thread(storage_.status), rax);
  note((holds_ & ~std::uint32_t{kStatusInRax}) | kStatusSpilled);
  for (const Step& step : shortcut.value) compute(step, registers);
  mov(rcx, reinterpret_cast<std::uint64_t>(shortcut.gate));
  cmp(dword[rcx], 0);
  jne(calls, T_NEAR);
  mov(rcx, thread(storage_.state));
  mov(ecx, ptr[rcx + offsetof(trap::TaskState, block)]);
  mov(rax, reinterpret_cast<std::uint64_t>(shortcut.cells));
  mov(rcx, ptr[rax + rcx * 8]);
  test(rcx, rcx);
  jz(calls, T_NEAR);
  if (shortcut.act == Shortcut::kAddValue) {
    mov(rax, ptr[rcx]);
    add(rax, rdx);
    mov(rdx, rcx);
  } else {
    if (shortcut.act == Shortcut::kAddOne) {
      mov(rdx, rcx);
    } else {
      if (shortcut.calls_negative) {
        test(rdx, rdx);
        js(calls, T_NEAR);
      }
      mov(rax, ~std::uint64_t{0});
      bsr(rdx, rdx);
      cmovz(rdx, rax);
      lea(rdx, ptr[rcx + rdx * 8 + 2 * sizeof(std::uint64_t)]);
    }
    mov(rax, ptr[rdx]);
    inc(rax);
  }
  count_as(Blank::kPerformed);
  note((holds_ & ~std::uint32_t{kUnconsumed}) | kStoresRax);
  mov(ptr[rdx], rax);
  holds_no_longer(kStoresRax);
  mov(rax, thread(storage_.status));
}

// What most hits do comes last, and falls through to the copies; the general way first.
BlockCode DetourAssembler::shortcut(const DetourConsumers& consumers) {
  const Shortcut& shortcut = *consumers.needs.shortcut;
  const ShortcutRegisters registers(shortcut);
  const bool calls = shortcut.act == Shortcut::kCall;
  const std::uint32_t kept =
      kUnconsumed | kRcxSpilled | kRaxSpilled | (registers.has_number() ? std::uint32_t{kRdxSpilled} : 0);
  start_block();
  Label general, leaves, no, slow, over;
  L(general);
  note(kUnconsumed | kRcxSpilled);
  call_consumers(consumers);
  note(kCounted);
  jmp(over, T_NEAR);

  L(leaves);
  note(kept | (calls ? kStatusInRax : kStatusSpilled));
  if (!calls) mov(rax, thread(storage_.status));
  leave_shortcut(registers, false);
  jmp(general, T_NEAR);

  if (!calls && !shortcut.filter.empty()) {
    note(kept | kStatusInRax);
    L(no);
    skip();
    leave_shortcut(registers, true);
    jmp(over, T_NEAR);
  }

  note(kUnconsumed);
  slow_way(slow);
  enter(slow);
  spill(rax);
  keep_flags();
  if (registers.has_number()) spill(rdx);
  ask(shortcut, registers, no);
  if (calls) {
    jmp(leaves, T_NEAR);
    L(no);
    skip();
  } else {
    perform(shortcut, registers, leaves);
  }
  leave_shortcut(registers, true);
  L(over);
  return finish_block();
}

}  // namespace ubp::runtime
