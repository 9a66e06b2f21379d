// Arguments of static marks and functions, for generated code: as helpers.h.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

// An argument of the static mark that was hit, or of the function, extended to 64 bits; 0 where its memory cannot be
// read, or where it was to be kept from the function's entry and is not, or the thread's storage is not libc's,
// which is counted at the site. At a function's
// entry, which a block may have beside marks: that of the call; 0 beyond those that are in registers.
std::uint64_t mark_argument(Run* run, std::uint64_t number, std::uint64_t site);
// The bytes of an argument of any size, likewise, with zeros up to whole words.
void argument_bytes(Run* run, std::uint64_t number, char* to, std::uint64_t bytes, std::uint64_t site);
// Where it is in memory; 0: it is not in one place there.
std::uint64_t argument_address(Run* run, std::uint64_t number, std::uint64_t site);
// From the probed module's own addresses to those in the process.
std::uint64_t module_bias(Run* run);
void copy_bytes(char* to, const char* from, std::uint64_t bytes);

}  // namespace ubp::program
