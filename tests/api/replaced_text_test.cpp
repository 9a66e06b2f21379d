// Probed code that the program protects, replaces or unmaps: nothing is written but where a probepoint still stands.
#include "fixture.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

extern "C" {
long page_0_first(), page_1_first(), page_2_first(), page_3_first();
}

namespace {

constexpr std::size_t kPage = 4096;
const std::array<long (*)(), 4> g_first = {page_0_first, page_1_first, page_2_first, page_3_first};
std::uint8_t* page_of(int number) { return reinterpret_cast<std::uint8_t*>(g_first[static_cast<std::size_t>(number)]); }

std::uint32_t optimize() {
  const char* const mode = std::getenv("UBP_TEST_OPTIMIZE");
  return static_cast<std::uint32_t>(mode == nullptr ? UBP_OPTIMIZE_NEVER : std::atoi(mode));
}

// Both functions of a page, probed, and called once each.
std::pair<ubp_probe*, ubp_probe*> probe_page(int page) {
  const std::string name = "libfx_pages:page_" + std::to_string(page);
  const std::pair<ubp_probe*, ubp_probe*> probes = {add((name + "_first").c_str()), add((name + "_second").c_str())};
  CHECK(g_first[static_cast<std::size_t>(page)]() == 1);
  CHECK(reinterpret_cast<long (*)(long)>(page_of(page) + 6)(5) == 12);
  CHECK(read(probes.first).hits == 1);
  CHECK(read(probes.second).hits == 1);
  return probes;
}

struct Runtime {
  Runtime() {
    auto config = sized<ubp_config>();
    config.optimize = optimize();
    REQUIRE(ubp_init(&config) == UBP_OK);
  }
  ~Runtime() { CHECK(ubp_shutdown() == UBP_OK); }
};

void replace(std::uint8_t* page) {
  REQUIRE(mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
  std::fill_n(page, kPage, 'x');
}

bool is_untouched(const std::uint8_t* page) { return std::all_of(page, page + kPage, [](std::uint8_t byte) { return byte == 'x'; }); }

}  // namespace

TEST_CASE("probed_text_protected: what cannot be read is still the program's own code, and is put back") {
  std::uint8_t* const page = page_of(0);
  const std::vector<std::uint8_t> before(page, page + kPage);
  const Runtime runtime;
  const auto probes = probe_page(0);
  REQUIRE(mprotect(page, kPage, PROT_NONE) == 0);
  CHECK(ubp_unregister(probes.first) == UBP_OK);
  CHECK(ubp_unregister(probes.second) == UBP_OK);
  REQUIRE(mprotect(page, kPage, PROT_READ | PROT_EXEC) == 0);
  CHECK(std::equal(before.begin(), before.end(), page));
  CHECK(page_0_first() == 1);
}

TEST_CASE("probed_text_unmapped: what lies there then is not written to") {
  const Runtime runtime;
  const auto probes = probe_page(1);
  replace(page_of(1));
  CHECK(ubp_unregister(probes.first) == UBP_OK);
  CHECK(read(probes.second).hits == 1);  // what it counted stays
  CHECK(ubp_unregister(probes.second) == UBP_OK);
  CHECK(is_untouched(page_of(1)));
}

TEST_CASE("probed_text_unmapped: nothing lies there") {
  const Runtime runtime;
  const auto probes = probe_page(2);
  REQUIRE(munmap(page_of(2), kPage) == 0);
  CHECK(ubp_unregister(probes.first) == UBP_OK);
}

TEST_CASE("probed_text_unmapped: a probe that was disabled meanwhile cannot be enabled again") {
  const Runtime runtime;
  const auto probes = probe_page(3);
  CHECK(ubp_disable(probes.first) == UBP_OK);
  replace(page_of(3));
  CHECK(ubp_enable(probes.first) == UBP_E_SYSTEM);
  CHECK(is_untouched(page_of(3)));
}
