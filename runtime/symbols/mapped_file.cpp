// Reading symbol tables where they are mapped. See mapped_file.h.
//
// Source: gABI, "Sections" and "Program Header"; GDB manual, "Separate Debug Files".
#include "runtime/symbols/mapped_file.h"

#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "runtime/symbols/notes.h"

namespace ubp::symbols {
namespace {

// A file's headers and the names of its sections, as far as they are as linkers write them.
class Headers {
 public:
  explicit Headers(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Headers() {
    if (fd_ >= 0) ::close(fd_);
  }
  Headers(const Headers&) = delete;
  Headers& operator=(const Headers&) = delete;

  bool read() {
    struct stat status {};
    if (fd_ < 0 || fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) return false;
    const ssize_t count = pread(fd_, first_.data(), first_.size(), 0);
    known_ = count < 0 ? 0 : static_cast<std::size_t>(count);
    if (!get(0, &header_, 1)) return false;
    const bool is_known = std::memcmp(header_.e_ident, ELFMAG, SELFMAG) == 0 && header_.e_ident[EI_CLASS] == ELFCLASS64 &&
                          header_.e_ident[EI_DATA] == ELFDATA2LSB && header_.e_machine == EM_X86_64 &&
                          header_.e_phentsize == sizeof(Elf64_Phdr) && header_.e_phnum != PN_XNUM &&
                          header_.e_shentsize == sizeof(Elf64_Shdr) && header_.e_shnum > header_.e_shstrndx;
    if (!is_known) return false;
    programs_.resize(header_.e_phnum);
    sections_.resize(header_.e_shnum);
    if (!get(header_.e_phoff, programs_.data(), programs_.size())) return false;
    if (!get(header_.e_shoff, sections_.data(), sections_.size())) return false;
    const Elf64_Shdr& names = sections_[header_.e_shstrndx];
    return content(names.sh_offset, names.sh_size, names_);
  }

  std::span<const Elf64_Phdr> programs() const { return programs_; }
  std::span<const Elf64_Shdr> sections() const { return sections_; }
  bool is_called(const Elf64_Shdr& section, std::string_view name) const {
    return section.sh_name < names_.size() && names_.c_str() + section.sh_name == name;
  }

  // What lies at an offset of the file, if it is little.
  bool content(std::uint64_t offset, std::uint64_t size, std::string& text) const {
    constexpr std::uint64_t kMost = 65536;
    if (size > kMost) return false;
    text.resize(size);
    return get(offset, text.data(), size);
  }

 private:
  template <typename T>
  bool get(std::uint64_t offset, T* to, std::size_t count) const {
    const std::size_t bytes = count * sizeof(T);
    if (offset <= known_ && bytes <= known_ - offset) {
      std::memcpy(static_cast<void*>(to), first_.data() + offset, bytes);
      return true;
    }
    return pread(fd_, to, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
  }

  int fd_;
  std::array<char, 1024> first_;  // of the file: the headers and, nearly always, the build-id
  std::size_t known_ = 0;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Phdr> programs_;
  std::vector<Elf64_Shdr> sections_;
  std::string names_;
};

bool is_mapped_file(const Module& module, const Headers& file) {
  auto segment = module.segments.begin();
  std::string build_id;
  for (const Elf64_Phdr& header : file.programs()) {
    if (header.p_type == PT_NOTE && build_id.empty()) {
      std::string notes;
      if (!file.content(header.p_offset, header.p_filesz, notes)) return false;
      build_id = build_id_in_notes(reinterpret_cast<const std::uint8_t*>(notes.data()), notes.size(), header.p_align);
    }
    if (header.p_type != PT_LOAD) continue;
    if (segment == module.segments.end() || segment->address != header.p_vaddr || segment->size != header.p_memsz ||
        segment->file_size != header.p_filesz || segment->executable != ((header.p_flags & PF_X) != 0) ||
        segment->writable != ((header.p_flags & PF_W) != 0)) {
      return false;
    }
    ++segment;
  }
  return segment == module.segments.end() && build_id == module.build_id;
}

// Whether the module is here still. (A module that was unloaded keeps its number, and is asked for when a name is missing.)
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

// Where a section is mapped; std::nullopt: not the whole of it is, or it is empty.
std::optional<SectionBytes> mapped(const Module& module, const Elf64_Shdr& section) {
  const Segment* const segment = module.segment_at(section.sh_addr);
  const std::uint8_t* const bytes = module.bytes_at(section.sh_addr);
  if ((section.sh_flags & SHF_ALLOC) == 0 || section.sh_size == 0 || bytes == nullptr || segment->writable) return std::nullopt;
  const std::uint64_t before = section.sh_addr - segment->address;
  if (before > segment->file_size || section.sh_size > segment->file_size - before) return std::nullopt;
  return SectionBytes{bytes, section.sh_size, section.sh_addr};
}

}  // namespace

std::optional<MappedTables> mapped_tables(const Module& module) {
  Headers file(module.path);
  if (module.is_vdso || !file.read() || !is_mapped_file(module, file) || !is_loaded(module)) return std::nullopt;
  MappedTables tables;
  std::string link_name;
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
    } else if (file.is_called(section, ".gnu_debuglink")) {
      if (!file.content(section.sh_offset, section.sh_size, link_name)) return std::nullopt;
      link_name.resize(strnlen(link_name.data(), link_name.size()));
    }
  }
  const auto is_there = [](const std::string& path) { return access(path.c_str(), R_OK) == 0; };
  const std::vector<std::string> candidates = debug_file_candidates(real_path(module.path), module.build_id, link_name);
  if (std::any_of(candidates.begin(), candidates.end(), is_there)) return std::nullopt;
  return tables;
}

}  // namespace ubp::symbols
