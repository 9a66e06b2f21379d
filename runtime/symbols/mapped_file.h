// The symbol tables of a module whose file has no more than what is mapped of it: most libraries of a distribution.
// They are read where they are mapped, without a copy: every start of a probed program pays for this.
//
// Context: load time. The file is untrusted: offsets and sizes are checked before use.
#pragma once

#include <optional>

#include "runtime/symbols/elf_file.h"

namespace ubp::symbols {

struct MappedTables {  // no bytes: the module has none; valid while it is mapped
  SectionBytes dynsym;
  SectionBytes dynsym_names;
  SectionBytes eh_frame;
  SectionBytes versions;  // of .dynsym's symbols, and their definitions
  SectionBytes definitions;
};

// Whether the module is in this process still: one that was unloaded keeps its number, and is asked for when a name is
// missing.
bool is_loaded(const Module& module);

// file: the module's, with the same segments. std::nullopt when there may be more to read (a .symtab, a separate debug
// file), when the module is not mapped by this process, and when anything else is not as it should be: ElfFile knows
// what to say.
std::optional<MappedTables> mapped_tables(const Module& module, const ElfFile& file);

}  // namespace ubp::symbols
