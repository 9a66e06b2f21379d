// Reading symbol tables where they are mapped. See mapped_file.h.
//
// Source: gABI, "Sections" and "Program Header"; GDB manual, "Separate Debug Files".
#include "runtime/symbols/mapped_file.h"

#include <link.h>
#include <unistd.h>

#include <algorithm>

namespace ubp::symbols {
namespace {

// Where a section is mapped; std::nullopt: not the whole of it is, or it is empty.
std::optional<SectionBytes> mapped(const Module& module, const Elf64_Shdr& section) {
  const Segment* const segment = module.segment_at(section.sh_addr);
  const std::uint8_t* const bytes = module.bytes_at(section.sh_addr, section.sh_size);
  if ((section.sh_flags & SHF_ALLOC) == 0 || section.sh_size == 0 || bytes == nullptr || segment->writable)
    return std::nullopt;
  const std::uint64_t before = section.sh_addr - segment->address;
  if (before > segment->file_size || section.sh_size > segment->file_size - before) return std::nullopt;
  return SectionBytes{bytes, section.sh_size, section.sh_addr};
}

}  // namespace

bool is_loaded(const Module& module) {
  struct Search {
    const Module& module;
    bool is_first = true;
  } search{module};
  const auto is_it = [](dl_phdr_info* info, std::size_t, void* data) {
    auto& [wanted, is_first] = *static_cast<Search*>(data);
    const bool has_name = wanted.is_executable ? is_first : info->dlpi_name == wanted.path;
    is_first = false;
    return static_cast<int>(has_name && info->dlpi_addr == wanted.bias);
  };
  return dl_iterate_phdr(is_it, &search) != 0;
}

std::optional<MappedTables> mapped_tables(const Module& module, const ElfFile& file) {
  if (module.is_vdso || file.build_id() != module.build_id || !is_loaded(module)) return std::nullopt;
  MappedTables tables;
  for (const Elf64_Shdr& section : file.sections()) {
    if (section.sh_type == SHT_SYMTAB) return std::nullopt;
    if (section.sh_type == SHT_DYNSYM && tables.dynsym.bytes == nullptr) {
      if (section.sh_link >= file.sections().size()) return std::nullopt;
      const auto table = mapped(module, section), names = mapped(module, file.sections()[section.sh_link]);
      if (!table || !names) return std::nullopt;
      tables.dynsym = *table;
      tables.dynsym_names = *names;
    } else if (file.is_called(section, ".eh_frame") && section.sh_size != 0) {
      const auto eh_frame = mapped(module, section);
      if (!eh_frame) return std::nullopt;
      tables.eh_frame = *eh_frame;
    } else if (section.sh_type == SHT_GNU_versym || section.sh_type == SHT_GNU_verdef) {
      const auto versions = mapped(module, section);
      if (!versions) return std::nullopt;
      (section.sh_type == SHT_GNU_versym ? tables.versions : tables.definitions) = *versions;
    }
  }
  const auto is_there = [](const std::string& path) { return access(path.c_str(), R_OK) == 0; };
  const DebugLink link = file.debug_link().value_or(DebugLink{});
  const std::vector<std::string> candidates = debug_file_candidates(real_path(module.path), module.build_id, link.name);
  if (std::any_of(candidates.begin(), candidates.end(), is_there)) return std::nullopt;
  return tables;
}

}  // namespace ubp::symbols
