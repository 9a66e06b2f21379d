// Misuse of the C interface gets its error, and the end of it all.
#include "fixture.h"

#include <dlfcn.h>

#include <csignal>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

namespace {

std::vector<unsigned char> text_of(const void* function) {
  const auto* bytes = static_cast<const unsigned char*>(function);
  return {bytes, bytes + 16};
}

}  // namespace

TEST_CASE("a call from a signal handler works, or is refused when it interrupted another call") {
  static volatile sig_atomic_t ok, busy, other;
  ok = 0;
  busy = 0;
  other = 0;
  {
    const auto handler = [](int) {
      ubp_probe* probe = nullptr;
      const ubp_status status = ubp_register("libfx_target:target_quiet", nullptr, &probe, nullptr);
      if (status == UBP_OK && ubp_unregister(probe) == UBP_OK) {
        ok = ok + 1;
      } else if (status == UBP_E_BUSY) {
        busy = busy + 1;
      } else {
        other = other + 1;
      }
    };
    const Alarm alarm(handler, 300000);
    for (int i = 0; i < 3000; ++i) {
      ubp_probe* probe = nullptr;
      CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, nullptr) == UBP_OK);
      CHECK(ubp_unregister(probe) == UBP_OK);
    }
  }
  CAPTURE(busy);
  CAPTURE(other);
  CHECK(ok > 0);
  CHECK(other == 0);
}

TEST_CASE("as many probes as one address has room for, and one more in the same transaction") {
  constexpr int kMost = 16383;
  const auto commit = [](int registrations) {
    std::vector<ubp_probe*> probes(static_cast<std::size_t>(registrations));
    CHECK(ubp_transaction_begin() == UBP_OK);
    int registered = 0;
    for (ubp_probe*& probe : probes)
      registered += ubp_register("libfx_target:target_add", nullptr, &probe, nullptr) == UBP_OK ? 1 : 0;
    CHECK(registered == registrations);
    const ubp_status status = ubp_transaction_commit();
    target_add(1, 2);
    auto stats = sized<ubp_probe_stats>();
    if (status == UBP_OK) CHECK(ubp_probe_read(probes.back(), &stats) == UBP_OK);
    CHECK(stats.hits == (status == UBP_OK ? 1 : 0));
    if (status != UBP_OK) {
      CHECK(ubp_unregister(probes.front()) == UBP_E_STALE);
      return status;
    }
    CHECK(ubp_transaction_begin() == UBP_OK);
    int gone = 0;
    for (ubp_probe* const probe : probes) gone += ubp_unregister(probe) == UBP_OK ? 1 : 0;
    CHECK(gone == registrations);
    CHECK(ubp_transaction_commit() == UBP_OK);
    return status;
  };
  CHECK(commit(kMost + 1) == UBP_E_SYSTEM);
  CHECK(commit(kMost) == UBP_OK);
}

TEST_CASE("misuse returns its error") {
  auto stats = sized<ubp_probe_stats>();
  ubp_probe* probe = nullptr;
  CHECK(ubp_register(nullptr, nullptr, &probe, nullptr) == UBP_E_INVALID);
  CHECK(ubp_register("", nullptr, &probe, nullptr) == UBP_E_SPEC);
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_register("libc:malloc; libc:[", nullptr, &probe, &refusal) == UBP_E_SPEC);
  CHECK(refusal.line == 1);
  CHECK(refusal.column > 13);
  CHECK(ubp_register("libfx_target:target_ad", nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(std::string(refusal.hint).find("target_add") != std::string::npos);
  CHECK(ubp_register_symbol("nolib", "f", 0, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(ubp_register_symbol("libfx_target", "", 0, nullptr, &probe, &refusal) == UBP_E_INVALID);
  CHECK(ubp_register_symbol("libfx_target", "target_add", 1, nullptr, &probe, &refusal) == UBP_E_REFUSED);
  CHECK(refusal.address == reinterpret_cast<std::uint64_t>(dlsym(RTLD_DEFAULT, "target_add")) + 1);
  CHECK(std::string(refusal.symbol) == "target_add+0x1");
  CHECK(std::string(refusal.message).find("mid-instruction") != std::string::npos);
  CHECK(ubp_register_symbol("libfx_target", "target_add", 1000, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
  CHECK(ubp_register_address(nullptr, nullptr, &probe, nullptr) == UBP_E_INVALID);
  CHECK(ubp_register_address(&stats, nullptr, &probe, &refusal) == UBP_E_NOT_FOUND);
#ifndef __SANITIZE_ADDRESS__  // there the runtime is a part of this program, as any other
  CHECK(ubp_register_address(reinterpret_cast<const void*>(&ubp_init), nullptr, &probe, &refusal) == UBP_E_REFUSED);
  CHECK(std::string(refusal.message).starts_with("runtime:"));
#endif
  auto options = sized<ubp_options>();
  options.flags = 1u << 20;
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_INVALID);
  options.flags = UBP_PROBE_MODIFY;  // without a consumer
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_INVALID);
  options.struct_size = 4;
  CHECK(ubp_register("libfx_target:target_add", &options, &probe, nullptr) == UBP_E_STRUCT_SIZE);
  refusal.struct_size = 8;
  CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, &refusal) == UBP_E_STRUCT_SIZE);
  CHECK(ubp_unregister(nullptr) == UBP_E_STALE);
  CHECK(ubp_enable(reinterpret_cast<ubp_probe*>(&stats)) == UBP_E_STALE);
  probe = add("libfx_target:target_add");
  CHECK(ubp_probe_read(probe, nullptr) == UBP_E_INVALID);
  stats.struct_size = 1;
  CHECK(ubp_probe_read(probe, &stats) == UBP_E_STRUCT_SIZE);
  CHECK(ubp_unregister(probe) == UBP_OK);
  CHECK(ubp_unregister(probe) == UBP_E_STALE);
  CHECK(ubp_disable(probe) == UBP_E_STALE);
  for (int status = 0; status >= -15; --status) {
    CHECK(std::string(ubp_status_string(static_cast<ubp_status>(status))) != "unknown status");
  }
  CHECK(std::string(ubp_status_string(static_cast<ubp_status>(-16))) == "unknown status");
  CHECK(target_add(2, 2) == 4);
}

TEST_CASE("a consumer of nothing is no error") {
  const Scoped probe(add(
      "libfx_target:nowhere", [](const ubp_context*, void*) {}, nullptr, UBP_PROBE_IGNORE_MISSING));
  CHECK(read(probe.probe).hits == 0);
  CHECK(read(probe.probe).probepoints == 0);
}

TEST_CASE("shutdown puts the text back byte for byte; nothing works after it; init starts again") {
  const void* const add_text = dlsym(RTLD_DEFAULT, "target_add");
  const void* const libc_text = dlsym(dlopen("libc.so.6", RTLD_LAZY), "malloc");
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(ubp_is_active() == 0);
  const auto add_before = text_of(add_text), malloc_before = text_of(libc_text);
  ubp_probe* probe = nullptr;
  CHECK(ubp_register("libfx_target:target_add", nullptr, &probe, nullptr) == UBP_E_NOT_ACTIVE);
  CHECK(ubp_unregister(g_early) == UBP_E_NOT_ACTIVE);
  auto stats = sized<ubp_stats>();
  CHECK(ubp_read(&stats) == UBP_E_NOT_ACTIVE);
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(ubp_init(nullptr) == UBP_OK);
  CHECK(ubp_unregister(g_early) == UBP_E_STALE);
  probe = add("libfx_target:target_add; libc:malloc");
  CHECK(text_of(add_text) != add_before);
  CHECK(text_of(libc_text) != malloc_before);
  target_add(1, 1);
  CHECK(read(probe).hits >= 1);
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(text_of(add_text) == add_before);
  CHECK(text_of(libc_text) == malloc_before);
  CHECK(target_add(1, 1) == 2);
  CHECK(ubp_init(nullptr) == UBP_OK);

  ubp_probe* lost = nullptr;  // a transaction ends with the interface
  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_register("libfx_target:target_add", nullptr, &lost, nullptr) == UBP_OK);
  CHECK(ubp_shutdown() == UBP_OK);
  CHECK(ubp_transaction_commit() == UBP_E_TRANSACTION);
  CHECK(ubp_init(nullptr) == UBP_OK);
  CHECK(ubp_transaction_begin() == UBP_OK);
  CHECK(ubp_transaction_abort() == UBP_OK);
  CHECK(ubp_unregister(lost) == UBP_E_STALE);
}
