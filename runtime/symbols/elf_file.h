// One ELF file, or an ELF image in memory, read through libelf.
//
// elf_file.cpp wraps what libelf gives; debug_file.cpp finds the separate file with a stripped one's symbols.
//
// Context: load time. Everything read from a file is untrusted: offsets and sizes are checked before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/elf_library.h"
#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

struct Symbol {
  Elf64_Sym entry{};
  std::string_view name;  // with its @VERSION; valid as long as the ElfFile
};

// A section's content, valid as long as the ElfFile.
struct SectionBytes {
  const std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  std::uint64_t address = 0;  // ELF virtual address
};

// Calls visit(entry, name) for every symbol of a table but the first, which is reserved. Returns false when there is none.
template <typename Visit>
bool visit_symbols(const SectionBytes& table, const SectionBytes& names, const Visit& visit) {
  const std::size_t count = table.bytes == nullptr ? 0 : table.size / sizeof(Elf64_Sym);
  const char* const text = reinterpret_cast<const char*>(names.bytes);
  for (std::size_t i = 1; i < count; ++i) {
    Elf64_Sym entry;
    std::memcpy(&entry, table.bytes + i * sizeof entry, sizeof entry);
    const bool has_name = text != nullptr && entry.st_name < names.size;
    visit(entry, has_name ? std::string_view(text + entry.st_name, strnlen(text + entry.st_name, names.size - entry.st_name))
                          : std::string_view());
  }
  return count > 1;
}

// The content of .gnu_debuglink: the debug file's name and the checksum of its content.
struct DebugLink {
  std::string name;
  std::uint32_t crc = 0;
};

class ElfFile {
 public:
  // Each throws std::runtime_error with the reason, without the path. `libelf` must outlive the object.
  static ElfFile open(const Libelf& libelf, const std::string& path);
  static ElfFile image(const Libelf& libelf, std::vector<char> bytes);

  ElfFile(ElfFile&& other) noexcept;
  ElfFile& operator=(ElfFile&&) = delete;
  ~ElfFile();

  // section_type: SHT_SYMTAB or SHT_DYNSYM. std::nullopt when the file has no such section with content.
  std::optional<std::vector<Symbol>> symbols(std::uint32_t section_type) const;
  std::vector<Segment> segments() const;  // PT_LOAD, in order
  std::string build_id() const;           // hexadecimal; empty when there is none
  std::optional<DebugLink> debug_link() const;
  // std::nullopt when there is no such section, it is empty, or cannot be read.
  std::optional<SectionBytes> section(std::string_view name) const;

 private:
  ElfFile(const Libelf& libelf, int fd, std::vector<char> bytes);
  void close();
  Elf_Data* section_data(Elf_Scn* section) const;
  std::string segment_build_id() const;

  const Libelf* libelf_;
  int fd_;                   // -1 for an image
  std::vector<char> bytes_;  // the image; libelf reads from it
  Elf* elf_ = nullptr;
};

// Where the debug file of the module at `path` may be, best first. Pure.
// build_id: hexadecimal, may be empty; link_name: from .gnu_debuglink, may be empty.
std::vector<std::string> debug_file_candidates(const std::string& path, std::string_view build_id,
                                               std::string_view link_name);

// The separate debug file of `file`: the first candidate that has a .symtab and the same build-id, or, for a
// file without build-id, the checksum that .gnu_debuglink names.
std::optional<ElfFile> find_debug_file(const Libelf& libelf, const std::string& path, const ElfFile& file);

}  // namespace ubp::symbols
