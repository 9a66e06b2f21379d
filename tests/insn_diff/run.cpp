// Native and displaced runs. The displaced one does what the trap path does: a slot and the translation of a
// context interrupted there, or xol::emulate, its store, and IRETQ to its result.
#include "tests/insn_diff/run.h"

#include <signal.h>

#include <algorithm>
#include <cstring>

#include "decoder/window.h"
#include "xol/emulate.h"

namespace ubp::insn_diff {
namespace {

constexpr std::uint64_t kResumeFlag = 0x10000, kTrapFlag = 0x100;

}  // namespace

const char* control_name(Control control) {
  static constexpr const char* kNames[] = {"none",          "displacement", "count", "return address",
                                           "fault address", "syscall",      "flags"};
  return kNames[static_cast<int>(control)];
}

xol::Displaced make_displaced(std::uint64_t address, const std::uint8_t* bytes,
                              const decoder::Instruction& instruction) {
  xol::Displaced point;
  point.address = address;
  point.length = instruction.length;
  point.route = instruction.route;
  point.rip_disp_offset = instruction.rip_disp_offset;
  point.first_byte = bytes[0];
  if (instruction.route == decoder::Route::kEmulate) {
    point.op = instruction.op;
  } else {
    std::memcpy(point.bytes, bytes, instruction.length);
  }
  return point;
}

// Of the one instruction, and a jump back.
bool Runner::write_detour(const Case& c) {
  const std::span<const std::uint8_t> code(c.code.data(), c.length());
  const decoder::Straight straight = decoder::follow({code, c.length()}, 0, 1, decoder::kJumpBytes);
  if (straight.parts.size() != 1) return false;
  runtime::DetourPlan plan;
  plan.parts.push_back({0, straight.parts[0].instruction, true, false, 0});
  plan.length = c.length();
  info_ = {};
  size_ = writer_.size_of(plan, nullptr);
  info_.entry = c.slot + size_.head;
  info_.origin = c.address;
  if (!runtime::reaches(plan, c.address, info_.entry, code)) return false;
  const std::uint32_t bytes = size_.head + size_.code;
  if (c.slot % kSlotRegionBytes + bytes > kSlotRegionBytes) return false;
  writer_.write({c.slot_rw, bytes}, info_, plan, code, nullptr);
  copy_ = info_.entry + info_.copies[0];
  std::uint8_t* const copy = c.slot_rw + (copy_ - c.slot);
  const bool is_copied = std::memcmp(copy, code.data(), c.kind.rip_disp_offset) == 0;
  if (control_ == Control::kDisplacement && c.kind.rip_disp_offset != 0 && is_copied) ++copy[c.kind.rip_disp_offset];
  if (control_ == Control::kReturnAddress && c.kind.is_call) ++copy[6 + (copy[2] | copy[3] << 8)];
  return true;
}

void Runner::finish(const Case& c) {
  clear_code(c);
  if (detours_) std::memset(c.slot_rw, 0xcc, size_.head + size_.code);
}

bool Runner::prepare(const Case& c) {
  write_code(machine_, c);
  copy_ = c.slot;
  if (detours_ && !write_detour(c)) return false;
  point_ = make_displaced(c.address, c.code.data(), c.kind);
  const auto at = xol::SlotAddress{c.slot};
  if (detours_) return true;
  if (c.kind.route == decoder::Route::kSlot) xol::write_slot(c.slot_rw, at, point_);
  if (c.kind.route == decoder::Route::kSystem) xol::write_permanent_slot(c.slot_rw, at, point_);
  if (control_ == Control::kDisplacement && c.kind.rip_disp_offset != 0) ++c.slot_rw[c.kind.rip_disp_offset];
  if (control_ == Control::kSyscall && c.kind.route == decoder::Route::kSystem && c.code[0] == 0x0f) {
    std::memset(c.slot_rw + c.length(), 0x90, 10);
  }
  return true;
}

void Runner::native(const Case& c, const State& state, Outcome& out) {
  machine_.put_memory(*c.world, state.memory);
  machine_.run(state, c.address, out);
  machine_.get_memory(*c.world, out.memory);
}

void Runner::displaced(const Case& c, const State& state, Outcome& out) {
  machine_.put_memory(*c.world, state.memory);
  if (c.kind.route == decoder::Route::kEmulate && !detours_) {
    emulated(c, state, out);
  } else {
    machine_.run(state, copy_, out);
    translate(c, out);
  }
  machine_.get_memory(*c.world, out.memory);
}

void Runner::emulated(const Case& c, const State& state, Outcome& out) {
  xol::Outcome effect;
  const bool computed = machine_.emulate(state, point_, effect, out);
  if (control_ == Control::kCount) effect.rcx = state.gpr[1];
  if (control_ == Control::kReturnAddress && effect.stores) effect.store_value = c.slot + c.length();
  if (control_ == Control::kFlags && c.kind.op.effect == decoder::Effect::kJumpIf && c.kind.op.condition == 8) {
    effect.rip = point_.next();
  }
  if (!computed || (effect.stores && !machine_.store(state, effect, out))) {
    // The trap path shows the original context: nothing of the instruction has happened. The vector state is
    // the one that was loaded, read back by a run that executes nothing.
    const Outcome fault = out;
    machine_.run(state, c.next(), out);
    Outcome shown = out;
    shown.where = Where::kSignal;
    shown.signal = fault.signal;
    shown.code = fault.code;
    shown.address = fault.address;
    shown.trap = fault.trap;
    shown.error = fault.error;
    shown.cr2 = fault.cr2;
    shown.rip = c.address;
    out = shown;
    return;
  }
  State after = state;
  after.gpr[4] = effect.rsp;
  after.gpr[1] = effect.rcx;
  machine_.run(after, effect.rip, out);
  if (out.where == Where::kSignal && out.from_iret) {
    out.rip = effect.rip;  // as translate() does for a context in the trap path's IRETQ
    out.gpr[4] = effect.rsp;
    out.flags = (state.flags | 0x202) | (out.flags & kResumeFlag);
  }
}

// What translate_slot() or translate_detour() in runtime/trap/translate.h does.
void Runner::translate(const Case& c, Outcome& out) const {
  if (out.where != Where::kSignal || control_ == Control::kFaultAddress) return;
  const std::uint64_t offset = out.rip - c.slot;
  if (offset >= (detours_ ? size_.head + size_.code : xol::kSlotBytes)) return;
  const xol::SlotPosition position = detours_ ? xol::SlotPosition{} : xol::position_in_slot(point_, offset);
  const std::uint64_t original =
      detours_ ? runtime::detour_position(info_, out.rip).rip : static_cast<std::uint64_t>(position.address);
  const bool is_fault = out.signal == SIGILL || out.signal == SIGFPE || out.signal == SIGSEGV || out.signal == SIGBUS;
  const bool is_step = out.signal == SIGTRAP;
  if ((is_fault || is_step) && out.code > 0 && out.address == out.rip) out.address = original;
  if (position.sets_rcx) out.gpr[1] = original;
  out.rip = original;
}

}  // namespace ubp::insn_diff
