// What becomes of the status flags: by instructions alone, through jumps, and where functions begin and end.
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

#include "decoder/classify.h"
#include "decoder/flags.h"

using namespace ubp::decoder;

namespace {

using Code = std::vector<std::uint8_t>;

FlagsFate fate(const Code& code, std::uint32_t offset = 0) {
  return fate_of_flags({code, static_cast<std::uint32_t>(code.size())}, offset);
}

}  // namespace

TEST_CASE("flags: what writes all five makes them dead, what reads one of them alive") {
  CHECK(fate({0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10}) == FlagsFate::kWritten);  // push; mov; sub
  CHECK(fate({0x48, 0x85, 0xff}) == FlagsFate::kWritten);                                 // test
  CHECK(fate({0x31, 0xc0}) == FlagsFate::kWritten);                                       // xor
  CHECK(fate({0x74, 0x00, 0x31, 0xc0}) == FlagsFate::kRead);                              // je
  CHECK(fate({0x0f, 0x94, 0xc0, 0x31, 0xc0}) == FlagsFate::kRead);                        // sete
  CHECK(fate({0x0f, 0x45, 0xc1, 0x31, 0xc0}) == FlagsFate::kRead);                        // cmovne
  CHECK(fate({0x9c, 0x31, 0xc0}) == FlagsFate::kRead);                                    // pushfq
  CHECK(fate({0x9f, 0x31, 0xc0}) == FlagsFate::kRead);                                    // lahf
  CHECK(fate({0x0f, 0x05, 0x31, 0xc0}) == FlagsFate::kRead);                              // syscall: r11 holds them
  CHECK(fate({0x66, 0x0f, 0x38, 0xf6, 0xc1, 0x31, 0xc0}) == FlagsFate::kWritten);         // adcx reads and writes the carry alone
  CHECK(fate({0xf3, 0x0f, 0x38, 0xf6, 0xc1, 0x31, 0xc0}) == FlagsFate::kRead);            // adox reads the overflow
}

TEST_CASE("flags: the carry is not among them, and inc leaves it") {
  CHECK(fate({0x48, 0x11, 0xc8}) == FlagsFate::kWritten);                                 // adc reads it alone
  CHECK(fate({0x0f, 0x92, 0xc0, 0x31, 0xc0}) == FlagsFate::kWritten);                     // setb
  CHECK(fate({0xf9, 0xf5, 0xf8, 0x31, 0xc0}) == FlagsFate::kWritten);                     // stc; cmc; clc
  CHECK(fate({0x0f, 0xa3, 0xc8, 0x74, 0x00}) == FlagsFate::kRead);                        // bt leaves the zero flag; je
}

TEST_CASE("flags: instructions that may leave them alone do not make them dead") {
  CHECK(fate({0xd3, 0xe0, 0x74, 0x00}) == FlagsFate::kRead);              // shl %cl; je
  CHECK(fate({0xc1, 0xe0, 0x00, 0x74, 0x00}) == FlagsFate::kRead);        // shl $0; je
  CHECK(fate({0x0f, 0xa5, 0xc8, 0x74, 0x00}) == FlagsFate::kRead);        // shld %cl; je
  CHECK(fate({0xf3, 0xa6, 0x74, 0x00}) == FlagsFate::kRead);              // repe cmpsb, perhaps of nothing; je
  CHECK(fate({0xf2, 0xae, 0x74, 0x00}) == FlagsFate::kRead);              // repne scasb; je
}

TEST_CASE("flags: along jumps, up to calls and returns, and no further than is known") {
  CHECK(fate({0xeb, 0x02, 0x74, 0x00, 0x31, 0xc0}) == FlagsFate::kWritten);   // jmp over a je
  CHECK(fate({0xeb, 0x02, 0x31, 0xc0, 0x74, 0x00}) == FlagsFate::kRead);      // jmp over what would write them
  CHECK(fate({0x31, 0xc0, 0x90, 0xeb, 0xfb}, 2) == FlagsFate::kWritten);      // back
  CHECK(fate({0xeb, 0xfe}) == FlagsFate::kRead);                              // for ever
  CHECK(fate({0xeb, 0x70}) == FlagsFate::kLeft);                              // out
  CHECK(fate({0xff, 0xe0}) == FlagsFate::kLeft);                              // jmp *%rax
  CHECK(fate({0x72, 0x02, 0x31, 0xc0}) == FlagsFate::kLeft);                  // jb: two ways
  CHECK(fate({0xe3, 0x02, 0x31, 0xc0}) == FlagsFate::kLeft);                  // jrcxz
  CHECK(fate({0x90, 0xc3}) == FlagsFate::kCall);
  CHECK(fate({0xe8, 0, 0, 0, 0, 0x74, 0x00}) == FlagsFate::kCall);
  CHECK(fate({0xff, 0xd0}) == FlagsFate::kCall);
  CHECK(fate({0x90, 0x90}) == FlagsFate::kLeft);                              // runs off the end
  CHECK(fate({0x06}) == FlagsFate::kRead);                                    // no instruction
  CHECK(fate(Code(100, 0x90)) == FlagsFate::kRead);                           // too far
}
