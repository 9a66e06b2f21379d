// See sections.h.
#include "runtime/debuginfo/sections.h"

#include <gelf.h>

namespace ubp::debuginfo {

Bytes section(Dwarf* dwarf, std::string_view wanted) {
  Elf* const elf = dwarf_getelf(dwarf);
  std::size_t names = 0;
  if (elf == nullptr || elf_getshdrstrndx(elf, &names) != 0) return {};
  for (Elf_Scn* one = nullptr; (one = elf_nextscn(elf, one)) != nullptr;) {
    GElf_Shdr header;
    if (gelf_getshdr(one, &header) == nullptr || header.sh_type == SHT_NOBITS) continue;
    const char* const name = elf_strptr(elf, names, header.sh_name);
    if (name == nullptr || name != wanted || (header.sh_flags & SHF_COMPRESSED) != 0) continue;
    const Elf_Data* const data = elf_getdata(one, nullptr);
    return data != nullptr && data->d_buf != nullptr
               ? Bytes(static_cast<const std::uint8_t*>(data->d_buf), data->d_size)
               : Bytes{};
  }
  return {};
}

}  // namespace ubp::debuginfo
