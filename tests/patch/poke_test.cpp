// The text poke: writes exactly the bytes it is given, across pages, and leaves text executable.
#include <doctest/doctest.h>

#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "runtime/patch/poke.h"

using ubp::patch::Byte;
using ubp::patch::write_text;

namespace {

// A private read-execute mapping, as program text is.
struct Text {
  explicit Text(std::size_t pages) : bytes(pages * 4096) {
    base = static_cast<std::uint8_t*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(base != MAP_FAILED);
    std::memset(base, 0x90, bytes);
    for (std::size_t at = 4095; at < bytes; at += 4096) base[at] = 0xc3;
    REQUIRE(mprotect(base, bytes, PROT_READ | PROT_EXEC) == 0);
  }
  ~Text() { munmap(base, bytes); }
  std::uint64_t at(std::size_t offset) const { return reinterpret_cast<std::uint64_t>(base) + offset; }
  std::size_t bytes;
  std::uint8_t* base;
};

}  // namespace

TEST_CASE("bytes land where they should, on one page, on many, and across gaps") {
  Text text(200);
  std::vector<std::uint8_t> expected(text.base, text.base + text.bytes);
  std::vector<Byte> bytes;
  for (std::size_t offset = 7; offset < text.bytes - 8; offset += offset < 40000 ? 13 : 5001) {
    if (expected[offset] == 0xc3) continue;
    bytes.push_back({text.at(offset), 0x66});
    expected[offset] = 0x66;
  }
  REQUIRE_FALSE(write_text(bytes));
  CHECK(std::memcmp(text.base, expected.data(), text.bytes) == 0);
  reinterpret_cast<void (*)()>(text.base + 4090)();  // nops, prefixed or not, and a ret
}

TEST_CASE("an empty list is written at once") { CHECK_FALSE(write_text({})); }

TEST_CASE("whole pages land where they should: neighbours, long runs, gaps, and the other way round") {
  using ubp::patch::kPageBytes;
  Text text(200);
  std::vector<std::uint8_t> expected(text.base, text.base + text.bytes);
  std::vector<std::vector<std::uint8_t>> contents;
  std::vector<ubp::patch::Page> pages;
  const auto add = [&](std::size_t page) {
    contents.emplace_back(kPageBytes, static_cast<std::uint8_t>(contents.size()));
    std::memcpy(expected.data() + page * kPageBytes, contents.back().data(), kPageBytes);
    pages.push_back({text.at(page * kPageBytes), nullptr});
  };
  for (std::size_t page = 1; page < 180; ++page) {
    if (page % 90 != 3) add(page);
  }
  for (const std::size_t page : {199, 198, 185}) add(page);
  for (std::size_t i = 0; i < pages.size(); ++i) pages[i].bytes = contents[i].data();
  REQUIRE_FALSE(ubp::patch::write_pages(pages));
  CHECK(std::memcmp(text.base, expected.data(), text.bytes) == 0);
}
