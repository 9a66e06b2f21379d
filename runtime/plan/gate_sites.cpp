// Finding the gate's sites: from `syscall` bytes to the number right before them, or to the instructions before them,
// as few as will do, and from there back to the number. See gate_sites.h.
#include "runtime/plan/gate_sites.h"

#include <emmintrin.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

#include "decoder/classify.h"
#include "decoder/walk.h"
#include "runtime/plan/modules.h"
#include "runtime/symbols/unwind_index.h"

namespace ubp::plan {
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

// Whether the system call of this number has to pass the gate.
bool is_gated(std::uint32_t number, bool is_libc) {
  switch (number) {
    case SYS_rt_sigprocmask:
    case SYS_rt_sigaction:
    case SYS_execve:
    case SYS_execveat:
    case SYS_clone3: return true;
    case SYS_exit:
    case SYS_exit_group:
    case SYS_arch_prctl:
    case SYS_rt_sigreturn: return !is_libc;
    default: return false;
  }
}

// Whether it may make a thread.
bool is_clone(std::uint32_t number) { return number == SYS_clone || number == SYS_clone3; }

// What libc and Go have behind a `syscall` whose result may be an error: cmp $-4095, %rax, or $-4096; where a vfork's
// child must not touch the stack behind push %r12. In no other place are these bytes likely, so that it is an
// instruction, whatever function it is in.
bool looks_for_error(const std::uint8_t* syscall, const std::uint8_t* end) {
  const std::uint8_t* at = syscall + 2;
  if (end - at >= 2 && at[0] == 0x41 && at[1] == 0x54) at += 2;
  return end - at >= 6 && at[0] == 0x48 && at[1] == 0x3d && at[2] <= 1 && at[3] == 0xf0 && at[4] == 0xff &&
         at[5] == 0xff;
}

// A `syscall` right behind its number: that is an instruction, whatever function it is in.
xol::Displaced point_at(const symbols::Module& module, std::uint64_t address, const std::uint8_t* syscall) {
  decoder::Instruction instruction = decoder::classify({syscall, 2});
  return {address + module.bias, instruction, syscall};
}

// The number that the instruction right before `syscall` loads. (libc's clone has no call frame information there.) A
// value that is no system call's comes from bytes that are other instructions.
std::optional<std::uint32_t> number_before(const std::uint8_t* begin, const std::uint8_t* syscall) {
  constexpr std::uint32_t kMostNumber = 4095;
  for (const std::uint8_t length : {std::uint8_t{5}, std::uint8_t{7}}) {
    if (syscall - begin < length) break;
    if (const auto value = loads_eax(syscall - length, length); value && *value <= kMostNumber) return value;
  }
  return std::nullopt;
}

enum class Verdict : std::uint8_t { kNoSite, kFree, kGated, kUnknown, kUndecided };

// What an instruction before the `syscall` says of its number; kUndecided: ask the one before it.
Verdict ask(const std::uint8_t* code, const decoder::Instruction& instruction, bool is_libc) {
  if (const auto number = loads_eax(code, instruction.length))
    return is_gated(*number, is_libc) ? Verdict::kGated : Verdict::kFree;
  const bool ends_line = instruction.ends_block || instruction.is_call || instruction.route == decoder::Route::kSystem;
  return ends_line || copies_to_eax(code, instruction.length) ? Verdict::kUnknown : Verdict::kUndecided;
}

// Judges the `syscall` bytes at code[site] by the instructions right before it, without decoding the function from its
// entry. Where those begin is not known, but in code one begins within any 15 bytes: decoded from each of them, all
// ways that are code at all soon run into one another, and from there on it does not matter which was right.
// kUndecided: they did not meet, or the number is not said in so few instructions. kNoSite: the bytes are another
// instruction's.
Verdict judge_nearby(std::span<const std::uint8_t> code, std::size_t site, bool is_libc) {
  constexpr std::size_t kWindow = 64, kWays = decoder::kMaxInstructionBytes;
  const bool from_entry = site < kWindow;
  const std::size_t begin = from_entry ? 0 : site - kWindow;
  std::array<std::uint16_t, kWindow + kWays + 1> ways{};  // which of them come by, a bit each
  std::array<std::uint8_t, kWindow> lengths{};
  std::uint16_t alive = from_entry ? 1 : (1u << kWays) - 1;
  for (std::size_t way = 0; way < (from_entry ? 1 : kWays); ++way) ways[way] = static_cast<std::uint16_t>(1u << way);
  for (std::size_t at = 0; at < site - begin; ++at) {
    if ((ways[at] & alive) == 0) continue;
    lengths[at] =
        decoder::length_of(code.subspan(begin + at, std::min(code.size() - begin - at, decoder::kMaxInstructionBytes)));
    if (lengths[at] == 0) alive &= static_cast<std::uint16_t>(~ways[at]);
    ways[at + lengths[at]] |= ways[at];
  }
  const auto is_sure = [&](std::size_t at) { return (ways[at] & alive) == alive; };
  const auto comes_by = [&](std::size_t at) { return (ways[at] & alive) != 0; };
  if (alive == 0) return Verdict::kUndecided;
  for (std::size_t at = site - begin; at-- > 0;) {
    if (!comes_by(at)) continue;
    if (!is_sure(at)) return Verdict::kUndecided;
    if (!comes_by(site - begin)) return Verdict::kNoSite;  // they all step over it
    const std::uint8_t* const bytes = code.data() + begin + at;
    const Verdict verdict = ask(bytes, decoder::classify({bytes, lengths[at]}), is_libc);
    if (verdict != Verdict::kUndecided) return verdict;
  }
  return from_entry ? Verdict::kUnknown : Verdict::kUndecided;
}

// Judges it by the whole function, `code`.
Verdict judge_by_walk(std::span<const std::uint8_t> code, std::uint64_t address, std::size_t site, bool is_libc) {
  decoder::Walk walk = decoder::walk_function(code, address);
  for (const decoder::ByteRange& gap : walk.gaps) {
    const auto more = decoder::decode_gap(code, gap, address, walk.references);
    walk.reached.insert(walk.reached.end(), more.begin(), more.end());
  }
  const auto before = [](const Decoded& a, const Decoded& b) { return a.offset < b.offset; };
  std::sort(walk.reached.begin(), walk.reached.end(), before);
  auto at =
      std::lower_bound(walk.reached.begin(), walk.reached.end(), Decoded{static_cast<std::uint32_t>(site), {}}, before);
  if (at == walk.reached.end() || at->offset != site) return Verdict::kNoSite;  // bytes of another instruction
  while (at-- != walk.reached.begin()) {
    const Verdict verdict = ask(code.data() + at->offset, at->instruction, is_libc);
    if (verdict != Verdict::kUndecided) return verdict;
  }
  return Verdict::kUnknown;
}

// Whether the bytes from `at` on are the opcode of wrfsbase, behind its prefixes: f3, and REX for 64 bits.
bool sets_fs(const std::uint8_t* begin, const std::uint8_t* at, const std::uint8_t* end) {
  if (at - begin < 2 || end - at < 3 || at[1] != 0xae || (at[2] & 0xf8) != 0xd0) return false;
  return at[-1] == 0xf3 || ((at[-1] & 0xf0) == 0x40 && at[-2] == 0xf3);
}

// The first `syscall` at or behind `at`, or what may be a wrfsbase: two bytes, or `end`.
const std::uint8_t* next_site(const std::uint8_t* at, const std::uint8_t* end) {
  const __m128i first = _mm_set1_epi8(0x0f), second = _mm_set1_epi8(0x05),
                other = _mm_set1_epi8(static_cast<char>(0xae));
  for (constexpr std::ptrdiff_t kStep = sizeof first; end - at > kStep; at += kStep) {
    const __m128i is_first = _mm_cmpeq_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), first);
    const __m128i behind = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 1));
    const __m128i is_second = _mm_or_si128(_mm_cmpeq_epi8(behind, second), _mm_cmpeq_epi8(behind, other));
    const auto pairs = static_cast<unsigned>(_mm_movemask_epi8(_mm_and_si128(is_first, is_second)));
    if (pairs != 0) return at + std::countr_zero(pairs);
  }
  for (; end - at > 1; ++at) {
    if (at[0] == 0x0f && (at[1] == 0x05 || at[1] == 0xae)) return at;
  }
  return end;
}

}  // namespace

GateSites find_gate_sites(const symbols::Module& module, const FunctionAt& function_at) {
  GateSites sites;
  const bool is_libc = module.name == "libc.so.6";
  const symbols::UnwindIndex functions(module);
  const auto add = [&](std::uint64_t address, const std::uint8_t* at) {
    sites.points.push_back(point_at(module, address, at));
    sites.points.back().is_gate = true;
  };
  symbols::Readable readable;
  for_each_text(module, readable, [&](std::uint64_t first, Text text) {
    const std::uint8_t *const bytes = text.data(), *const end = bytes + text.size();
    for (const std::uint8_t* at = bytes; (at = next_site(at, end)) != end; ++at) {
      if (at[1] != 0x05) {
        sites.sets_fs |= sets_fs(bytes, at, end);
        continue;
      }
      const auto number = number_before(bytes, at);
      const std::uint64_t address = first + static_cast<std::uint64_t>(at - bytes);
      if (number && is_clone(*number)) sites.clones.push_back(point_at(module, address, at));
      if (number && !is_gated(*number, is_libc)) continue;  // nearly all: a constant right before it
      auto function = functions.containing(address);
      if (!function &&
          (number ||
           looks_for_error(
               at, end))) {  // libc's clone3 ends its call frame information here, which would be wrong in the child
        sites.unknown += number ? 0 : 1;
        add(address, at);
        continue;
      }
      if (!function) {
        const Verdict nearby = judge_nearby(text, static_cast<std::size_t>(at - bytes), is_libc);
        if (nearby == Verdict::kNoSite || nearby == Verdict::kFree) continue;
        if (nearby == Verdict::kGated) {
          add(address, at);
          continue;
        }
        if (function_at) function = function_at(address);
      }
      if (!function) {
        sites.unreadable.push_back(address);
        continue;
      }
      const auto code = text_from(module, function->begin, function->end, readable);
      const std::size_t site = address - function->begin;
      if (code.size() < site + 2) continue;
      Verdict verdict = judge_nearby(code, site, is_libc);
      if (verdict == Verdict::kUndecided) verdict = judge_by_walk(code, function->begin, site, is_libc);
      if (verdict == Verdict::kNoSite || verdict == Verdict::kFree) continue;
      if (verdict == Verdict::kUnknown) ++sites.unknown;
      add(address, at);
    }
  });
  const auto before = [](const xol::Displaced& a, const xol::Displaced& b) { return a.address < b.address; };
  std::sort(sites.points.begin(), sites.points.end(), before);
  return sites;
}

}  // namespace ubp::plan
