// The instructions that blocks may have, the functions that they may call, and what each of these writes for its
// caller.
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <vector>

namespace ubp::program {

bool is_allowed(ZydisMnemonic mnemonic);  // jumps apart

// (size + count) * unit bytes from the pointer on, where size is a register's constant; without one, count bytes.
struct Output {
  ZydisRegister pointer;
  ZydisRegister size = ZYDIS_REGISTER_NONE;
  std::uint64_t count = 0, unit = 1;
  std::uint64_t (*size_of)(std::uint64_t constant) = nullptr;  // instead: from the register's constant
};
struct Helper {
  std::uint64_t address;
  std::vector<Output> outputs;
};

// Null: it is none.
const Helper* find_helper(std::uint64_t address);
extern const std::uint64_t kBeginEvent, kCopyWords;

}  // namespace ubp::program
