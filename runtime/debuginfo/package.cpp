// See package.h.
#include "runtime/debuginfo/package.h"

#include <dwarf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gelf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace ubp::debuginfo {
namespace {

// The sections that a unit has parts of, by their numbers in indices of both versions.
constexpr unsigned kInfo = 1, kStringOffsets = 6;
constexpr const char* kNames2[] = {"",           ".debug_info",        ".debug_types",   ".debug_abbrev", ".debug_line",
                                   ".debug_loc", ".debug_str_offsets", ".debug_macinfo", ".debug_macro"};
constexpr const char* kNames5[] = {"",
                                   ".debug_info",
                                   "",
                                   ".debug_abbrev",
                                   ".debug_line",
                                   ".debug_loclists",
                                   ".debug_str_offsets",
                                   ".debug_macro",
                                   ".debug_rnglists"};

// Little endian, as all of x86-64. 0 behind the end.
template <typename Number>
Number number_at(std::string_view bytes, std::size_t at) {
  Number number = 0;
  if (at <= bytes.size() && bytes.size() - at >= sizeof number) std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}
std::string_view part_of(std::string_view bytes, std::size_t offset, std::size_t size) {
  return offset <= bytes.size() && size <= bytes.size() - offset ? bytes.substr(offset, size) : std::string_view();
}
template <typename Thing>
void append(std::string& bytes, const Thing& thing) {
  bytes.append(reinterpret_cast<const char*>(&thing), sizeof thing);
}

// A unit's string offsets, with what they refer to. Empty: they cannot be made sense of.
std::pair<std::string, std::string> with_own_strings(std::string_view offsets, std::string_view strings,
                                                     unsigned version) {
  const std::size_t header = version >= 5 ? 8 : 0;                                   // its length, the version, padding
  if (header != 0 && number_at<std::uint32_t>(offsets, 0) == 0xffffffff) return {};  // 64-bit DWARF
  std::pair<std::string, std::string> own{offsets.substr(0, header), ""};
  for (std::size_t at = header; at + 4 <= offsets.size(); at += 4) {
    const std::string_view rest =
        strings.substr(std::min<std::size_t>(number_at<std::uint32_t>(offsets, at), strings.size()));
    append(own.first, static_cast<std::uint32_t>(own.second.size()));
    own.second.append(rest.substr(0, rest.find('\0')));
    own.second.push_back('\0');
  }
  return own;
}

std::string elf_file(const std::vector<std::pair<std::string, std::string_view>>& sections) {
  std::string names(1, '\0'), bytes(sizeof(Elf64_Ehdr), '\0');
  std::vector<Elf64_Shdr> headers(1);
  const auto add = [&](const std::string& name, std::string_view contents, unsigned type) {
    Elf64_Shdr header{};
    header.sh_name = static_cast<Elf64_Word>(names.size());
    names.append(name).push_back('\0');
    bytes.resize((bytes.size() + 7) & ~std::size_t{7});
    header.sh_type = type;
    header.sh_offset = bytes.size();
    header.sh_addralign = 1;
    bytes.append(type == SHT_STRTAB ? std::string_view(names) : contents);
    header.sh_size = bytes.size() - header.sh_offset;
    headers.push_back(header);
  };
  for (const auto& [name, contents] : sections) add(name, contents, SHT_PROGBITS);
  add(".shstrtab", {}, SHT_STRTAB);
  bytes.resize((bytes.size() + 7) & ~std::size_t{7});
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_REL;
  header.e_machine = EM_X86_64;
  header.e_version = EV_CURRENT;
  header.e_ehsize = sizeof header;
  header.e_shentsize = sizeof(Elf64_Shdr);
  header.e_shoff = bytes.size();
  header.e_shnum = static_cast<Elf64_Half>(headers.size());
  header.e_shstrndx = static_cast<Elf64_Half>(headers.size() - 1);
  std::memcpy(bytes.data(), &header, sizeof header);
  for (const Elf64_Shdr& section : headers) append(bytes, section);
  return bytes;
}

// While it lives, the contents can be opened by a path.
class NamelessFile {
 public:
  explicit NamelessFile(std::string_view contents) : file_(memfd_create("split unit", MFD_CLOEXEC)) {
    while (file_ >= 0 && !contents.empty()) {
      const ssize_t written = write(file_, contents.data(), contents.size());
      if (written <= 0) break;
      contents.remove_prefix(static_cast<std::size_t>(written));
    }
    is_whole_ = file_ >= 0 && contents.empty();
  }
  ~NamelessFile() {
    if (file_ >= 0) close(file_);
  }
  NamelessFile(const NamelessFile&) = delete;
  NamelessFile& operator=(const NamelessFile&) = delete;

  std::string path() const { return is_whole_ ? fmt::format("/proc/self/fd/{}", file_) : ""; }

 private:
  int file_;
  bool is_whole_ = false;
};

// While it lives, other bytes are in place of some of a section's.
class Replaced {
 public:
  Replaced(char* at, std::string_view bytes) : at_(at), before_(at, bytes.size()) { bytes.copy(at, bytes.size()); }
  ~Replaced() { before_.copy(at_, before_.size()); }
  Replaced(const Replaced&) = delete;
  Replaced& operator=(const Replaced&) = delete;

 private:
  char* at_;
  std::string before_;
};

// The section that something of a file lies in, as libdw has it; null: none does.
Elf_Data* section_with(Elf* elf, const char* at) {
  for (Elf_Scn* section = elf_nextscn(elf, nullptr); section != nullptr; section = elf_nextscn(elf, section)) {
    GElf_Shdr header;
    if (gelf_getshdr(section, &header) == nullptr || header.sh_type != SHT_PROGBITS) continue;
    Elf_Data* const data = elf_getdata(section, nullptr);
    const auto* const begin = data != nullptr ? static_cast<const char*>(data->d_buf) : nullptr;
    if (begin != nullptr && at >= begin && at < begin + data->d_size) return data;
  }
  return nullptr;
}

}  // namespace

Package::~Package() {
  if (elf_ != nullptr) elf_end(elf_);
  if (file_ >= 0) close(file_);
}

std::unique_ptr<Package> Package::open(const std::string& path) {
  std::unique_ptr<Package> package(new Package);
  package->file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  package->elf_ = package->file_ >= 0 ? elf_begin(package->file_, ELF_C_READ_MMAP, nullptr) : nullptr;
  std::size_t names = 0;
  if (package->elf_ == nullptr || elf_getshdrstrndx(package->elf_, &names) != 0) return nullptr;
  std::string_view index;
  Elf_Scn* section = nullptr;
  while ((section = elf_nextscn(package->elf_, section)) != nullptr) {
    GElf_Shdr header;
    if (gelf_getshdr(section, &header) == nullptr) continue;
    const char* const text = elf_strptr(package->elf_, names, header.sh_name);
    if ((header.sh_flags & SHF_COMPRESSED) != 0 && elf_compress(section, 0, 0) < 0) continue;
    const Elf_Data* const data = text != nullptr ? elf_getdata(section, nullptr) : nullptr;
    if (data == nullptr || data->d_buf == nullptr) continue;
    const std::string_view contents(static_cast<const char*>(data->d_buf), data->d_size);
    std::string name = text;
    if (name == ".debug_cu_index") index = contents;
    if (!name.ends_with(".dwo")) continue;
    name.resize(name.size() - 4);
    package->sections_.emplace(std::move(name), contents);
  }
  return package->read_index(index) ? std::move(package) : nullptr;
}

bool Package::read_index(std::string_view index) {
  constexpr std::size_t kHeader = 16;
  const auto word = [&](std::uint64_t at) { return number_at<std::uint32_t>(index, at); };
  version_ = number_at<std::uint16_t>(index, 0);
  const std::uint64_t columns = word(4), units = word(8), slots = word(12);
  // Signatures and row numbers by slots, then the columns' kinds, and the rows' offsets, and their sizes.
  const std::uint64_t rows = kHeader + slots * 12, offsets = rows + columns * 4, sizes = offsets + units * columns * 4;
  const std::uint64_t most = index.size() / 4;
  if ((version_ != 2 && version_ != 5) || columns > most || units > most || slots > most ||
      sizes + units * columns * 4 > index.size())
    return false;
  for (std::uint64_t slot = 0; slot < slots; ++slot) {
    const std::uint64_t number = word(kHeader + slots * 8 + slot * 4);
    if (number == 0 || number > units) continue;
    Row row{};
    for (std::uint64_t column = 0; column < columns; ++column) {
      const std::uint32_t kind = word(rows + column * 4);
      const std::uint64_t cell = ((number - 1) * columns + column) * 4;
      if (kind < kKinds) row[kind] = {word(offsets + cell), word(sizes + cell)};
    }
    units_.emplace(number_at<std::uint64_t>(index, kHeader + slot * 8), row);
  }
  return true;
}

// Empty: its parts cannot be made sense of.
std::string Package::unit_file(const Row& row) const {
  const auto section = [&](std::string_view name) {
    const auto its = sections_.find(name);
    return its != sections_.end() ? its->second : std::string_view();
  };
  const auto contents = [&](unsigned kind) {
    return part_of(section(version_ == 5 ? kNames5[kind] : kNames2[kind]), row[kind].offset, row[kind].size);
  };
  std::vector<std::pair<std::string, std::string_view>> sections;
  for (unsigned kind = kInfo; kind < kKinds; ++kind) {
    if (kind != kStringOffsets && !contents(kind).empty())
      sections.emplace_back(fmt::format("{}.dwo", version_ == 5 ? kNames5[kind] : kNames2[kind]), contents(kind));
  }
  const auto own = with_own_strings(contents(kStringOffsets), section(".debug_str"), version_);
  if (contents(kInfo).empty() || (own.first.empty() && !contents(kStringOffsets).empty())) return "";
  sections.emplace_back(".debug_str_offsets.dwo", own.first);
  sections.emplace_back(".debug_str.dwo", own.second);
  return elf_file(sections);
}

// The name that a skeleton has for its file, with room for so many bytes: where there is none, it is the last of its
// section's strings, which libdw then has elsewhere. Null: it has none.
char* Package::roomy_name(Dwarf_Die& skeleton, std::size_t bytes) {
  Dwarf_Attribute value;
  const bool has_name = dwarf_attr(&skeleton, DW_AT_dwo_name, &value) != nullptr ||
                        dwarf_attr(&skeleton, DW_AT_GNU_dwo_name, &value) != nullptr;
  const char* const name = has_name ? dwarf_formstring(&value) : nullptr;
  Elf_Data* const section =
      name != nullptr ? section_with(dwarf_getelf(dwarf_cu_getdwarf(skeleton.cu)), name) : nullptr;
  if (section == nullptr) return nullptr;
  const auto at = static_cast<std::size_t>(name - static_cast<const char*>(section->d_buf));
  if (section->d_size - at < bytes) {
    if (value.form == DW_FORM_string) return nullptr;  // among the units themselves
    std::string& longer = longer_.emplace_back(static_cast<const char*>(section->d_buf), section->d_size);
    longer.append(bytes, '\0');
    section->d_buf = longer.data();
  }
  return static_cast<char*>(section->d_buf) + at;
}

void Package::link(Dwarf_CU* skeleton) {
  Dwarf_Die die, split;
  std::uint8_t kind = 0;
  std::uint64_t dwo_id = 0;
  if (dwarf_cu_info(skeleton, nullptr, &kind, &die, nullptr, &dwo_id, nullptr, nullptr) != 0 || kind != DW_UT_skeleton)
    return;
  const auto unit = units_.find(dwo_id);
  const std::string contents = unit != units_.end() ? unit_file(unit->second) : "";
  if (contents.empty()) return;
  const NamelessFile file(contents);
  const std::string path = file.path();
  char* const name = !path.empty() ? roomy_name(die, path.size() + 1) : nullptr;
  if (name == nullptr) return;
  // libdw opens what the skeleton names, now.
  const Replaced replaced(name, std::string_view(path.c_str(), path.size() + 1));
  dwarf_cu_info(skeleton, nullptr, nullptr, nullptr, &split, nullptr, nullptr, nullptr);
}

}  // namespace ubp::debuginfo
