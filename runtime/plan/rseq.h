// Restartable sequences (rseq(2)): code that the kernel restarts from elsewhere whenever the thread is interrupted in
// it. A trap there would abort it every time: it never reports and never commits. Load time only.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/symbols/symbols.h"

namespace ubp::plan {

struct CodeRange {
  std::uint64_t begin, end;  // ELF virtual addresses
};

// The critical sections of a mapped and relocated module, ascending: its initialised data is searched for descriptors
// (struct rseq_cs), whose abort handlers have the signature before them that the kernel demands. (The data first: it is
// little, and the text need not be touched.)
// Source: linux/rseq.h; x86's signature is glibc's RSEQ_SIG, which every user of a libc with rseq shares.
// A module that is not relocated yet and has the signature: all of it, since its descriptors cannot be read.
std::vector<CodeRange> rseq_sections(const symbols::Module& module);

}  // namespace ubp::plan
