// Which function of another module a call or a jump through the linkage table means: by the dynamic relocation of its
// word, also before the dynamic linker has resolved it.
//
// Source: the gABI's dynamic section; psABI 4.4 (R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT).
// Context: load time. The bytes are untrusted.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

// Symbols by the ELF address of the word that holds their address. Empty: the module imports nothing by a table.
std::map<std::uint64_t, std::string> imports_of(const Module& module);

}  // namespace ubp::symbols
