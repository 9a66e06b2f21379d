// What the writer of detours makes: the bytes of the blocks that are run most, the copies of instructions and what
// follows them, jumps, and the buffer's bound. What the stages say of counting, consumers and records:
// detour_stages_test.cpp.
#include <doctest/doctest.h>

#include <stdexcept>
#include <vector>

#include "decoder/classify.h"
#include "runtime/jump/detour_assembler.h"
#include "runtime/jump/detour_writer.h"
#include "runtime/table/detour_view.h"

using namespace ubp::runtime;
using Bytes = std::vector<std::uint8_t>;

namespace {

constexpr std::uint64_t kOrigin = 0x7f0000200000, kEntry = 0x7f0000100200;
constexpr DetourStorage kStorage{.state = -0x500, .rcx = -0x4f8, .rax = -0x4f0, .rdx = -0x4e8, .segment = 0x12340000};

// A detour of these instructions; which of them are counted, and how.
struct Written {
  DetourWriter writer{kStorage};
  DetourPlan plan;
  DetourInfo info;
  DetourSize size{};
  Bytes image;

  struct Part {
    Bytes code;
    bool is_counted = false, by_segment = false;
    const DetourInfo* chain = nullptr;
  };
  explicit Written(const std::vector<Part>& parts) {
    Bytes code;
    for (const Part& part : parts) {
      const auto offset = static_cast<std::uint8_t>(code.size());
      plan.parts.push_back({offset, ubp::decoder::classify(part.code), part.is_counted, part.by_segment,
                            static_cast<std::uint32_t>(8 * (plan.parts.size() + 1)), part.chain});
      code.insert(code.end(), part.code.begin(), part.code.end());
    }
    plan.length = static_cast<std::uint32_t>(code.size());
    size = writer.size_of(plan, nullptr);
    image.resize(size.head + size.code);
    info.entry = reinterpret_cast<std::uint64_t>(image.data()) + size.head;  // read there, never run
    info.origin = info.entry - 0x100000;
    info.jump_bytes = 5;
    code.resize(std::max<std::size_t>(code.size(), 5));
    writer.write(image, info, plan, code, nullptr);
  }
  DetourPosition at(std::int64_t offset) const {
    return detour_position(info, info.entry + static_cast<std::uint64_t>(offset));
  }
  Bytes bytes(std::size_t begin, std::size_t count) const {
    const auto first = image.begin() + static_cast<std::ptrdiff_t>(size.head + begin);
    return {first, first + static_cast<std::ptrdiff_t>(count)};
  }
};

const Bytes kNop{0x0f, 0x1f, 0x44, 0x00, 0x00}, kLea{0x48, 0x8d, 0x5b, 0x01};

}  // namespace

TEST_CASE("detour writer: the code that counts") {
  const Written detour({{kNop, true}, {kLea}});
  CHECK(detour.size.head == 8 + 10);
  CHECK(detour.info.head() == reinterpret_cast<std::uint64_t>(detour.image.data()));
  REQUIRE(detour.info.copies[0] == 69);
  const Bytes spill_rcx{0x64, 0x48, 0x89, 0x0c, 0x25, 0x08, 0xfb, 0xff, 0xff},
      load_rcx{0x64, 0x48, 0x8b, 0x0c, 0x25, 0x08, 0xfb, 0xff, 0xff};
  const Bytes spill_rax{0x64, 0x48, 0x89, 0x04, 0x25, 0x10, 0xfb, 0xff, 0xff},
      load_rax{0x64, 0x48, 0x8b, 0x04, 0x25, 0x10, 0xfb, 0xff, 0xff};
  CHECK(detour.bytes(0, 9) == spill_rcx);
  CHECK(detour.bytes(9, 9) == Bytes{0x64, 0x48, 0x8b, 0x0c, 0x25, 0x00, 0xfb, 0xff, 0xff});  // mov %fs:state,%rcx
  CHECK(detour.bytes(18, 3) == Bytes{0x48, 0x8b, 0x49});                                     // mov fast(%rcx),%rcx
  CHECK(detour.bytes(22, 2) == Bytes{0xe3, 0xde});                                           // jrcxz: to the slow way
  CHECK(detour.bytes(24, 9) == spill_rax);
  CHECK(detour.bytes(33, 7) == Bytes{0x48, 0x8b, 0x81, 0x08, 0, 0, 0});  // mov 8(%rcx),%rax
  CHECK(detour.bytes(40, 4) == Bytes{0x48, 0x8d, 0x40, 0x01});           // lea 1(%rax),%rax
  CHECK(detour.bytes(44, 7) == Bytes{0x48, 0x89, 0x81, 0x08, 0, 0, 0});  // mov %rax,8(%rcx)
  CHECK(detour.bytes(51, 9) == load_rax);
  CHECK(detour.bytes(60, 9) == load_rcx);
  REQUIRE(detour.info.copies[1] == 69 + 5);
}

TEST_CASE("detour writer: one instruction that counts, and later ones in between") {
  const Written detour({{kLea, true, true}, {kLea, true, true}, {kLea, true, false}});
  CHECK(detour.size.head == sizeof(void*));  // no slow way
  CHECK(detour.info.head() == reinterpret_cast<std::uint64_t>(detour.image.data()));
  REQUIRE(detour.info.copies[0] == 9);
  REQUIRE(detour.info.copies[1] == 9 + 4 + 9);
  REQUIRE(detour.info.copies[2] == detour.info.copies[1] + 4 + 2 + 10 + 69);
  CHECK(detour.bytes(0, 9) == Bytes{0x65, 0x48, 0xff, 0x04, 0x25, 0x08, 0x00, 0x34, 0x12});  // incq %gs:0x12340008
  CHECK(detour.bytes(9, 4) == kLea);
  CHECK(detour.bytes(9 + 4, 9) == Bytes{0x65, 0x48, 0xff, 0x04, 0x25, 0x10, 0x00, 0x34, 0x12});
}

TEST_CASE("detour writer: behind an instruction's copy, the next one or where the jump there leads") {
  const Bytes call{0xe8, 0x10, 0, 0, 0}, loop{0xe2, 0x10}, jcc{0x75, 0x20}, jump{0xeb, 0x30};
  const Written detour({{kLea, true}, {call}, {loop}, {jcc}, {jump}});
  const auto& [entry, origin, copies] = std::tie(detour.info.entry, detour.info.origin, detour.info.copies);
  const auto is_at = [&](std::int64_t offset, std::uint64_t behind_origin) {
    const DetourPosition position = detour.at(offset);
    return position.rip == detour.info.origin + behind_origin && position.holds == 0 && !position.is_before;
  };
  CHECK(detour.at(copies[0]).rip == origin);
  CHECK(detour.at(copies[0]).is(kCounted));
  CHECK(detour.at(copies[0]).is_before);
  CHECK(is_at(copies[1], 4));
  CHECK(is_at(copies[1] + 6, 4 + 5 + 0x10));  // the return address is pushed: the call's target
  CHECK(is_at(copies[2], 9));
  CHECK(is_at(copies[2] + 2, 11));         // not taken: the next instruction
  CHECK(is_at(copies[2] + 4, 11 + 0x10));  // taken
  CHECK(is_at(copies[3], 11));
  CHECK(is_at(copies[4], 13));
  CHECK(entry == detour.info.head() + detour.size.head);
  // The return address that is pushed is the original one, and lies so that it can be with alignment checked.
  const auto push = static_cast<std::int64_t>(copies[1]);
  REQUIRE(detour.bytes(copies[1], 2) == Bytes{0xff, 0x35});
  const std::uint64_t at =
      entry + static_cast<std::uint64_t>(push) + 6 + ubp::xol::load32(&detour.image[detour.size.head + copies[1] + 2]);
  CHECK(at % 8 == 0);
  CHECK(ubp::xol::load64(reinterpret_cast<const std::uint8_t*>(at)) == origin + 9);
}

TEST_CASE("detour writer: the jump back") {
  const Written detour({{kLea, true}, {kLea}});
  const DetourPosition back = detour.at(detour.info.copies[1] + 4);
  CHECK(back.rip == detour.info.origin + 8);
  CHECK(back.holds == 0);
  CHECK(detour.info.bytes == detour.info.copies[1] + 4 + 5);
}

TEST_CASE("detour writer: a return that has a detour of its own is led to") {
  const Written others({{{0xc3}, true}});
  const Written detour({{kLea, true}, {{0xc3}, false, false, &others.info}, {{0x90}}});
  REQUIRE(detour.info.is_chained(1));
  CHECK_FALSE(detour.info.is_chained(0));
  CHECK_FALSE(detour.info.is_chained(2));
  const std::int64_t jump = detour.info.copies[1];
  REQUIRE(detour.bytes(detour.info.copies[1], 1) == Bytes{0xe9});
  const auto displacement =
      static_cast<std::int32_t>(ubp::xol::load32(&detour.image[detour.size.head + detour.info.copies[1] + 1]));
  CHECK(detour.info.entry + static_cast<std::uint64_t>(jump + 5 + displacement) == others.info.entry);
  CHECK(detour.info.copies[2] == jump + 5);
  CHECK(detour.at(jump).rip == detour.info.origin + 4);  // at the return, which nobody has counted
  CHECK(detour.at(jump).holds == 0);
  CHECK_FALSE(detour.at(jump).is_before);
  CHECK(detour.at(jump + 5).rip == detour.info.origin + 5);
  // A thread that traps at the return is not sent there, where it would be counted again.
  DetourView view;
  std::vector<const DetourInfo*> infos = {&detour.info, &detour.info};
  view.infos = infos.data();
  DetourInfo active = detour.info;
  active.is_active = 1;
  infos[1] = &active;
  CHECK(view.covered_copy(1, active.origin + 4) == 0);
  CHECK(view.covered_copy(1, active.origin + 5) == active.entry + active.copies[2]);
}

TEST_CASE("detour writer: the jump there, behind prefixes that mean nothing") {
  DetourWriter writer(kStorage);
  Bytes jump(5), longer(7);
  writer.write_jump(jump, kOrigin, kEntry);
  CHECK(jump == Bytes{0xe9, 0xfb, 0x01, 0xf0, 0xff});
  writer.write_jump(longer, kOrigin, kEntry);
  CHECK(longer == Bytes{0x3e, 0x3e, 0xe9, 0xf9, 0x01, 0xf0, 0xff});
}

TEST_CASE("detour writer: nothing is written behind the buffer, nor out of reach") {
  DetourAssembler assembler(kStorage);
  assembler.start_at(kEntry);
  const auto fill = [&] {
    for (;;) assembler.nop();
  };
  CHECK_THROWS_AS(fill(), Xbyak::Error);
  CHECK(assembler.getSize() == kMostDetourBytes);
  assembler.start_at(kEntry);
  CHECK_THROWS_AS(assembler.jump_to(kEntry + (std::uint64_t{1} << 32)), Xbyak::Error);

  Written detour({{kLea, true}, {kLea}});
  Bytes shorter(detour.image.size() - 1);
  DetourInfo info;
  info.entry = detour.info.entry;
  info.origin = detour.info.origin;
  info.jump_bytes = 5;
  const Bytes code(8, 0x90);
  CHECK_THROWS_AS(detour.writer.write(shorter, info, detour.plan, code, nullptr), std::logic_error);
}
