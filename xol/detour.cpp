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

constexpr std::uint8_t kLoad = 0x8b, kStore = 0x89, kRax = 0, kRcx = 1;

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

bool boundary_pattern(const decoder::Window& window, std::uint32_t prefixes, Pattern& pattern) {
  pattern = {};
  for (std::uint32_t part = 1; part < window.count; ++part) {
    const std::uint32_t offset = window.parts[part].offset;
    if (offset >= decoder::kJumpBytes + prefixes) break;
    if (offset <= prefixes) return false;  // a prefix's, or the opcode's
    const std::uint32_t shift = 8 * (offset - prefixes - 1);
    pattern.mask |= 0xffU << shift;
    pattern.value |= 0xccU << shift;
  }
  return true;
}

std::uint32_t detour_bytes(const decoder::Window& window) {
  std::uint32_t bytes = kDetourCopies + decoder::kJumpBytes;
  for (std::uint32_t part = 0; part < window.count; ++part) bytes += copy_bytes(window.parts[part].instruction);
  return bytes;
}

void write_detour(std::span<std::uint8_t> out, std::uint64_t entry, const decoder::Window& window, std::uint32_t prefixes,
                  std::uint64_t origin, std::span<const std::uint8_t> code, std::uint32_t point, std::uint32_t counter,
                  const DetourStorage& storage) {
  DetourInfo info;
  info.point = point;
  info.jump_bytes = static_cast<std::uint8_t>(decoder::kJumpBytes + prefixes);
  info.count = window.count;
  info.length = window.length;
  info.bytes = static_cast<std::uint8_t>(detour_bytes(window));
  std::copy_n(code.begin(), info.jump_bytes, info.original);

  Writer slow(out.subspan(sizeof info), entry - kDetourSlowBytes);
  slow.storage(kLoad, kRcx, storage.rcx);
  slow.bytes({0xcc});

  Writer writer(out.subspan(kDetourHead), entry);
  writer.storage(kStore, kRcx, storage.rcx);
  writer.storage(kLoad, kRcx, storage.state);
  writer.bytes({0x48, 0x8b, 0x49, storage.fast});                                                     // mov fast(%rcx),%rcx
  writer.bytes({0xe3, static_cast<std::uint8_t>(-static_cast<int>(writer.size() + 2 + kDetourSlowBytes))});  // jrcxz slow
  writer.storage(kStore, kRax, storage.rax);
  writer.bytes({0x48, 0x8b, 0x81});  // mov counter(%rcx),%rax
  writer.word(counter);
  writer.bytes({0x48, 0x8d, 0x40, 0x01});  // lea 1(%rax),%rax
  writer.bytes({0x48, 0x89, 0x81});        // mov %rax,counter(%rcx)
  writer.word(counter);
  writer.storage(kLoad, kRax, storage.rax);
  writer.storage(kLoad, kRcx, storage.rcx);
  for (std::uint32_t part = 0; part < window.count; ++part) {
    const auto& [offset, instruction] = window.parts[part];
    info.starts[part] = offset;
    info.copies[part] = static_cast<std::uint8_t>(writer.size());
    write_copy_of(writer, instruction, origin + offset, code.subspan(offset));
  }
  writer.bytes({0xe9});
  writer.displacement_to(origin + window.length);
  __builtin_memcpy(out.data(), &info, sizeof info);
}

void write_detour_jump(std::span<std::uint8_t> out, std::uint64_t origin, std::uint64_t entry) {
  const std::size_t prefixes = out.size() - decoder::kJumpBytes;
  for (std::size_t i = 0; i < prefixes; ++i) out[i] = 0x3e;  // ds: means nothing to a direct jump
  write_jump(out.data() + prefixes, origin + prefixes, entry);
}

}  // namespace ubp::xol
