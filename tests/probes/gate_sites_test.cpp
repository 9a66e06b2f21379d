// mask_sites_found: the finder against the libc that runs this test.
#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>

#include "runtime/probes/gate_sites.h"

using namespace ubp;

TEST_CASE("mask_sites_found: every rt_sigprocmask, rt_sigaction and clone3 of this libc, and no unknown bytes") {
  const symbols::Module* libc = nullptr;
  const auto modules = symbols::loaded_modules();
  for (const auto& module : modules) {
    if (module.name == "libc.so.6") libc = &module;
  }
  REQUIRE(libc != nullptr);
  const probes::GateSites sites = probes::find_gate_sites(*libc);
  MESSAGE(sites.points.size() << " sites, " << sites.unknown << " with a number from a register, " << sites.unreadable
                              << " unreadable");
  CHECK(sites.unreadable == 0);       // syscall bytes outside every known function would be an unguarded door
  CHECK(sites.points.size() >= 18);   // Debian 12's libc has 18 that block or reset
  CHECK(sites.points.size() <= 128);  // the others have a constant, and are none of the gate's business
  // An independent count: every `mov $14, %eax` directly before a syscall must be among them, and clone3's one.
  std::size_t direct = 0, clones = 0;
  for (const auto& segment : libc->segments) {
    const std::uint8_t* bytes = segment.executable ? libc->bytes_at(segment.address) : nullptr;
    if (bytes == nullptr) continue;
    constexpr std::uint8_t kMask[] = {0xb8, 0x0e, 0, 0, 0, 0x0f, 0x05}, kClone[] = {0xb8, 0xb3, 0x01, 0, 0, 0x0f, 0x05};
    for (std::uint64_t at = 0; at + sizeof kMask <= segment.size; ++at) {
      const bool is_mask = std::memcmp(bytes + at, kMask, sizeof kMask) == 0, is_clone = std::memcmp(bytes + at, kClone, sizeof kClone) == 0;
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
