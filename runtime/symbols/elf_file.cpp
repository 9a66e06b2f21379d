// ELF files through libelf: sections, symbols, notes. The contract is in elf_file.h.
#include "runtime/symbols/elf_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "runtime/symbols/notes.h"

namespace ubp::symbols {
namespace {

int open_regular_file(const std::string& path) {
  const int fd =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: do not wait on a FIFO
  if (fd < 0) throw std::runtime_error(std::strerror(errno));
  struct stat status {};
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) return fd;
  ::close(fd);
  throw std::runtime_error("not a regular file");
}

std::string build_id_of(const Elf_Data* data, std::size_t alignment) {
  if (data == nullptr || data->d_buf == nullptr) return {};
  return build_id_in_notes(static_cast<const std::uint8_t*>(data->d_buf), data->d_size, alignment);
}

SectionBytes bytes_of(const Elf_Data* data) {
  return data == nullptr ? SectionBytes{} : SectionBytes{static_cast<const std::uint8_t*>(data->d_buf), data->d_size};
}

}  // namespace

ElfFile ElfFile::open(const Libelf& libelf, const std::string& path) {
  return ElfFile(libelf, open_regular_file(path), {});
}

ElfFile ElfFile::image(const Libelf& libelf, std::vector<char> bytes) {
  return ElfFile(libelf, -1, std::move(bytes));
}

ElfFile::ElfFile(const Libelf& libelf, int fd, std::vector<char> bytes)
    : libelf_(&libelf), fd_(fd), bytes_(std::move(bytes)) {
  try {
    refuse_in_handler();
  } catch (const InHandler&) {
    close();
    throw;
  }
  elf_ =
      fd_ >= 0 ? libelf.elf_begin(fd_, ELF_C_READ, nullptr) : libelf.elf_memory(bytes_.data(), bytes_.size());
  std::string reason;
  GElf_Ehdr header;
  if (elf_ == nullptr) {
    reason = libelf.last_error();
  } else if (libelf.elf_kind(elf_) != ELF_K_ELF || libelf.gelf_getehdr(elf_, &header) == nullptr) {
    reason = "not an ELF file";
  } else if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
    reason = "not an x86-64 ELF file";
  }
  if (reason.empty()) return;
  close();
  throw std::runtime_error(reason);
}

ElfFile::ElfFile(ElfFile&& other) noexcept
    : libelf_(other.libelf_),
      fd_(std::exchange(other.fd_, -1)),
      bytes_(std::move(other.bytes_)),
      elf_(std::exchange(other.elf_, nullptr)) {}

ElfFile::~ElfFile() { close(); }

void ElfFile::close() {
  if (elf_ != nullptr) libelf_->elf_end(elf_);
  if (fd_ >= 0) ::close(fd_);
}

Elf_Data* ElfFile::section_data(Elf_Scn* section) const {
  Elf_Data* data = libelf_->elf_getdata(section, nullptr);
  if (data == nullptr) throw std::runtime_error("damaged: " + libelf_->last_error());
  return data;
}

std::optional<std::vector<Symbol>> ElfFile::symbols(std::uint32_t section_type) const {
  for (Elf_Scn* section = nullptr; (section = libelf_->elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr header;
    if (libelf_->gelf_getshdr(section, &header) == nullptr || header.sh_type != section_type) continue;
    const SectionBytes table = bytes_of(section_data(section));
    Elf_Scn* strings_section = libelf_->elf_getscn(elf_, header.sh_link);
    const SectionBytes names = bytes_of(strings_section == nullptr ? nullptr : section_data(strings_section));
    std::vector<Symbol> symbols;
    symbols.reserve(table.size / sizeof(Elf64_Sym));
    const auto add = [&](const Elf64_Sym& entry, std::string_view name) { symbols.push_back({entry, name}); };
    if (!visit_symbols(table, names, add)) return std::nullopt;
    return symbols;
  }
  return std::nullopt;
}

std::vector<Segment> ElfFile::segments() const {
  std::vector<Segment> segments;
  std::size_t count = 0;
  if (libelf_->elf_getphdrnum(elf_, &count) != 0) return segments;
  for (std::size_t i = 0; i < count; ++i) {
    GElf_Phdr header;
    if (libelf_->gelf_getphdr(elf_, static_cast<int>(i), &header) == nullptr || header.p_type != PT_LOAD)
      continue;
    segments.push_back({.address = header.p_vaddr,
                        .size = header.p_memsz,
                        .file_size = header.p_filesz,
                        .executable = (header.p_flags & PF_X) != 0,
                        .writable = (header.p_flags & PF_W) != 0,
                        .readable = (header.p_flags & PF_R) != 0});
  }
  return segments;
}

// Sections first: in a separate debug file the segments' offsets lead nowhere.
std::string ElfFile::build_id() const {
  for (Elf_Scn* section = nullptr; (section = libelf_->elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr header;
    if (libelf_->gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_NOTE) continue;
    std::string build_id = build_id_of(libelf_->elf_getdata(section, nullptr), header.sh_addralign);
    if (!build_id.empty()) return build_id;
  }
  return segment_build_id();
}

std::string ElfFile::segment_build_id() const {
  std::size_t count = 0;
  if (libelf_->elf_getphdrnum(elf_, &count) != 0) return {};
  for (std::size_t i = 0; i < count; ++i) {
    GElf_Phdr header;
    if (libelf_->gelf_getphdr(elf_, static_cast<int>(i), &header) == nullptr || header.p_type != PT_NOTE)
      continue;
    const Elf_Data* notes = libelf_->elf_getdata_rawchunk(elf_, static_cast<std::int64_t>(header.p_offset),
                                                          header.p_filesz, ELF_T_BYTE);
    std::string build_id = build_id_of(notes, header.p_align);
    if (!build_id.empty()) return build_id;
  }
  return {};
}

std::optional<DebugLink> ElfFile::debug_link() const {
  // The name, its NUL, padding to four bytes, the checksum.
  const std::optional<SectionBytes> content = section(".gnu_debuglink");
  if (!content) return std::nullopt;
  const char* text = reinterpret_cast<const char*>(content->bytes);
  DebugLink link;
  link.name = std::string(text, strnlen(text, content->size));
  const std::size_t crc_at = (link.name.size() + 4) & ~std::size_t{3};
  if (link.name.empty() || content->size < crc_at + sizeof link.crc) return std::nullopt;
  std::memcpy(&link.crc, text + crc_at, sizeof link.crc);
  return link;
}

std::optional<SectionBytes> ElfFile::section(std::string_view name) const {
  std::size_t names = 0;
  if (libelf_->elf_getshdrstrndx(elf_, &names) != 0) return std::nullopt;
  for (Elf_Scn* section = nullptr; (section = libelf_->elf_nextscn(elf_, section)) != nullptr;) {
    GElf_Shdr header;
    if (libelf_->gelf_getshdr(section, &header) == nullptr) continue;
    const char* section_name = libelf_->elf_strptr(elf_, names, header.sh_name);
    if (section_name == nullptr || section_name != name) continue;
    const Elf_Data* data = libelf_->elf_getdata(section, nullptr);
    if (data == nullptr || data->d_buf == nullptr || data->d_size == 0) return std::nullopt;
    return SectionBytes{static_cast<const std::uint8_t*>(data->d_buf), data->d_size, header.sh_addr};
  }
  return std::nullopt;
}

}  // namespace ubp::symbols
