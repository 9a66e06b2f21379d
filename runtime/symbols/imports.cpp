// See imports.h.
#include "runtime/symbols/imports.h"

#include <elf.h>
#include <link.h>

#include <cstring>

#include "runtime/symbols/readable.h"

namespace ubp::symbols {
namespace {

// What the dynamic section says, as ELF addresses and bytes.
struct Dynamic {
  std::uint64_t symbols = 0, names = 0, name_bytes = 0;
  std::uint64_t tables[2] = {}, bytes[2] = {};  // of relocations: those of the linkage table, and the others
};

Dynamic read_dynamic(const Module& module) {
  Dynamic dynamic;
  const std::uint8_t* const begin =
      module.dynamic_bytes == 0 ? nullptr : module.bytes_at(module.dynamic, module.dynamic_bytes);
  if (begin == nullptr) return dynamic;
  const auto* const entries = reinterpret_cast<const ElfW(Dyn)*>(begin);
  for (std::uint64_t i = 0; i < module.dynamic_bytes / sizeof *entries && entries[i].d_tag != DT_NULL; ++i) {
    const std::uint64_t value = entries[i].d_un.d_val;
    // The dynamic linker has made addresses of most of them.
    const std::uint64_t place = module.bias != 0 && value >= module.bias ? value - module.bias : value;
    switch (entries[i].d_tag) {
      case DT_SYMTAB: dynamic.symbols = place; break;
      case DT_STRTAB: dynamic.names = place; break;
      case DT_STRSZ: dynamic.name_bytes = value; break;
      case DT_JMPREL: dynamic.tables[0] = place; break;
      case DT_PLTRELSZ: dynamic.bytes[0] = value; break;
      case DT_RELA: dynamic.tables[1] = place; break;
      case DT_RELASZ: dynamic.bytes[1] = value; break;
      default: break;
    }
  }
  return dynamic;
}

}  // namespace

std::map<std::uint64_t, std::string> imports_of(const Module& module) {
  std::map<std::uint64_t, std::string> imports;
  const Dynamic dynamic = read_dynamic(module);
  const std::uint8_t* const names = module.bytes_at(dynamic.names, dynamic.name_bytes);
  if (dynamic.names == 0 || names == nullptr) return imports;
  Readable readable;
  for (int table = 0; table < 2; ++table) {
    const std::uint64_t bytes = dynamic.bytes[table];
    const std::uint8_t* const relocations = bytes == 0 ? nullptr : module.bytes_at(dynamic.tables[table], bytes);
    if (relocations == nullptr) continue;
    for (std::uint64_t at = 0; at + sizeof(ElfW(Rela)) <= bytes; at += sizeof(ElfW(Rela))) {
      ElfW(Rela) relocation;
      std::memcpy(&relocation, relocations + at, sizeof relocation);
      const std::uint64_t type = ELF64_R_TYPE(relocation.r_info), number = ELF64_R_SYM(relocation.r_info);
      if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT) || number == 0) continue;
      ElfW(Sym) symbol;
      const std::uint8_t* const its =
          module.bytes_at(dynamic.symbols + number * sizeof symbol, sizeof symbol, readable);
      if (its == nullptr) continue;
      std::memcpy(&symbol, its, sizeof symbol);
      if (symbol.st_name >= dynamic.name_bytes) continue;
      const char* const name = reinterpret_cast<const char*>(names) + symbol.st_name;
      const std::size_t length = strnlen(name, dynamic.name_bytes - symbol.st_name);
      imports.emplace(relocation.r_offset, std::string(name, length));
    }
  }
  return imports;
}

}  // namespace ubp::symbols
