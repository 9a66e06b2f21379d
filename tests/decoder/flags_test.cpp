// Whether the status flags mean nothing: by instructions alone, through jumps, and where functions begin and end.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "decoder/classify.h"
#include "decoder/flags.h"

using namespace ubp::decoder;

namespace {

using Code = std::vector<std::uint8_t>;

// The function is all of `code`, or its first `own` bytes: what is behind them is elsewhere.
bool dead(const Code& code, std::uint32_t offset = 0, std::uint32_t own = ~0U) {
  const auto end = std::min(own, static_cast<std::uint32_t>(code.size()));
  return has_dead_flags({code, end}, offset, [&](std::int64_t at, auto into) {
    CHECK((at < 0 || at >= end));
    const auto size = static_cast<std::int64_t>(code.size());
    const auto from = std::clamp<std::int64_t>(at, 0, size),
               to = std::clamp<std::int64_t>(at + kMaxInstructionBytes, from, size);
    if (at < 0) return std::size_t{0};
    return static_cast<std::size_t>(std::copy(code.begin() + from, code.begin() + to, into.begin()) - into.begin());
  });
}

}  // namespace

TEST_CASE("flags: what writes all five makes them dead, what reads one of them alive") {
  CHECK(dead({0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10}));  // push; mov; sub
  CHECK(dead({0x48, 0x85, 0xff}));                                // test
  CHECK(dead({0x31, 0xc0}));                                      // xor
  CHECK(!dead({0x74, 0x00, 0x31, 0xc0}));                         // je
  CHECK(!dead({0x0f, 0x94, 0xc0, 0x31, 0xc0}));                   // sete
  CHECK(!dead({0x0f, 0x45, 0xc1, 0x31, 0xc0}));                   // cmovne
  CHECK(!dead({0x9c, 0x31, 0xc0}));                               // pushfq
  CHECK(!dead({0x9f, 0x31, 0xc0}));                               // lahf
  CHECK(!dead({0x0f, 0x05, 0x31, 0xc0}));                         // syscall: r11 holds them
  CHECK(dead({0x66, 0x0f, 0x38, 0xf6, 0xc1, 0x31, 0xc0}));        // adcx reads and writes the carry alone
  CHECK(!dead({0xf3, 0x0f, 0x38, 0xf6, 0xc1, 0x31, 0xc0}));       // adox reads the overflow
}

TEST_CASE("flags: the carry is not among them, and inc leaves it") {
  CHECK(dead({0x48, 0x11, 0xc8}));               // adc reads it alone
  CHECK(dead({0x0f, 0x92, 0xc0, 0x31, 0xc0}));   // setb
  CHECK(dead({0xf9, 0xf5, 0xf8, 0x31, 0xc0}));   // stc; cmc; clc
  CHECK(!dead({0x0f, 0xa3, 0xc8, 0x74, 0x00}));  // bt leaves the zero flag; je
}

TEST_CASE("flags: instructions that may leave them alone do not make them dead") {
  CHECK(!dead({0xd3, 0xe0, 0x74, 0x00}));        // shl %cl; je
  CHECK(!dead({0xc1, 0xe0, 0x00, 0x74, 0x00}));  // shl $0; je
  CHECK(!dead({0x0f, 0xa5, 0xc8, 0x74, 0x00}));  // shld %cl; je
  CHECK(!dead({0xf3, 0xa6, 0x74, 0x00}));        // repe cmpsb, perhaps of nothing; je
  CHECK(!dead({0xf2, 0xae, 0x74, 0x00}));        // repne scasb; je
}

TEST_CASE("flags: along jumps, up to calls and returns, and no further than is known") {
  CHECK(dead({0xeb, 0x02, 0x74, 0x00, 0x31, 0xc0}));   // jmp over a je
  CHECK(!dead({0xeb, 0x02, 0x31, 0xc0, 0x74, 0x00}));  // jmp over what would write them
  CHECK(dead({0x31, 0xc0, 0x90, 0xeb, 0xfb}, 2));      // back
  CHECK(!dead({0xeb, 0xfe}));                          // for ever
  CHECK(!dead({0xeb, 0x70}));                          // out
  CHECK(!dead({0xff, 0xe0}));                          // jmp *%rax
  CHECK(!dead({0x72, 0x02, 0x31, 0xc0}));              // jb: two ways
  CHECK(!dead({0xe3, 0x02, 0x31, 0xc0}));              // jrcxz
  CHECK(!dead({0x90, 0xc3}));
  CHECK(!dead({0xe8, 0, 0, 0, 0, 0x74, 0x00}));  // call of what follows, which reads them
  CHECK(!dead({0xff, 0xd0}));
  CHECK(!dead({0x90, 0x90}));     // runs off the end
  CHECK(!dead({0x06}));           // no instruction
  CHECK(!dead(Code(100, 0x90)));  // too far
}

TEST_CASE("flags: into calls and tail jumps, where what is there is known") {
  CHECK(dead({0x90, 0xe8, 0, 0, 0, 0, 0x31, 0xc0}));                  // call of what follows, which writes them
  CHECK(dead({0xe8, 0x01, 0, 0, 0, 0x90, 0x31, 0xc0}, 0, 6));         // call of a function that writes them
  CHECK(!dead({0xe8, 0x01, 0, 0, 0, 0x90, 0x74, 0x00}, 0, 6));        // one that reads them
  CHECK(!dead({0xe8, 0x01, 0, 0, 0, 0x90, 0xc3, 0x31, 0xc0}, 0, 6));  // one that returns with them
  CHECK(dead({0xe9, 0x01, 0, 0, 0, 0x90, 0x31, 0xc0}, 0, 6));         // tail jump
  CHECK(!dead({0xe9, 0x01, 0, 0, 0, 0x90, 0xff, 0xe0}, 0, 6));        // to a jump that computes its target
  CHECK(dead({0x90, 0x31, 0xc0}, 0, 1));                              // it runs off its end into another
  CHECK(!dead({0xe8, 0xf0, 0xff, 0xff, 0xff}));                       // before all that is known
}
