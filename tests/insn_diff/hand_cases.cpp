// Hand cases: at least one for every line of hazards.md section 14, in bytes, since assemblers choose their
// own.
#include <cstdlib>
#include <cstring>

#include "tests/insn_diff/encoding.h"

namespace ubp::insn_diff {
namespace {

// Instructions are separated by semicolons.
const char* const kCases[] = {
    // RIP-relative: plain, an immediate of 1, 2 and 4 bytes behind it, VEX, VEX with immediate, EVEX,
    // segment, lea.
    "48 8b 05 00 00 00 00; 89 0d 00 00 00 00; c7 05 00 00 00 00 01 02 03 04; 66 c7 05 00 00 00 00 01 02",
    "80 3d 00 00 00 00 05; 48 81 05 00 00 00 00 01 02 03 04; 6b 0d 00 00 00 00 05",
    "0f ba 25 00 00 00 00 07; 48 c1 25 00 00 00 00 03; f7 05 00 00 00 00 01 00 00 00",
    "c5 fc 28 0d 00 00 00 00; c4 e3 71 0f 15 00 00 00 00 03; 62 f1 7c 48 10 0d 00 00 00 00",
    "62 f3 75 48 25 15 00 00 00 00 55; 62 f1 7c 58 58 0d 00 00 00 00; 64 48 8b 05 00 00 00 00",
    "48 8d 3d 00 00 00 00; f0 48 0f c1 05 00 00 00 00; 48 0f c7 0d 00 00 00 00; ff 35 00 00 00 00",
    "8f 05 00 00 00 00; f3 0f 10 05 00 00 00 00; dd 05 00 00 00 00; d9 35 00 00 00 00",
    "0f ae 05 00 00 00 00; 48 0f c3 0d 00 00 00 00",
    // call and jmp: direct, long and short, REX.W over 0x66, through registers and every memory form.
    "e8 00 00 00 00; 48 e8 00 00 00 00; 66 48 e8 00 00 00 00; 66 66 48 e8 00 00 00 00; e9 00 00 00 00",
    "eb 00; f2 e8 00 00 00 00; f2 e9 00 00 00 00; 3e ff d0; ff d0; ff d4; 41 ff d4; ff 10; ff 14 24",
    "ff 54 24 08; ff 94 24 00 01 00 00; ff 15 00 00 00 00; 64 ff 14 25 28 00 00 00; 65 ff 10",
    "64 ff 50 10; 64 ff 15 00 00 00 00; 67 ff 10; 67 ff 14 24; 67 64 ff 10; 41 ff 94 c4 00 01 00 00",
    "ff 14 25 00 00 00 10; ff 14 c5 00 00 00 10; 42 ff 14 a5 00 00 00 00; 41 ff 55 00; 43 ff 54 6d 00",
    "48 ff 10; 66 48 ff d0; ff e0; ff e4; ff 20; ff 24 24; ff 25 00 00 00 00; ff 24 c5 00 00 00 10",
    "3e ff e0; 67 ff 20",
    // jcc short and long, loop family and jrcxz, with 0x67 and REX.
    "70 00; 71 00; 72 00; 73 00; 74 00; 75 00; 76 00; 77 00; 78 00; 79 00; 7a 00; 7b 00; 7c 00; 7d 00",
    "7e 00; 7f 00; 0f 80 00 00 00 00; 0f 81 00 00 00 00; 0f 82 00 00 00 00; 0f 83 00 00 00 00",
    "0f 84 00 00 00 00; 0f 85 00 00 00 00; 0f 86 00 00 00 00; 0f 87 00 00 00 00; 0f 88 00 00 00 00",
    "0f 89 00 00 00 00; 0f 8a 00 00 00 00; 0f 8b 00 00 00 00; 0f 8c 00 00 00 00; 0f 8d 00 00 00 00",
    "0f 8e 00 00 00 00; 0f 8f 00 00 00 00; 2e 74 00; 3e 0f 84 00 00 00 00; e0 00; e1 00; e2 00; e3 00",
    "67 e0 00; 67 e1 00; 67 e2 00; 67 e3 00; 48 e3 00; 48 e2 00; 67 48 e3 00",
    // xbegin and its family.
    "c7 f8 00 00 00 00; c6 f8 01; 0f 01 d5; 0f 01 d6",
    // System calls.
    "0f 05; cd 80; 48 0f 05",
    // The stack: push and pop of everything, leave, enter, ret imm, flags.
    "50; 54; 41 54; 5c; 58; 41 5c; 66 50; 66 54; 66 58; 66 5c; 6a 7f; 68 01 02 03 04; 66 68 01 02",
    "66 6a 01; ff 34 24; ff 74 24 08; 8f 04 24; 8f 44 24 08; 66 8f 04 24; 66 ff 34 24; ff f4; 8f c4",
    "41 ff f4; c9; 66 c9; c8 20 00 00; c8 10 00 05; 66 c8 10 00 03; c3; f3 c3; f2 c3; c2 08 00; 48 c3",
    "9c; 9d; 66 9c; 66 9d; 0f a0; 0f a1; 0f a8; 0f a9; 66 0f a0; 66 0f a1; 48 89 e4; 48 83 ec 08",
    "48 8d 64 24 80; 48 94; 48 0f b1 24 24; 48 8b 24 24; 48 89 24 24; 48 31 e4",
    // String instructions: every repetition and width, 0x67, segment.
    "a4; a5; 48 a5; 66 a5; f3 a4; f3 a5; f3 48 a5; f3 66 a5; f2 a4; 67 f3 a4; 67 f3 48 a5; 64 f3 a4; a6",
    "a7; 48 a7; f3 a6; f3 a7; f3 48 a7; f2 a6; f2 48 a7; 67 f3 a6; aa; ab; 48 ab; f3 aa; f3 ab",
    "f3 48 ab; 67 f3 aa; ac; ad; 48 ad; f3 ac; 65 ac; ae; af; 48 af; f3 ae; f2 ae; f2 af; f2 48 af",
    "67 f2 ae; d7; 64 d7; 67 d7",
    // FS and GS base, selectors.
    "f3 0f ae c0; f3 48 0f ae c0; f3 0f ae c8; f3 48 0f ae c8; f3 0f ae d0; f3 48 0f ae d0; f3 0f ae d8",
    "f3 48 0f ae d8; 8e d8; 8e c0; 8e e0; 8e e8; 8c d8; 48 8c e0; 8c 00; 8e 00; 8e 20; 0f b4 00",
    "48 0f b5 00; 0f 02 c0; 0f 03 c0; 0f 00 e0; 0f 00 e8; 64 48 8b 04 25 28 00 00 00; 65 8b 00",
    "0f 01 00; 0f 01 08; 0f 01 e0; 0f 00 c8; 0f 00 c0",
    // Protection keys, CET, time, identity, randomness.
    "0f 01 ee; 0f 01 ef; f3 0f 1e fa; f3 0f 1e fb; 90; 66 90; f3 90; 49 90; f3 41 90; 0f 1f 00",
    "66 0f 1f 84 00 00 00 00 00; 66 2e 0f 1f 84 00 00 00 00 00; 0f 1e c8; f3 48 0f 1e c8; 0f 31",
    "0f 01 f9; 0f a2; 0f c7 f0; 48 0f c7 f8; f3 0f c7 f8; 0f 01 d0; 0f 01 d1; 0f 33; 0f 01 fd; 0f 01 fc",
    // Whole states: x87, MMX, FXSAVE, XSAVE, MXCSR; exceptions.
    "dd 30; dd 20; 9b dd 30; d9 30; d9 20; d9 28; 9b d9 38; d9 38; db e2; db e3; 9b; df e0; d8 00",
    "dc c1; d9 c0; d9 f0; d9 fe; db 28; db 38; df 20; df 30; d9 f4; d9 f8; 0f 77; 0f 7f 00; 0f ae 00",
    "48 0f ae 00; 0f ae 08; 48 0f ae 08; 0f ae 20; 48 0f ae 20; 0f ae 28; 48 0f ae 28; 0f ae 30",
    "0f c7 20; 48 0f c7 20; 0f ae 10; 0f ae 18; c5 f8 ae 10; c5 f8 ae 18; c5 fc 77; c5 f8 77; 0f f7 c1",
    "66 0f f7 c1; c5 f9 f7 c1; f0 48 0f c7 08; f0 0f c7 08; f7 f0; 48 f7 f8; f6 f0; 0f ae f0; 0f ae f8",
    "0f ae 38; 66 0f ae 38; 66 0f ae 30; 0f 18 08; 0f 0d 08; 0f 01 e8",
    // Gather, scatter, masked moves, absolute addresses, bit strings, high bytes.
    "c4 e2 69 90 04 08; c4 e2 ed 90 04 08; c4 e2 69 91 04 08; c4 e2 ed 93 04 88; 62 f2 7d 49 90 04 08",
    "62 f2 fd 49 90 04 08; 62 f2 7d 49 a0 04 08; 62 f2 fd 49 a1 44 08 01; 62 f2 7d 29 92 04 08",
    "c4 e2 69 2e 00; c4 e2 69 8e 00; 62 f1 7c c9 10 00; 62 f2 7d c9 8a 00; a0 00 00 00 00 00 00 00 00",
    "48 a1 00 00 00 00 00 00 00 00; a2 00 00 00 00 00 00 00 00; 48 a3 00 00 00 00 00 00 00 00",
    "67 a1 00 00 00 00; 64 48 a1 00 00 00 00 00 00 00 00; 48 0f a3 08; 48 0f ab 08; f0 48 0f b3 08",
    "66 0f bb 08; 88 e0; 40 88 e0; 86 20; 48 8b 04 25 00 00 00 10; 67 8b 04 08; 67 48 8d 04 08",
    "66 67 8b 40 10; 0f c8",
    // Refused, each with its code.
    "f4; fa; fb; ec; e4 10; 6c; 6e; 0f 20 c0; 0f 22 c0; 0f 21 c0; 0f 30; 0f 32; 0f 01 d9; cf; 48 cf; cb",
    "ca 08 00; ff 18; ff 28; 8e d0; 0f b2 00; 66 e8 00 00; 66 74 00; 66 c3; 66 ff d0; 0f 34; 0f 35",
    "cd 10; cd 03; cc; f1; 0f 0b; 0f b9 c0; 0f ff c0; 67 8b 05 00 00 00 00; 67 ff 15 00 00 00 00",
    "0f 01 ca; 0f 01 cb; 0f 01 d7; 0f c7 f8; 0f 07",
};

}  // namespace

void Catalogue::add_hand_cases() {
  for (const char* at : kCases) {
    while (*at != 0) {
      Code code{};
      std::size_t length = 0;
      while (*at != 0 && *at != ';' && length < code.size()) {
        char* end;
        code[length++] = static_cast<std::uint8_t>(std::strtoul(at, &end, 16));
        at = end;
      }
      at += std::strspn(at, "; ");
      add({code.data(), length}, Origin::kHand);
    }
  }
}

}  // namespace ubp::insn_diff
