// Finding the gate's sites: from `syscall` bytes to the number right before them, or to the function that holds them, from
// its entry to the instruction, and from there back to the number. See gate_sites.h.
#include "runtime/probes/gate_sites.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "decoder/classify.h"
#include "decoder/walk.h"
#include "runtime/probes/catalog.h"
#include "runtime/symbols/unwind_index.h"

namespace ubp::probes {
namespace {

using decoder::Decoded;

// The constant an instruction loads into eax; nothing when it is no such load.
std::optional<std::uint32_t> loads_eax(const std::uint8_t* code, std::uint8_t length) {
  std::uint32_t value = 0;
  if (length == 5 && code[0] == 0xb8) {  // mov $imm32, %eax
    std::memcpy(&value, code + 1, sizeof value);
    return value;
  }
  if (length == 7 && code[0] == 0x48 && code[1] == 0xc7 && code[2] == 0xc0) {  // mov $imm32, %rax
    std::memcpy(&value, code + 3, sizeof value);
    return value;
  }
  if (length == 2 && (code[0] == 0x31 || code[0] == 0x33) && code[1] == 0xc0) return 0;  // xor %eax, %eax
  return std::nullopt;
}

// A register copied to eax: mov %r, %eax in both encodings, with or without a REX prefix.
bool copies_to_eax(const std::uint8_t* code, std::uint8_t length) {
  if (length == 3 && (code[0] & 0xf0) == 0x40) {
    if ((code[0] & 0x1) != 0 && code[1] == 0x89) return false;  // to r8d
    ++code;
  } else if (length != 2) {
    return false;
  }
  return (code[0] == 0x89 && (code[1] & 0xc7) == 0xc0) || (code[0] == 0x8b && (code[1] & 0xf8) == 0xc0);
}

// The system call's number, when a constant reaches it on the straight line.
std::optional<std::uint32_t> number_of(const std::vector<Decoded>& decoded, std::size_t site, const std::uint8_t* code) {
  for (std::size_t at = site; at-- > 0;) {
    const Decoded& before = decoded[at];
    const std::uint8_t* bytes = code + before.offset;
    if (const auto value = loads_eax(bytes, before.instruction.length)) return value;
    if (before.instruction.ends_block || before.instruction.is_call || copies_to_eax(bytes, before.instruction.length) ||
        before.instruction.route == decoder::Route::kSystem) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

// Whether the system call of these numbers has to pass the gate.
bool is_gated(std::uint32_t number) {
  return number == SYS_rt_sigprocmask || number == SYS_rt_sigaction || number == SYS_execve || number == SYS_execveat ||
         number == SYS_clone3;
}

// Whether it may make a thread.
bool is_clone(std::uint32_t number) { return number == SYS_clone || number == SYS_clone3; }

// A `syscall` right behind its number: that is an instruction, whatever function it is in.
xol::Displaced point_at(const symbols::Module& module, std::uint64_t address, const std::uint8_t* syscall) {
  decoder::Instruction instruction = decoder::classify({syscall, 2});
  return {address + module.bias, instruction, syscall};
}

// The number that the instruction right before `syscall` loads. (libc's clone has no call frame information there.)
std::optional<std::uint32_t> number_before(const std::uint8_t* begin, const std::uint8_t* syscall) {
  for (const std::uint8_t length : {std::uint8_t{5}, std::uint8_t{7}}) {
    if (syscall - begin < length) break;
    if (const auto value = loads_eax(syscall - length, length)) return value;
  }
  return std::nullopt;
}

void add_function(const symbols::Module& module, const symbols::Extent& function, GateSites& sites) {
  const auto code = text_from(module, function.begin, function.end);
  decoder::Walk walk = decoder::walk_function(code, function.begin);
  for (const decoder::Bytes& gap : walk.gaps) {
    const auto more = decoder::decode_gap(code, gap, function.begin, walk.references);
    walk.reached.insert(walk.reached.end(), more.begin(), more.end());
  }
  std::sort(walk.reached.begin(), walk.reached.end(), [](const Decoded& a, const Decoded& b) { return a.offset < b.offset; });
  for (std::size_t at = 0; at < walk.reached.size(); ++at) {
    const Decoded& decoded = walk.reached[at];
    const std::uint8_t* bytes = code.data() + decoded.offset;
    if (decoded.instruction.route != decoder::Route::kSystem || decoded.instruction.length != 2 || bytes[0] != 0x0f) continue;
    const auto number = number_of(walk.reached, at, code.data());
    if (number && !is_gated(*number)) continue;
    if (!number) ++sites.unknown;
    xol::Displaced point(function.begin + decoded.offset + module.bias, decoded.instruction, bytes);
    point.is_gate = true;
    sites.points.push_back(point);
  }
}

}  // namespace

GateSites find_gate_sites(const symbols::Module& module) {
  GateSites sites;
  const symbols::UnwindIndex functions(module);
  std::uint64_t done = 0;  // up to here the function at hand has been decoded
  for (const symbols::Segment& segment : module.segments) {
    const std::uint8_t* bytes = segment.executable ? module.bytes_at(segment.address) : nullptr;
    if (bytes == nullptr) continue;
    const std::uint8_t* const end = bytes + segment.size;
    for (const std::uint8_t* at = bytes; at + 1 < end; ++at) {
      at = static_cast<const std::uint8_t*>(std::memchr(at, 0x0f, static_cast<std::size_t>(end - at - 1)));
      if (at == nullptr) break;
      const std::uint64_t address = segment.address + static_cast<std::uint64_t>(at - bytes);
      if (at[1] != 0x05 || address < done) continue;
      const auto number = number_before(bytes, at);
      if (number && is_clone(*number)) sites.clones.push_back(point_at(module, address, at));
      if (number && !is_gated(*number)) continue;  // nearly all: a constant right before it
      auto function = functions.containing(address);
      if (!function && number) {  // libc's clone3 ends its call frame information here, which would be wrong in the child
        function = functions.containing(address - 1);
        if (function && function->end != address) function.reset();
        if (function) function->end = address + 2;
      }
      if (function) {
        add_function(module, *function, sites);
        done = function->end;
      } else {
        ++sites.unreadable;
      }
    }
  }
  const auto before = [](const xol::Displaced& a, const xol::Displaced& b) { return a.address < b.address; };
  std::sort(sites.points.begin(), sites.points.end(), before);
  const auto same = [](const xol::Displaced& a, const xol::Displaced& b) { return a.address == b.address; };
  sites.points.erase(std::unique(sites.points.begin(), sites.points.end(), same), sites.points.end());
  return sites;
}

}  // namespace ubp::probes
