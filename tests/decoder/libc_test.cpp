// classify() over every instruction of this process's own libc: properties that a wrong decode breaks.
//
// A linear sweep of the executable segment, checked against what Zydis does not know: where libc's exported
// functions begin, where its code ends, and which addresses are mapped. Violations are counted and the first
// one is named.
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "decoder/classify.h"

namespace ubp::decoder {
namespace {

struct Libc {
  std::span<const std::uint8_t> text;  // its executable segment
  std::uintptr_t low = UINTPTR_MAX;    // its mapped range, all segments
  std::uintptr_t high = 0;
};

int find_libc(dl_phdr_info* info, std::size_t, void* context) {
  if (std::strstr(info->dlpi_name, "/libc.so.6") == nullptr) return 0;
  Libc& libc = *static_cast<Libc*>(context);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const std::uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    libc.low = std::min(libc.low, begin);
    libc.high = std::max(libc.high, begin + header.p_memsz);
    if ((header.p_flags & PF_X) == 0) continue;
    libc.text = {reinterpret_cast<const std::uint8_t*>(begin), header.p_memsz};
  }
  return 1;
}

struct Sweep {
  std::vector<bool> starts;               // by offset: an instruction starts there
  std::array<std::size_t, 4> by_route{};  // instructions per Route
  std::size_t with_rip = 0;
  std::size_t with_target = 0;
  std::size_t violations = 0;
  const char* first_violation = "none";
  std::size_t first_offset = 0;

  void require(bool holds, const char* what, std::size_t offset) {
    if (holds || violations++ != 0) return;
    first_violation = what;
    first_offset = offset;
  }
};

void check_instruction(const Libc& libc, std::size_t offset, const Instruction& found, Sweep& sweep) {
  const auto rest = libc.text.subspan(offset);
  sweep.require(length_of(rest.first(std::min<std::size_t>(rest.size(), kMaxInstructionBytes))) == found.length,
                "length_of() says another length", offset);
  const Instruction alone = classify(rest.first(found.length));
  sweep.require(alone.length == found.length && alone.route == found.route, "depends on later bytes", offset);
  const Instruction cut = classify(rest.first(found.length - 1u));
  sweep.require(cut.refusal == Refusal::kTruncated, "one byte fewer is not truncated", offset);
  if (found.rip_disp_offset != 0) {
    ++sweep.with_rip;
    sweep.require(found.rip_disp_offset + 4 <= found.length, "displacement past the end", offset);
    std::int32_t displacement = 0;
    std::memcpy(&displacement, rest.data() + found.rip_disp_offset, sizeof displacement);
    const std::uintptr_t operand = reinterpret_cast<std::uintptr_t>(rest.data()) + found.length + displacement;
    sweep.require(operand >= libc.low && operand <= libc.high, "RIP-relative operand outside libc", offset);
  }
  if (found.has_target) {
    ++sweep.with_target;
    const std::int64_t target = static_cast<std::int64_t>(offset) + found.target;
    sweep.require(target >= 0 && target < static_cast<std::int64_t>(libc.text.size()), "target outside text", offset);
  }
}

Sweep sweep_text(const Libc& libc) {
  Sweep sweep;
  sweep.starts.resize(libc.text.size());
  std::size_t offset = 0;
  while (offset < libc.text.size()) {
    const Instruction found = classify(libc.text.subspan(offset));
    sweep.starts[offset] = true;
    ++sweep.by_route[static_cast<std::size_t>(found.route)];
    sweep.require(found.length != 0, "undecodable", offset);
    if (found.length != 0) check_instruction(libc, offset, found, sweep);
    offset += found.length != 0 ? found.length : 1;
  }
  return sweep;
}

TEST_CASE("classify holds its promises on every instruction of libc") {
  Libc libc;
  REQUIRE(dl_iterate_phdr(find_libc, &libc) == 1);
  REQUIRE(libc.text.size() > 100'000);
  const Sweep sweep = sweep_text(libc);
  CAPTURE(sweep.first_violation);
  CAPTURE(sweep.first_offset);
  CHECK(sweep.violations == 0);
  CHECK(sweep.by_route[static_cast<std::size_t>(Route::kSlot)] > 100'000);
  CHECK(sweep.by_route[static_cast<std::size_t>(Route::kEmulate)] > 50'000);
  CHECK(sweep.by_route[static_cast<std::size_t>(Route::kSystem)] > 300);
  CHECK(sweep.by_route[static_cast<std::size_t>(Route::kRefused)] < 100);
  CHECK(sweep.with_rip > 5'000);
  CHECK(sweep.with_target > 50'000);

  // By handle: a sanitizer's own malloc would come first in the global scope.
  void* handle = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  REQUIRE(handle != nullptr);
  for (const char* name : {"malloc", "free", "read", "write", "fork", "printf", "qsort", "getenv", "strtod", "fopen",
                           "memcpy", "strlen", "pthread_create", "sigaction", "exit", "regcomp", "getaddrinfo"}) {
    CAPTURE(name);
    const auto* function = static_cast<const std::uint8_t*>(dlsym(handle, name));
    REQUIRE(function >= libc.text.data());
    REQUIRE(function < libc.text.data() + libc.text.size());
    const auto entry = static_cast<std::uint32_t>(function - libc.text.data());
    CHECK(sweep.starts[entry]);
    const auto body = libc.text.subspan(entry);
    std::uint32_t start = 0;
    while (start < 64) {
      const std::optional<Boundary> middle = find_boundary(body, start + 1);
      REQUIRE(middle.has_value());
      CHECK((middle->is_boundary ? middle->before : middle->after) == start + classify(body.subspan(start)).length);
      start += classify(body.subspan(start)).length;
      CHECK(sweep.starts[entry + start]);
    }
  }
  dlclose(handle);
}

}  // namespace
}  // namespace ubp::decoder
