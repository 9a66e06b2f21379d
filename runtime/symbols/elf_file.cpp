// ELF files: headers, sections, symbols, notes. The contract is in elf_file.h.
//
// Source: gABI, "ELF Header" (the numbers that do not fit its fields stand in the first section header), "Sections",
// "Program Header".
#include "runtime/symbols/elf_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>

#include "runtime/symbols/notes.h"

namespace ubp::symbols {
namespace {

// The headers and, nearly always, the build-id lie in the first bytes, which are read at once.
constexpr std::size_t kFirst = 1024;

int open_regular_file(const std::string& path, std::uint64_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: do not wait on a FIFO
  if (fd < 0) throw std::runtime_error(std::strerror(errno));
  struct stat status {};
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    size = static_cast<std::uint64_t>(status.st_size);
    return fd;
  }
  ::close(fd);
  throw std::runtime_error("not a regular file");
}

}  // namespace

ElfFile ElfFile::open(const std::string& path) {
  std::uint64_t size = 0;
  const int fd = open_regular_file(path, size);
  ElfFile file(fd, {});
  file.size_ = size;
  file.read_headers();
  return file;
}

ElfFile ElfFile::image(std::vector<char> bytes) {
  ElfFile file(-1, std::move(bytes));
  file.size_ = file.bytes_.size();
  file.read_headers();
  return file;
}

ElfFile::ElfFile(int file, std::vector<char> bytes) : file_(file), bytes_(std::move(bytes)) {}

ElfFile::ElfFile(ElfFile&& other) noexcept
    : file_(std::exchange(other.file_, -1)),
      bytes_(std::move(other.bytes_)),
      size_(other.size_),
      blocks_(std::move(other.blocks_)),
      programs_(std::move(other.programs_)),
      sections_(std::move(other.sections_)),
      names_(other.names_) {}

ElfFile::~ElfFile() {
  if (file_ >= 0) ::close(file_);
}

// The bytes of the file at an offset; null when they are not all there, or there is no memory for them.
const std::uint8_t* ElfFile::at(std::uint64_t offset, std::uint64_t size) const {
  if (offset > size_ || size > size_ - offset) return nullptr;
  if (file_ < 0) return reinterpret_cast<const std::uint8_t*>(bytes_.data()) + offset;
  for (const Block& block : blocks_) {
    if (offset >= block.offset && offset - block.offset <= block.size && size <= block.size - (offset - block.offset)) {
      return block.bytes.get() + (offset - block.offset);
    }
  }
  Block block{offset, size, std::unique_ptr<std::uint8_t[]>(new (std::nothrow) std::uint8_t[size])};
  if (block.bytes == nullptr) return nullptr;
  for (std::size_t have = 0; have < size;) {
    const ssize_t count = pread(file_, block.bytes.get() + have, size - have, static_cast<off_t>(offset + have));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return nullptr;
    have += static_cast<std::size_t>(count);
  }
  return blocks_.emplace_back(std::move(block)).bytes.get();
}

template <typename T>
bool ElfFile::read_table(std::uint64_t offset, std::uint64_t count, std::size_t entry_size, std::vector<T>& to) const {
  if (count == 0 || entry_size != sizeof(T) || count > size_ / sizeof(T)) return false;
  const std::uint8_t* const bytes = at(offset, count * sizeof(T));
  if (bytes == nullptr) return false;
  to.resize(count);
  std::memcpy(to.data(), bytes, count * sizeof(T));
  return true;
}

void ElfFile::read_headers() {
  Elf64_Ehdr header{};
  const std::uint8_t* const first = at(0, std::min<std::uint64_t>(size_, kFirst));
  if (first != nullptr) std::memcpy(&header, first, std::min<std::uint64_t>(size_, sizeof header));
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) throw std::runtime_error("not an ELF file");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64) {
    throw std::runtime_error("not an x86-64 ELF file");
  }
  std::uint64_t sections = header.e_shnum, programs = header.e_phnum, names = header.e_shstrndx;
  std::vector<Elf64_Shdr> zeroth;
  if (header.e_shoff != 0 && read_table(header.e_shoff, 1, header.e_shentsize, zeroth)) {
    if (sections == 0) sections = zeroth.front().sh_size;
    if (names == SHN_XINDEX) names = zeroth.front().sh_link;
    if (programs == PN_XNUM) programs = zeroth.front().sh_info;
    read_table(header.e_shoff, sections, header.e_shentsize, sections_);
  }
  read_table(header.e_phoff, programs, header.e_phentsize, programs_);
  if (names < sections_.size()) names_ = content(sections_[names]);
}

bool ElfFile::is_called(const Elf64_Shdr& section, std::string_view name) const {
  return text_at(names_, section.sh_name) == name;
}

// No bytes: it has none, or they are not all there.
SectionBytes ElfFile::content(const Elf64_Shdr& section) const {
  if (section.sh_type == SHT_NOBITS || section.sh_size == 0) return {};
  const std::uint8_t* const bytes = at(section.sh_offset, section.sh_size);
  return bytes == nullptr ? SectionBytes{} : SectionBytes{bytes, section.sh_size, section.sh_addr};
}

std::optional<std::vector<Symbol>> ElfFile::symbols(std::uint32_t section_type) const {
  const auto section = std::find_if(sections_.begin(), sections_.end(),
                                    [&](const Elf64_Shdr& it) { return it.sh_type == section_type; });
  if (section == sections_.end() || section->sh_size == 0) return std::nullopt;
  const SectionBytes table = content(*section);
  if (table.bytes == nullptr) throw std::runtime_error("damaged: a symbol table lies outside the file");
  const SectionBytes names =
      section->sh_link < sections_.size() ? content(sections_[section->sh_link]) : SectionBytes{};
  std::vector<Symbol> symbols;
  symbols.reserve(table.size / sizeof(Elf64_Sym));
  const auto add = [&](const Elf64_Sym& entry, std::string_view name, std::uint32_t index) {
    symbols.push_back({entry, name, index});
  };
  if (!visit_symbols(table, names, add)) return std::nullopt;
  return symbols;
}

std::optional<std::uint64_t> ElfFile::file_offset(std::uint64_t address) const {
  for (const Elf64_Phdr& header : programs_) {
    if (header.p_type == PT_LOAD && address >= header.p_vaddr && address - header.p_vaddr < header.p_filesz)
      return header.p_offset + (address - header.p_vaddr);
  }
  return std::nullopt;
}

std::vector<Segment> ElfFile::segments() const {
  std::vector<Segment> segments;
  for (const Elf64_Phdr& header : programs_) {
    if (header.p_type == PT_LOAD) segments.push_back(segment_of(header));
  }
  return segments;
}

// Sections first: in a separate debug file the segments' offsets lead nowhere.
std::string ElfFile::build_id() const {
  const auto in_notes = [](const std::uint8_t* bytes, std::size_t size, std::uint64_t alignment) {
    return bytes == nullptr ? std::string() : build_id_in_notes(bytes, size, alignment);
  };
  std::string build_id;
  for (const Elf64_Shdr& section : sections_) {
    if (section.sh_type != SHT_NOTE) continue;
    const SectionBytes notes = content(section);
    build_id = in_notes(notes.bytes, notes.size, section.sh_addralign);
    if (!build_id.empty()) return build_id;
  }
  for (const Elf64_Phdr& header : programs_) {
    if (header.p_type != PT_NOTE) continue;
    build_id = in_notes(at(header.p_offset, header.p_filesz), header.p_filesz, header.p_align);
    if (!build_id.empty()) return build_id;
  }
  return {};
}

std::optional<DebugLink> ElfFile::debug_link() const {
  // The name, its NUL, padding to four bytes, the checksum.
  const std::optional<SectionBytes> content = section(".gnu_debuglink");
  if (!content) return std::nullopt;
  DebugLink link;
  link.name = text_at(*content, 0);
  const std::size_t crc_at = (link.name.size() + 4) & ~std::size_t{3};
  if (link.name.empty() || content->size < crc_at + sizeof link.crc) return std::nullopt;
  std::memcpy(&link.crc, content->bytes + crc_at, sizeof link.crc);
  return link;
}

std::optional<SectionBytes> ElfFile::section(std::string_view name) const {
  for (const Elf64_Shdr& section : sections_) {
    if (!is_called(section, name)) continue;
    const SectionBytes bytes = content(section);
    return bytes.bytes == nullptr ? std::nullopt : std::optional(bytes);
  }
  return std::nullopt;
}

SectionBytes ElfFile::section(std::uint32_t type) const {
  const auto section =
      std::find_if(sections_.begin(), sections_.end(), [&](const Elf64_Shdr& it) { return it.sh_type == type; });
  return section == sections_.end() ? SectionBytes{} : content(*section);
}

}  // namespace ubp::symbols
