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

constexpr std::uint8_t kLoad = 0x8b, kStore = 0x89, kRax = 0, kRcx = 1, kRdx = 2, kRsp = 4, kRsi = 6, kRdi = 7, kR15 = 15;

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

// Spills rcx, and loads where the task counts; to the slow way where it does not.
void write_entry(Writer& writer, const DetourStorage& storage) {
  const std::uint32_t begin = writer.size();
  writer.storage(kStore, kRcx, storage.rcx);
  writer.storage(kLoad, kRcx, storage.state);
  writer.bytes({0x48, 0x8b, 0x49, storage.fast});  // mov fast(%rcx),%rcx
  const std::uint32_t to_slow = writer.size() + 2 - begin + kDetourSlowBytes;
  writer.bytes({0xe3, static_cast<std::uint8_t>(-static_cast<int>(to_slow))});  // jrcxz slow
}

void write_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage) {
  write_entry(writer, storage);
  writer.storage(kStore, kRax, storage.rax);
  writer.bytes({0x48, 0x8b, 0x81});  // mov counter(%rcx),%rax
  writer.word(counter);
  writer.bytes({0x48, 0x8d, 0x40, 0x01});  // lea 1(%rax),%rax
  writer.bytes({0x48, 0x89, 0x81});        // mov %rax,counter(%rcx)
  writer.word(counter);
  writer.storage(kLoad, kRax, storage.rax);
  writer.storage(kLoad, kRcx, storage.rcx);
}

// An instruction with a register, numbered as the hardware does, and a displacement from a base register below r8.
void with_memory(Writer& writer, std::initializer_list<std::uint8_t> opcode, std::uint8_t reg, std::uint8_t base, std::uint32_t offset,
                 bool wide = true) {
  const auto rex = static_cast<std::uint8_t>((wide ? 0x48 : 0x40) | (reg >= 8 ? 4 : 0));
  const bool is_short = offset < 128;
  if (rex != 0x40) writer.bytes({rex});
  writer.bytes(opcode);
  writer.bytes({static_cast<std::uint8_t>((is_short ? 0x40 : 0x80) | (reg & 7) << 3 | base)});
  if (base == kRsp) writer.bytes({0x24});  // SIB
  if (is_short) {
    writer.bytes({static_cast<std::uint8_t>(offset)});
  } else {
    writer.word(offset);
  }
}

constexpr std::uint8_t kCallClobbered[] = {kRdx, kRsi, kRdi, 8, 9, 10, 11};  // but rax and rcx
constexpr std::uint8_t kCallKept[] = {3, 5, 12, 13, 14};                     // rbx, rbp, ..., but r15 and rsp

void save_register(Writer& writer, std::uint8_t reg, std::uint8_t base, std::uint8_t opcode) {
  with_memory(writer, {opcode}, reg, base, static_cast<std::uint32_t>(offsetof(DetourSave, registers) + reg * sizeof(std::uint64_t)));
}

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

// Saves all, counts, marks the task, calls the consumers and restores all. It is on the task's own stack in between. The stack
// pointer is kept in r15: through memory, it would tie each hit to the one before.
void write_consumers(Writer& writer, DetourInfo& info, const DetourConsumers& consumers, std::uint32_t counter, const DetourStorage& storage) {
  const auto here = [&] { return static_cast<std::uint16_t>(writer.size()); };
  const auto saved = [&](std::uint8_t opcode, std::uint8_t reg, std::size_t offset, bool wide = true) {
    with_memory(writer, {opcode}, reg, kRsp, static_cast<std::uint32_t>(offset), wide);
  };
  write_entry(writer, storage);
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.stack);
  save_register(writer, kRax, kRcx, kStore);
  info.rax_saved = here();
  writer.bytes({0x9f, 0x0f, 0x90, 0xc0});            // lahf; seto %al
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, status));
  writer.storage(kLoad, kRax, storage.rcx);
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, registers[kRcx]));
  for (const std::uint8_t reg : kCallClobbered) save_register(writer, reg, kRcx, kStore);
  if (consumers.needs.reads) {
    for (const std::uint8_t reg : kCallKept) save_register(writer, reg, kRcx, kStore);
  }
  save_register(writer, kRsp, kRcx, kStore);
  save_register(writer, kR15, kRcx, kStore);
  info.saved = here();
  writer.bytes({0x49, 0x89, 0xe7, 0x48, 0x89, 0xcc});  // mov %rsp,%r15; mov %rcx,%rsp
  write_vectors(writer, consumers, false);
  saved(kLoad, kRsi, offsetof(DetourSave, task));
  saved(kLoad, kRdx, offsetof(DetourSave, counters));
  with_memory(writer, {kLoad}, kRcx, kRdx, counter);
  writer.bytes({0x48, 0xff, 0xc1, 0x48, 0x89, 0xc8, 0x48, 0xc1, 0xe0, kMarkBits, 0x48, 0x83, 0xc8, kDetourMark});
  with_memory(writer, {kStore}, kRax, kRsi, consumers.mark);   // inc %rcx; mov %rcx,%rax; shl; or; store
  with_memory(writer, {kStore}, kRcx, kRdx, counter);
  info.hit_counted = here();
  with_memory(writer, {0xc7}, 0, kRsi, storage.fast);          // movq $0
  writer.word(0);
  writer.bytes({0x64, 0x8b, 0x04, 0x25});                      // mov errno,%eax
  writer.word(static_cast<std::uint32_t>(consumers.error));
  saved(kStore, kRax, offsetof(DetourSave, error), false);
  writer.bytes({0x48, 0xb8});                                  // mov $list,%rax
  writer.quad(consumers.list);
  writer.bytes({0x48, 0x8b, 0x00, 0x48, 0x85, 0xc0, 0x74, 0}); // mov (%rax),%rax; test; jz: taken out since the hit
  const std::uint32_t loop = writer.size();
  saved(kStore, kRax, offsetof(DetourSave, context[2]));
  saved(kLoad, kRdx, offsetof(DetourSave, counters));
  with_memory(writer, {kLoad}, kRcx, kRax, consumers.counter);
  writer.bytes({0x48, 0xff, 0x04, 0x0a});                      // incq (%rdx,%rcx)
  saved(0x8d, kRdi, offsetof(DetourSave, context));            // lea
  with_memory(writer, {kLoad}, kRsi, kRax, consumers.data);
  with_memory(writer, {0xff}, 2, kRax, consumers.function, false);  // call
  saved(kLoad, kRax, offsetof(DetourSave, context[2]));
  with_memory(writer, {kLoad}, kRax, kRax, consumers.next);
  writer.bytes({0x48, 0x85, 0xc0, 0x75, 0});                   // test; jnz loop
  *writer.back(1) = static_cast<std::uint8_t>(loop - writer.size());
  *writer.back(writer.size() - loop + 1) = static_cast<std::uint8_t>(writer.size() - loop);
  info.consumed = here();
  info.modifies = consumers.needs.modifies ? 1 : 0;
  saved(kLoad, kRax, offsetof(DetourSave, error), false);
  writer.bytes({0x64, 0x3b, 0x04, 0x25});              // cmp errno,%eax; je: a store costs more
  writer.word(static_cast<std::uint32_t>(consumers.error));
  writer.bytes({0x74, 8, 0x64, 0x89, 0x04, 0x25});     // mov %eax,errno
  writer.word(static_cast<std::uint32_t>(consumers.error));
  write_vectors(writer, consumers, true);
  saved(kLoad, kRsi, offsetof(DetourSave, task));
  with_memory(writer, {kLoad}, kRax, kRsi, consumers.optimised);  // 0 in a forked child, whose states are wiped
  with_memory(writer, {kStore}, kRax, kRsi, storage.fast);
  with_memory(writer, {0xc7}, 0, kRsi, consumers.mark);
  writer.word(0);
  with_memory(writer, {0x83}, 7, kRsi, consumers.deferred);
  writer.bytes({0, 0x0f, 0x85});                       // cmpq $0; jne late
  writer.word(0);
  info.late = here();                                  // filled in by write_late()
  saved(kLoad, kRax, offsetof(DetourSave, status));
  writer.bytes({0x04, 0x7f, 0x9e});                    // add $0x7f,%al: sets OF as it was; sahf
  for (const std::uint8_t reg : kCallClobbered) save_register(writer, reg, kRsp, kLoad);
  if (consumers.needs.modifies) {
    for (const std::uint8_t reg : kCallKept) save_register(writer, reg, kRsp, kLoad);
  }
  save_register(writer, kRax, kRsp, kLoad);
  writer.bytes({0x48, 0x89, 0xe1});                    // mov %rsp,%rcx
  info.restored = here();
  writer.bytes({0x4c, 0x89, 0xfc});                    // mov %r15,%rsp
  save_register(writer, kR15, kRcx, kLoad);
  save_register(writer, kRcx, kRcx, kLoad);
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
    write_consumers(writer, info, *consumers, plan.parts.front().counter, {});
    write_late(writer, info);
    bytes += writer.size();
  }
  for (const DetourPlan::Part& part : plan.parts) {
    const bool is_first = part.offset == 0;
    if (part.is_counted && !(is_first && consumers != nullptr)) bytes += is_first ? kCountBytes : kLaterCountBytes;
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
      if (number == 0 && consumers != nullptr) {
        write_consumers(writer, info, *consumers, part.counter, storage);
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
  if (consumers != nullptr) write_late(writer, info);
}

void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry) {
  const std::size_t prefixes = out.size() - decoder::kJumpBytes;
  for (std::size_t i = 0; i < prefixes; ++i) out[i] = 0x3e;  // ds: means nothing to a direct jump
  write_jump(out.data() + prefixes, origin + prefixes, entry);
}

}  // namespace ubp::xol
