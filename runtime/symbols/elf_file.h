// One ELF file, or an ELF image in memory: its sections, symbols and notes.
//
// elf_file.cpp reads them; debug_file.cpp finds the separate file with a stripped one's symbols. No library does this:
// one would be opened in the application, take its memory from the application's malloc, and stand in its list of
// modules.
//
// Context: load time. Everything read from a file is untrusted: offsets and sizes are checked before use, and what is
// read is a copy, so that a file that is cut short meanwhile is no fault.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/symbols.h"

namespace ubp::symbols {

struct Symbol {
  Elf64_Sym entry{};
  std::string_view name;    // with its @VERSION where the table has it so; valid as long as the ElfFile
  std::uint32_t index = 0;  // in the table
};

// A section's content, valid as long as the ElfFile.
struct SectionBytes {
  const std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  std::uint64_t address = 0;  // ELF virtual address
};

// The text at an offset of a string table; empty when it is outside.
inline std::string_view text_at(const SectionBytes& strings, std::size_t offset) {
  if (offset >= strings.size) return {};
  const char* const text = reinterpret_cast<const char*>(strings.bytes) + offset;
  return {text, strnlen(text, strings.size - offset)};
}

// Calls visit(entry, name, index) for every symbol of a table but the first, which is reserved. Returns false when
// there is none.
template <typename Visit>
bool visit_symbols(const SectionBytes& table, const SectionBytes& names, const Visit& visit) {
  const std::size_t count = table.size / sizeof(Elf64_Sym);
  for (std::size_t i = 1; i < count; ++i) {
    Elf64_Sym entry;
    std::memcpy(&entry, table.bytes + i * sizeof entry, sizeof entry);
    visit(entry, text_at(names, entry.st_name), static_cast<std::uint32_t>(i));
  }
  return count > 1;
}

inline Segment segment_of(const Elf64_Phdr& header) {  // a PT_LOAD
  return {.address = header.p_vaddr,
          .size = header.p_memsz,
          .file_size = header.p_filesz,
          .executable = (header.p_flags & PF_X) != 0,
          .writable = (header.p_flags & PF_W) != 0,
          .readable = (header.p_flags & PF_R) != 0};
}

// The content of .gnu_debuglink: the debug file's name and the checksum of its content.
struct DebugLink {
  std::string name;
  std::uint32_t crc = 0;
};

class ElfFile {
 public:
  // Each throws std::runtime_error with the reason, without the path.
  static ElfFile open(const std::string& path);
  static ElfFile image(std::vector<char> bytes);

  ElfFile(ElfFile&& other) noexcept;
  ElfFile& operator=(ElfFile&&) = delete;
  ~ElfFile();

  // section_type: SHT_SYMTAB or SHT_DYNSYM. std::nullopt when the file has no such section with content; throws as
  // open() when its content lies outside the file.
  std::optional<std::vector<Symbol>> symbols(std::uint32_t section_type) const;
  std::vector<Segment> segments() const;  // PT_LOAD, in order
  // Where in the file an ELF virtual address is; std::nullopt: nowhere.
  std::optional<std::uint64_t> file_offset(std::uint64_t address) const;
  std::string build_id() const;  // hexadecimal; empty when there is none
  std::optional<DebugLink> debug_link() const;
  // std::nullopt when there is no such section, it is empty, or cannot be read.
  std::optional<SectionBytes> section(std::string_view name) const;
  SectionBytes section(std::uint32_t type) const;  // the first; no bytes when there is no such section

  // The headers as they are; none when they lie outside the file.
  const std::vector<Elf64_Shdr>& sections() const { return sections_; }
  bool is_called(const Elf64_Shdr& section, std::string_view name) const;

 private:
  // What was read of the file, which stays where it is.
  struct Block {
    std::uint64_t offset;
    std::size_t size;
    std::unique_ptr<std::uint8_t[]> bytes;
  };

  ElfFile(int file, std::vector<char> bytes);
  void read_headers();
  template <typename T>
  bool read_table(std::uint64_t offset, std::uint64_t count, std::size_t entry_size, std::vector<T>& to) const;
  const std::uint8_t* at(std::uint64_t offset, std::uint64_t size) const;
  SectionBytes content(const Elf64_Shdr& section) const;

  int file_;                 // -1 for an image
  std::vector<char> bytes_;  // the image
  std::uint64_t size_ = 0;   // of either
  mutable std::vector<Block> blocks_;
  std::vector<Elf64_Phdr> programs_;
  std::vector<Elf64_Shdr> sections_;
  SectionBytes names_;  // of the sections
};

// The file of a module of this process; the vDSO's image. Throws as open() does, and where it is not what is mapped.
ElfFile open_module(const Module& module);

// Where folders of debug files have the one with a build-id, in hexadecimal, as gdb looks for it:
// ".build-id/ab/cdef.debug". Empty: it is no build-id.
std::string build_id_file(std::string_view build_id);
// The same in the system's folder of debug files.
std::string system_build_id_file(std::string_view build_id);

// Where the debug file of the module at `path` may be, best first. Pure.
// build_id: hexadecimal, may be empty; link_name: from .gnu_debuglink, may be empty.
std::vector<std::string> debug_file_candidates(const std::string& path, std::string_view build_id,
                                               std::string_view link_name);

// The separate debug file of `file`: the first candidate that has a .symtab and the same build-id, or, for a
// file without build-id, the checksum that .gnu_debuglink names.
std::optional<ElfFile> find_debug_file(const std::string& path, const ElfFile& file);

}  // namespace ubp::symbols
