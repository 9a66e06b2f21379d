// mask_sites_found: the finder against the libc that runs this test.
#include <doctest/doctest.h>

#include <dlfcn.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "decoder/walk.h"
#include "runtime/plan/gate_sites.h"
#include "runtime/symbols/unwind_index.h"

using namespace ubp;

// System calls that the few bytes before them do not give away.
extern "C" const std::uint8_t gate_test_any_phase[], gate_test_far[], gate_test_none[];
asm(R"(
  .pushsection .text
  # mov $0xb8b8b8b8, %ecx again and again: decoded from a wrong byte it is mov $..., %eax for ever, and one of the wrong ways
  # takes the system call for the last one's operand.
  .type gate_test_phases, @function
  gate_test_phases: .cfi_startproc
  .rept 40; .byte 0xb9, 0xb8, 0xb8, 0xb8, 0xb8; .endr
  mov %ecx, %eax
  gate_test_any_phase: syscall
  ret; .cfi_endproc
  # The number, rt_sigprocmask's, far before it.
  .type gate_test_long, @function
  gate_test_long: .cfi_startproc
  mov $14, %eax
  .rept 60; mov %rsp, %rdi; .endr
  gate_test_far: syscall
  ret; .cfi_endproc
  # No system call: an operand.
  .type gate_test_operand, @function
  gate_test_operand: .cfi_startproc
  .rept 60; mov %rsp, %rdi; .endr
  gate_test_none: mov $0x050f, %eax
  ret; .cfi_endproc
  .popsection
)");

namespace {

// The reference: every function that holds the bytes of a `syscall` is followed from its entry, and the number is
// looked for back along everything that was decoded.
struct Reference {
  std::set<std::uint64_t> points;
  std::size_t unknown = 0, unreadable = 0;
};

bool is_gated(std::uint32_t number, const symbols::Module& module) {
  return number == SYS_rt_sigprocmask || number == SYS_rt_sigaction || number == SYS_execve || number == SYS_execveat ||
         number == SYS_clone3 ||
         ((number == SYS_exit || number == SYS_exit_group || number == SYS_arch_prctl || number == SYS_rt_sigreturn) &&
          module.name != "libc.so.6");
}

std::optional<std::uint32_t> constant_for_eax(std::span<const std::uint8_t> code) {
  std::uint32_t value = 0;
  const bool is_short = code.size() == 5 && code[0] == 0xb8;
  const bool is_long = code.size() == 7 && code[0] == 0x48 && code[1] == 0xc7 && code[2] == 0xc0;
  if (is_short || is_long) {
    std::memcpy(&value, code.data() + code.size() - 4, sizeof value);
    return value;
  }
  if (code.size() == 2 && (code[0] == 0x31 || code[0] == 0x33) && code[1] == 0xc0) return 0;
  return std::nullopt;
}

bool copies_to_eax(std::span<const std::uint8_t> code) {
  if (code.size() == 3 && (code[0] & 0xf0) == 0x40) {
    if ((code[0] & 1) != 0 && code[1] == 0x89) return false;
    code = code.subspan(1);
  }
  if (code.size() != 2) return false;
  return (code[0] == 0x89 && (code[1] & 0xc7) == 0xc0) || (code[0] == 0x8b && (code[1] & 0xf8) == 0xc0);
}

void add_function(const symbols::Module& module, const symbols::Extent& function, Reference& reference) {
  const std::span<const std::uint8_t> code(module.bytes_at(function.begin, function.end - function.begin),
                                           function.end - function.begin);
  decoder::Walk walk = decoder::walk_function(code, function.begin);
  for (const auto& gap : walk.gaps) {
    const auto more = decoder::decode_gap(code, gap, function.begin, walk.references);
    walk.reached.insert(walk.reached.end(), more.begin(), more.end());
  }
  std::sort(walk.reached.begin(), walk.reached.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  const auto bytes_of = [&](const decoder::Decoded& decoded) {
    return code.subspan(decoded.offset, decoded.instruction.length);
  };
  for (std::size_t at = 0; at < walk.reached.size(); ++at) {
    const auto bytes = bytes_of(walk.reached[at]);
    if (bytes.size() != 2 || bytes[0] != 0x0f || bytes[1] != 0x05) continue;
    std::optional<std::uint32_t> number;
    for (std::size_t before = at; before-- > 0 && !number;) {
      const decoder::Instruction& instruction = walk.reached[before].instruction;
      number = constant_for_eax(bytes_of(walk.reached[before]));
      if (instruction.ends_block || instruction.is_call || instruction.route == decoder::Route::kSystem ||
          copies_to_eax(bytes_of(walk.reached[before]))) {
        break;
      }
    }
    if (number && !is_gated(*number, module)) continue;
    reference.unknown += !number;
    reference.points.insert(function.begin + walk.reached[at].offset + module.bias);
  }
}

Reference find_slowly(const symbols::Module& module) {
  Reference reference;
  const symbols::UnwindIndex functions(module);
  std::set<std::uint64_t> done;
  for (const auto& segment : module.segments) {
    const std::uint8_t* bytes = segment.executable ? module.bytes_at(segment.address, segment.size) : nullptr;
    for (std::uint64_t at = 0; bytes != nullptr && at + 1 < segment.size; ++at) {
      if (bytes[at] != 0x0f || bytes[at + 1] != 0x05) continue;
      std::optional<std::uint32_t> number;
      if (at >= 5) number = constant_for_eax({bytes + at - 5, 5});
      if (!number && at >= 7) number = constant_for_eax({bytes + at - 7, 7});
      if (number && *number < 4096 && !is_gated(*number, module)) continue;
      const auto function = functions.containing(segment.address + at);
      if (!function && number &&
          is_gated(*number, module)) {  // libc's clone3, which ends its call frame information there
        reference.points.insert(segment.address + at + module.bias);
        continue;
      }
      if (!function) ++reference.unreadable;
      if (function && done.insert(function->begin).second) add_function(module, *function, reference);
    }
  }
  return reference;
}

}  // namespace

TEST_CASE(
    "mask_sites_found: the same sites as by following every function from its entry, in all modules that are here") {
  for (const char* library :
       {"libcrypto.so.3", "libstdc++.so.6", "libm.so.6", "libsqlite3.so.0", "libdw.so.1", "libtsan.so.2"}) {
    if (dlopen(library, RTLD_NOW | RTLD_LOCAL) == nullptr) MESSAGE(std::string(library) << " is not here");
  }
  std::size_t compared = 0, points = 0;
  for (const auto& module : symbols::loaded_modules()) {
    CAPTURE(module.name);
    const plan::GateSites sites = plan::find_gate_sites(module);
    const Reference reference = find_slowly(module);
    std::vector<std::uint64_t> found;
    for (const auto& point : sites.points) {
      found.push_back(point.address);
      CHECK(point.is_gate);
      CHECK(point.route == decoder::Route::kSystem);
    }
    CHECK(std::is_sorted(found.begin(), found.end()));
    CHECK(found == std::vector<std::uint64_t>(reference.points.begin(), reference.points.end()));
    CHECK(sites.unknown == reference.unknown);
    CHECK(sites.unreadable.size() <= reference.unreadable);  // bytes among data are none
    ++compared;
    points += found.size();
  }
  MESSAGE(points << " sites in " << compared << " modules");
  CHECK(compared > 3);
  CHECK(points > 18);
}

TEST_CASE("mask_sites_found: sites that have to be looked for from the function's entry, and bytes that are none") {
  const auto modules = symbols::loaded_modules();
  const plan::GateSites sites = plan::find_gate_sites(modules.front());
  const auto is_site = [&](const std::uint8_t* at) {
    return std::any_of(sites.points.begin(), sites.points.end(),
                       [&](const auto& point) { return point.address == reinterpret_cast<std::uint64_t>(at); });
  };
  CHECK(is_site(gate_test_any_phase));
  CHECK(is_site(gate_test_far));
  CHECK_FALSE(is_site(gate_test_none + 1));
}

TEST_CASE("mask_sites_found: every rt_sigprocmask, rt_sigaction and clone3 of this libc, and no unknown bytes") {
  const symbols::Module* libc = nullptr;
  const auto modules = symbols::loaded_modules();
  for (const auto& module : modules) {
    if (module.name == "libc.so.6") libc = &module;
  }
  REQUIRE(libc != nullptr);
  const plan::GateSites sites = plan::find_gate_sites(*libc);
  MESSAGE(sites.points.size() << " sites, " << sites.unknown << " with a number from a register, "
                              << sites.unreadable.size() << " unreadable");
  CHECK(sites.unreadable.empty());    // syscall bytes outside every known function would be an unguarded door
  CHECK(sites.points.size() >= 18);   // Debian 12's libc has 18 that block or reset
  CHECK(sites.points.size() <= 128);  // the others have a constant, and are none of the gate's business
  // An independent count: every `mov $14, %eax` directly before a syscall must be among them, and clone3's one.
  std::size_t direct = 0, clones = 0;
  for (const auto& segment : libc->segments) {
    const std::uint8_t* bytes = segment.executable ? libc->bytes_at(segment.address, segment.size) : nullptr;
    if (bytes == nullptr) continue;
    constexpr std::uint8_t kMask[] = {0xb8, 0x0e, 0, 0, 0, 0x0f, 0x05}, kClone[] = {0xb8, 0xb3, 0x01, 0, 0, 0x0f, 0x05};
    for (std::uint64_t at = 0; at + sizeof kMask <= segment.size; ++at) {
      const bool is_mask = std::memcmp(bytes + at, kMask, sizeof kMask) == 0,
                 is_clone = std::memcmp(bytes + at, kClone, sizeof kClone) == 0;
      if (!is_mask && !is_clone) continue;
      ++(is_mask ? direct : clones);
      const std::uint64_t address = segment.address + at + 5 + libc->bias;
      bool found = false;
      for (const auto& point : sites.points) found |= point.address == address;
      CHECK(found);
    }
  }
  CHECK(direct > 0);
  CHECK(clones == 1);
}
