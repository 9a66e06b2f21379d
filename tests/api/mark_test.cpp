// Static marks through the C interface: their semaphores, as probes come and go.
#include "../preload/fixtures/static_mark.h"
#include "fixture.h"

#include <sys/mman.h>

extern "C" {
MARK_SEMAPHORE(mark_test_listening);
// Alone on its page.
struct alignas(4096) MarkPage {
  volatile unsigned short listening;
  char rest[4094];
};
__attribute__((visibility("hidden"))) MarkPage mark_test_page{7, {}};
}

namespace {

// Another tracer has counted itself already.
constexpr unsigned short kOthers = 5;

void pass_mark(int value) {
  if (mark_test_listening > kOthers) STATIC_MARK("api", "passed", "mark_test_listening", "-4@%k0", "r"(value));
}

std::uint64_t mark_hits(ubp_probe* probe) {
  pass_mark(-3);
  return read(probe).hits;
}

}  // namespace

TEST_CASE("mark_semaphore: raised while armed, exactly, beside others who listen") {
  mark_test_listening = kOthers;
  ubp_probe* const first = add("usdt::api:passed");
  CHECK(mark_test_listening == kOthers + 1);
  CHECK(mark_hits(first) == 1);
  {
    const Scoped second(add("usdt:*:passed { @last = arg0 }"));
    CHECK(mark_test_listening == kOthers + 2);
    CHECK(mark_hits(first) == 2);
    std::int64_t last = 0;
    CHECK(ubp_map_number(second.probe, "@last", &last) == UBP_OK);
    CHECK(last == -3);
    CHECK(ubp_disable(second.probe) == UBP_OK);
    CHECK(mark_test_listening == kOthers + 1);
    CHECK(ubp_enable(second.probe) == UBP_OK);
    CHECK(ubp_enable(second.probe) == UBP_OK);
    CHECK(mark_test_listening == kOthers + 2);
  }
  CHECK(mark_test_listening == kOthers + 1);
  const int status = end_of_child(20, [&] {  // whose memory is its own
    if (mark_test_listening != kOthers + 1 || ubp_unregister(first) != UBP_OK) return 1;
    return mark_test_listening == kOthers ? 0 : 2;
  });
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(mark_test_listening == kOthers + 1);
  CHECK(ubp_unregister(first) == UBP_OK);
  CHECK(mark_test_listening == kOthers);
  mark_test_listening = 0;
}

TEST_CASE("mark_semaphore: not by a registration that comes to nothing, nor before it is armed") {
  CHECK(mark_test_listening == 0);
  const Scoped disabled(add("usdt::api:passed", nullptr, nullptr, UBP_PROBE_DISABLED));
  CHECK(mark_test_listening == 0);
  REQUIRE(ubp_transaction_begin() == UBP_OK);
  add("usdt::api:passed");
  CHECK(mark_test_listening == 0);
  CHECK(ubp_transaction_abort() == UBP_OK);
  CHECK(mark_test_listening == 0);
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_register("usdt::api:passed; usdt::api:absent", nullptr, nullptr, &refusal) == UBP_E_NOT_FOUND);
  CHECK(mark_test_listening == 0);
  CHECK(ubp_register("usdt::api:passed { @ = arg7 }", nullptr, nullptr, &refusal) == UBP_E_REFUSED);
  CHECK(mark_test_listening == 0);
}

TEST_CASE("mark_semaphore: one that the program has made read-only stays as it is") {
  STATIC_MARK("api", "alone", "mark_test_page", "-4@$1", "r"(0));
  const int status = end_of_child(20, [] {
    if (mprotect(&mark_test_page, sizeof mark_test_page, PROT_READ) != 0) return 1;
    ubp_probe* probe = nullptr;
    const ubp_status registered = ubp_register("usdt::api:alone", nullptr, &probe, nullptr);
    if (registered != UBP_OK || mark_test_page.listening != 7) return 2;
    return ubp_unregister(probe) == UBP_OK && mark_test_page.listening == 7 ? 0 : 3;
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
