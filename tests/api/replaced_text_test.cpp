// Probed code that the program protects, replaces or unmaps: nothing is written but where a probepoint still stands.
#include "fixture.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

extern "C" {
long page_0_first(), page_1_first(), page_2_first(), page_3_first(), page_4_first(), page_5_first(), page_6_first(),
    page_7_first();
}

namespace {

constexpr std::size_t kPage = 4096;
const std::array<long (*)(), 8> g_first = {page_0_first, page_1_first, page_2_first, page_3_first,
                                           page_4_first, page_5_first, page_6_first, page_7_first};
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

// Every segment of a module: for a process that ends by _exit.
void unmap_module(const char* name) {
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        if (std::string(info->dlpi_name).find(static_cast<const char*>(data)) == std::string::npos) return 0;
        std::uint64_t end = 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& header = info->dlpi_phdr[i];
          if (header.p_type == PT_LOAD) end = std::max(end, header.p_vaddr + header.p_memsz);
        }
        munmap(reinterpret_cast<void*>(info->dlpi_addr), end);
        return 1;
      },
      const_cast<char*>(name));
}

bool is_untouched(const std::uint8_t* page) {
  return std::all_of(page, page + kPage, [](std::uint8_t byte) { return byte == 'x'; });
}

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

TEST_CASE(
    "text that is unmapped or unreadable when it is registered is refused, and the rest of the module is probed") {
  const Runtime runtime;
  REQUIRE(mprotect(page_of(4), kPage, PROT_NONE) == 0);
  REQUIRE(munmap(page_of(5), kPage) == 0);
  ubp_probe* probe = nullptr;
  for (const char* item : {"libfx_pages:page_4_first", "libfx_pages:page_5_second", "libfx_pages:page_5_first+5",
                           "insn:libfx_pages:page_5_first"}) {
    CAPTURE(std::string(item));
    auto refusal = sized<ubp_refusal>();
    CHECK(ubp_register(item, nullptr, &probe, &refusal) == UBP_E_REFUSED);
    CHECK(std::string(refusal.message).starts_with("unreadable: "));
  }
  auto refusal = sized<ubp_refusal>();
  CHECK(ubp_register_address(page_of(4), nullptr, &probe, &refusal) == UBP_E_REFUSED);
  CHECK(std::string(refusal.message).starts_with("unreadable: "));
  // What may be executed only is read by nobody.
  for (const char* item : {"libfx_pages:page_[4-6]_*", "insn:libfx_pages:page_[4-6]_*"}) {
    probe = add(item);
    CHECK(page_6_first() == 1);
    const auto stats = read(probe);
    CHECK(stats.hits == (item[0] == 'i' ? 2 : 1));
    CHECK(stats.refused == 4);
    CHECK(ubp_probe_refusal(probe, 0, &refusal) == UBP_OK);
    CHECK(std::string(refusal.message).starts_with("unreadable: "));
    CHECK(ubp_unregister(probe) == UBP_OK);
  }
  REQUIRE(mprotect(page_of(4), kPage, PROT_READ | PROT_EXEC) == 0);
  probe = add("libfx_pages:page_4_first");
  CHECK(page_4_first() == 1);
  CHECK(read(probe).hits == 1);
  CHECK(ubp_unregister(probe) == UBP_OK);
}

TEST_CASE("probed_text_protected: a probe that was disabled meanwhile is enabled without a look at its text") {
  const Runtime runtime;
  const auto probes = probe_page(7);
  CHECK(ubp_disable(probes.first) == UBP_OK);
  REQUIRE(mprotect(page_of(7), kPage, PROT_NONE) == 0);
  CHECK(ubp_enable(probes.first) == UBP_OK);
  REQUIRE(mprotect(page_of(7), kPage, PROT_READ | PROT_EXEC) == 0);
  CHECK(page_7_first() == 1);
  CHECK(read(probes.first).hits == 2);
}

// The program binds its symbols at load (-z now): the dynamic linker itself looks through what was unmapped otherwise.
TEST_CASE("a module that the program has unmapped as a whole has nothing to probe") {
  CHECK(end_of_child(20, [] {
          const Runtime runtime;
          unmap_module("libfx_pages");
          ubp_probe* probe = nullptr;
          auto refusal = sized<ubp_refusal>();
          // The runtime may have known the module before (earlier cases), and asks again only when modules come or go.
          const ubp_status status = ubp_register("libfx_pages:page_0_first", nullptr, &probe, &refusal);
          const bool is_unreadable =
              status == UBP_E_REFUSED && std::string(refusal.message).starts_with("unreadable: ");
          if (status != UBP_E_NOT_FOUND && !is_unreadable) _exit(1);
          if (ubp_register("libc:getppid", nullptr, &probe, &refusal) != UBP_OK) _exit(2);
          getppid();
          _exit(read(probe).hits == 1 ? 0 : 3);
          return 0;
        }) == 0);
}
