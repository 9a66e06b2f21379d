// Writing detours. See detour.h. Instruction encodings: Intel SDM volume 2.
#include "xol/detour.h"

#include <algorithm>
#include <initializer_list>

namespace ubp::xol {
namespace {

using decoder::Effect;
using decoder::Instruction;
using decoder::Route;

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
    store32(&out_[used_], value);
    used_ += 4;
  }
  void quad(std::uint64_t value) {
    store64(&out_[used_], value);
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

constexpr std::uint8_t kLoad = 0x8b, kStore = 0x89, kRax = 0, kRcx = 1, kRsp = 4, kRsi = 6;

bool is_short_branch(Effect effect) {
  return effect == Effect::kLoop || effect == Effect::kLoopEqual || effect == Effect::kLoopNotEqual || effect == Effect::kJumpRcxZero;
}

std::uint32_t copy_bytes(const Instruction& instruction) {
  if (instruction.route == Route::kSlot) return instruction.length;
  switch (instruction.op.effect) {
    case Effect::kJump: return 5;
    case Effect::kJumpIf: return 6;
    case Effect::kCall: return 6 + 5 + 8;
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
    store32(field, static_cast<std::uint32_t>(load32(field) + (address - at)));
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
    case Effect::kCall:  // push the original return address, which stands behind the jump
      writer.bytes({0xff, 0x35});
      writer.word(5);
      writer.bytes({0xe9});
      writer.displacement_to(target);
      writer.quad(address + instruction.length);
      return;
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
      const std::uint32_t field = load32(&code[part.offset + part.instruction.rip_disp_offset]);
      target = address + part.instruction.length + static_cast<std::uint64_t>(std::int64_t{static_cast<std::int32_t>(field)});
    }
    return in_reach(entry, 0, address, target);
  });
}

namespace {

void write_slow_way(Writer& writer, const DetourStorage& storage) {
  writer.storage(kLoad, kRcx, storage.rcx);
  writer.bytes({0xcc});
}

void write_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage) {
  const std::uint32_t begin = writer.size();
  writer.storage(kStore, kRcx, storage.rcx);
  writer.storage(kLoad, kRcx, storage.state);
  writer.bytes({0x48, 0x8b, 0x49, storage.fast});  // mov fast(%rcx),%rcx
  const std::uint32_t to_slow = writer.size() + 2 - begin + kDetourSlowBytes;
  writer.bytes({0xe3, static_cast<std::uint8_t>(-static_cast<int>(to_slow))});  // jrcxz slow
  writer.storage(kStore, kRax, storage.rax);
  writer.bytes({0x48, 0x8b, 0x81});  // mov counter(%rcx),%rax
  writer.word(counter);
  writer.bytes({0x48, 0x8d, 0x40, 0x01});  // lea 1(%rax),%rax
  writer.bytes({0x48, 0x89, 0x81});        // mov %rax,counter(%rcx)
  writer.word(counter);
}

// An instruction with a register, numbered as the hardware does, and disp32 from a base register below r8 (not rsp: SIB).
void with_memory(Writer& writer, std::initializer_list<std::uint8_t> opcode, std::uint8_t reg, std::uint8_t base, std::uint32_t offset,
                 bool wide = true) {
  const auto rex = static_cast<std::uint8_t>((wide ? 0x48 : 0x40) | (reg >= 8 ? 4 : 0));
  if (rex != 0x40) writer.bytes({rex});
  writer.bytes(opcode);
  writer.bytes({static_cast<std::uint8_t>(0x80 | (reg & 7) << 3 | base)});
  if (base == kRsp) writer.bytes({0x24});
  writer.word(offset);
}

struct Saved {
  std::uint8_t reg;
  std::uint32_t offset;
};
#define UBP_SAVED(number, name) {number, offsetof(DetourSave, name)}
constexpr Saved kCallClobbered[] = {UBP_SAVED(2, rdx), UBP_SAVED(6, rsi), UBP_SAVED(7, rdi), UBP_SAVED(8, r8),
                                    UBP_SAVED(9, r9),  UBP_SAVED(10, r10), UBP_SAVED(11, r11)};
constexpr Saved kCallKept[] = {UBP_SAVED(3, rbx), UBP_SAVED(5, rbp), UBP_SAVED(12, r12), UBP_SAVED(13, r13), UBP_SAVED(14, r14), UBP_SAVED(15, r15)};
#undef UBP_SAVED

void write_vectors(Writer& writer, const DetourConsumers& consumers, bool restores) {
  if (consumers.needs.all_fp) {
    writer.bytes({0xb8});
    writer.word(static_cast<std::uint32_t>(consumers.components));
    writer.bytes({0xba});
    writer.word(static_cast<std::uint32_t>(consumers.components >> 32));
    if (restores || !consumers.compacts) {
      with_memory(writer, {0x0f, 0xae}, restores ? 5 : 4, kRsp, offsetof(DetourSave, image));  // xrstor64, xsave64
    } else {
      with_memory(writer, {0x0f, 0xc7}, 4, kRsp, offsetof(DetourSave, image));  // xsavec64
    }
    return;
  }
  for (std::uint8_t reg = 0; consumers.needs.xmm && reg < 16; ++reg) {
    with_memory(writer, {0x0f, static_cast<std::uint8_t>(restores ? 0x28 : 0x29)}, reg, kRsp,
                static_cast<std::uint32_t>(offsetof(DetourSave, xmm)) + 16U * reg, false);  // movaps
  }
}

// Behind the count, with rax and rcx spilled: saves, calls and restores all. It is at the task's own stack from `saved` on.
void write_consumers(Writer& writer, DetourInfo& info, const DetourConsumers& consumers, const DetourStorage& storage) {
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.stack);
  writer.bytes({0x9f, 0x0f, 0x90, 0xc0});  // lahf; seto %al
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, status));
  writer.storage(kLoad, kRax, storage.rax);
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, rax));
  writer.storage(kLoad, kRax, storage.rcx);
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, rcx));
  for (const auto& [reg, offset] : kCallClobbered) with_memory(writer, {kStore}, reg, kRcx, offset);
  if (consumers.needs.reads) {
    for (const auto& [reg, offset] : kCallKept) with_memory(writer, {kStore}, reg, kRcx, offset);
  }
  with_memory(writer, {kStore}, kRsp, kRcx, offsetof(DetourSave, rsp));
  info.saved = static_cast<std::uint16_t>(writer.size());
  writer.bytes({0x48, 0x89, 0xcc});  // mov %rcx,%rsp
  if (consumers.needs.reads) {
    writer.bytes({0x9c});                                                       // pushfq
    with_memory(writer, {0x8f}, 0, kRsp, offsetof(DetourSave, eflags), false);  // popq: the address is rsp's after the pop
  }
  write_vectors(writer, consumers, false);
  writer.storage(kLoad, kRsi, storage.state);
  const auto clear = [&](std::uint32_t offset) {
    with_memory(writer, {0xc7}, 0, kRsi, offset);  // movq $0
    writer.word(0);
  };
  clear(storage.fast);
  clear(consumers.deferred);
  with_memory(writer, {kStore}, kRsp, kRsi, consumers.frame);
  with_memory(writer, {0x83}, 0, kRsi, consumers.mark);  // addq $1
  writer.bytes({1});
  writer.bytes({0x48, 0x89, 0xe7, 0x48, 0xba});          // mov %rsp,%rdi; mov $info,%rdx
  writer.quad(reinterpret_cast<std::uint64_t>(&info));
  writer.bytes({0x48, 0xb8});
  writer.quad(consumers.run);
  writer.bytes({0xff, 0xd0});                            // call *%rax
  info.consumed = static_cast<std::uint16_t>(writer.size());
  info.modifies = consumers.needs.modifies ? 1 : 0;
  write_vectors(writer, consumers, true);
  writer.storage(kLoad, kRsi, storage.state);
  with_memory(writer, {0x83}, 7, kRsi, 0, false);        // cmpl $0, the tid: a forked child's states are wiped
  writer.bytes({0, 0x74, 0});                            // je: it has no mark, and counts slowly first
  const std::uint32_t jump = writer.size();
  with_memory(writer, {kLoad}, kRax, kRsi, consumers.counters);
  writer.bytes({0x48, 0x05});                            // add $fast,%rax
  writer.word(consumers.fast);
  with_memory(writer, {kStore}, kRax, kRsi, storage.fast);
  with_memory(writer, {0x83}, 0, kRsi, consumers.mark);
  writer.bytes({1});
  with_memory(writer, {0x83}, 7, kRsi, consumers.deferred);
  writer.bytes({0, 0x0f, 0x85});                         // cmpq $0; jne late
  writer.word(0);
  info.late = static_cast<std::uint16_t>(writer.size()); // filled in by write_late()
  *writer.back(writer.size() - jump + 1) = static_cast<std::uint8_t>(writer.size() - jump);
  with_memory(writer, {kLoad}, kRax, kRsp, offsetof(DetourSave, status));
  writer.bytes({0x04, 0x7f, 0x9e});                      // add $0x7f,%al: sets OF as it was; sahf
  for (const auto& [reg, offset] : kCallClobbered) with_memory(writer, {kLoad}, reg, kRsp, offset);
  if (consumers.needs.modifies) {
    for (const auto& [reg, offset] : kCallKept) with_memory(writer, {kLoad}, reg, kRsp, offset);
  }
  with_memory(writer, {kLoad}, kRax, kRsp, offsetof(DetourSave, rax));
  with_memory(writer, {kLoad}, kRcx, kRsp, offsetof(DetourSave, rcx));
  with_memory(writer, {kLoad}, kRsp, kRsp, offsetof(DetourSave, rsp));
}

// Signals were put off: sets the thread's mask as it was, so that they come now.
void write_late(Writer& writer, DetourInfo& info) {
  const std::uint32_t resume = info.late;
  info.late = static_cast<std::uint16_t>(writer.size());
  store32(writer.back(writer.size() - resume + 4), info.late - resume);
  writer.bytes({0xb8, 14, 0, 0, 0, 0xbf, 2, 0, 0, 0});   // rt_sigprocmask, SIG_SETMASK
  with_memory(writer, {0x8d}, kRsi, kRsp, offsetof(DetourSave, mask));
  writer.bytes({0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05, 0xe9});
  writer.word(resume - (writer.size() + 4));
}

}  // namespace

std::uint32_t detour_bytes(const DetourPlan& plan, const DetourConsumers* consumers) {
  std::uint32_t bytes = plan.parts.back().instruction.ends_block ? 0 : decoder::kJumpBytes;
  if (consumers != nullptr) {
    std::uint8_t scratch[1024];
    DetourInfo info;
    Writer writer(scratch, 0);
    write_consumers(writer, info, *consumers, {});
    write_late(writer, info);
    bytes += writer.size() - (kCountBytes - kCounted);
  }
  for (const DetourPlan::Part& part : plan.parts) {
    if (part.is_counted) bytes += part.offset == 0 ? kCountBytes : kLaterCountBytes;
    bytes += copy_bytes(part.instruction);
  }
  return bytes;
}

void write_detour(std::span<std::uint8_t> out, DetourInfo& info, const DetourPlan& plan, std::span<const std::uint8_t> code,
                  const DetourStorage& storage, const DetourConsumers* consumers) {
  info.count = static_cast<std::uint8_t>(plan.parts.size());
  info.length = static_cast<std::uint8_t>(plan.length);
  info.bytes = static_cast<std::uint16_t>(detour_bytes(plan, consumers));
  std::copy_n(code.begin(), info.jump_bytes, info.original);

  Writer head(out, info.entry - kDetourHead);
  head.quad(reinterpret_cast<std::uint64_t>(&info));
  write_slow_way(head, storage);

  Writer writer(out.subspan(kDetourHead), info.entry);
  for (std::uint32_t number = 0; number < plan.parts.size(); ++number) {
    const DetourPlan::Part& part = plan.parts[number];
    if (part.is_counted) {
      info.counted = static_cast<std::uint16_t>(info.counted | 1U << number);
      if (number != 0) {
        writer.bytes({0xeb, kDetourSlowBytes});
        write_slow_way(writer, storage);
      }
      write_count(writer, part.counter, storage);
      if (number == 0 && consumers != nullptr) {
        write_consumers(writer, info, *consumers, storage);
      } else {
        writer.storage(kLoad, kRax, storage.rax);
        writer.storage(kLoad, kRcx, storage.rcx);
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
  if (consumers != nullptr) write_late(writer, info);
}

void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry) {
  const std::size_t prefixes = out.size() - decoder::kJumpBytes;
  for (std::size_t i = 0; i < prefixes; ++i) out[i] = 0x3e;  // ds: means nothing to a direct jump
  write_jump(out.data() + prefixes, origin + prefixes, entry);
}

}  // namespace ubp::xol
