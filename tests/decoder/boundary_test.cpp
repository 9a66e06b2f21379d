// find_boundary() on hand-made functions: boundaries, middles, data in text, and what ends a claim.
#include <doctest/doctest.h>

#include <vector>

#include "decoder/classify.h"

namespace ubp::decoder {
namespace {

using Bytes = std::vector<std::uint8_t>;

void check_boundary(const Bytes& code, std::uint32_t offset, bool is_boundary, std::uint32_t before,
                    std::uint32_t after) {
  CAPTURE(offset);
  const std::optional<Boundary> found = find_boundary(code, offset);
  REQUIRE(found.has_value());
  CHECK(found->is_boundary == is_boundary);
  CHECK(found->before == before);
  CHECK(found->after == after);
}

TEST_CASE("find_boundary places every offset of a function") {
  // 0: endbr64   4: push rbp   5: mov rbp,rsp   8: sub rsp,0x12345678   15: ret
  const Bytes code{0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec, 0x78, 0x56, 0x34, 0x12, 0xc3};
  const std::vector<std::uint32_t> starts{0, 4, 5, 8, 15, 16};
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    check_boundary(code, starts[i], true, starts[i], starts[i + 1]);
    for (std::uint32_t middle = starts[i] + 1; middle < starts[i + 1]; ++middle) {
      check_boundary(code, middle, false, starts[i], starts[i + 1]);
    }
  }
  // And from each that is known, as from the entry.
  for (std::size_t from = 0; from + 1 < starts.size(); ++from) {
    for (std::uint32_t offset = 0; offset < 16; ++offset) {
      CAPTURE(from);
      CAPTURE(offset);
      const std::optional<Boundary> whole = find_boundary(code, offset),
                                    rest = find_boundary(code, offset, starts[from]);
      REQUIRE(rest.has_value() == (offset >= starts[from]));
      if (!rest) continue;
      CHECK(rest->is_boundary == whole->is_boundary);
      CHECK(rest->before == whole->before);
      CHECK(rest->after == whole->after);
    }
  }
  CHECK_FALSE(find_boundary(code, 16).has_value());
  CHECK_FALSE(find_boundary({}, 0).has_value());
}

TEST_CASE("find_boundary: a prefix that a branch jumps over hides a second instruction, not a boundary") {
  // 0: je 3   2: lock cmpxchg [rdi],ecx, whose cmpxchg at 3 is a branch target (libc does this)   6: ret
  const Bytes code{0x74, 0x01, 0xf0, 0x0f, 0xb1, 0x0f, 0xc3};
  check_boundary(code, 2, true, 2, 6);
  check_boundary(code, 3, false, 2, 6);
  check_boundary(code, 6, true, 6, 7);
}

TEST_CASE("find_boundary goes on behind refused instructions and unconditional transfers") {
  // 0: hlt   1: int3   2: jmp 9   4: ud2   6: data16 je   9: ret
  const Bytes code{0xf4, 0xcc, 0xeb, 0x05, 0x0f, 0x0b, 0x66, 0x74, 0x00, 0xc3};
  check_boundary(code, 5, false, 4, 6);
  check_boundary(code, 9, true, 9, 10);
}

TEST_CASE("find_boundary claims nothing behind bytes without a known length") {
  SUBCASE("data in text") {
    const Bytes code{0x90, 0x06, 0x90, 0x90};
    check_boundary(code, 0, true, 0, 1);
    check_boundary(code, 1, true, 1, 1);
    CHECK_FALSE(find_boundary(code, 2).has_value());
    CHECK_FALSE(find_boundary(code, 3).has_value());
  }
  SUBCASE("a truncated end") {
    const Bytes code{0x90, 0xe8, 0x00, 0x00};
    check_boundary(code, 1, true, 1, 1);
    CHECK_FALSE(find_boundary(code, 2).has_value());
    CHECK_FALSE(find_boundary(code, 3).has_value());
  }
  SUBCASE("a length that depends on the vendor") {
    const Bytes code{0x66, 0xe8, 0x00, 0x00, 0x90, 0x90, 0x90};
    check_boundary(code, 0, true, 0, 0);
    CHECK_FALSE(find_boundary(code, 4).has_value());
    CHECK_FALSE(find_boundary(code, 6).has_value());
  }
}

}  // namespace
}  // namespace ubp::decoder
