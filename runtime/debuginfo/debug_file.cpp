// See debug_file.h.
#include "runtime/debuginfo/debug_file.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <utility>

#include "runtime/debuginfo/package.h"
#include "runtime/debuginfo/scopes.h"
#include "runtime/debuginfo/types.h"
#include "runtime/debuginfo/variables.h"
#include "runtime/symbols/elf_file.h"

namespace ubp::debuginfo {
namespace {

// Where debuginfod's client keeps what it has fetched. Nothing is fetched here. Source: debuginfod_find_debuginfo(3).
std::string debuginfod_cache() {
  const auto variable = [](const char* name) {
    const char* const text = std::getenv(name);
    return std::string(text != nullptr ? text : "");
  };
  if (std::string path = variable("DEBUGINFOD_CACHE_PATH"); !path.empty()) return path;
  const std::string folder = variable("XDG_CACHE_HOME");
  return (folder.empty() ? variable("HOME") + "/.cache" : folder) + "/debuginfod_client";
}

}  // namespace

DebugFile::DebugFile() = default;

// False: it has no debug information.
bool DebugFile::open_dwarf(const std::string& path) {
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  dwarf_elf_ = file_ >= 0 ? elf_begin(file_, ELF_C_READ_MMAP_PRIVATE, nullptr) : nullptr;
  dwarf_ = dwarf_elf_ != nullptr ? dwarf_begin_elf(dwarf_elf_, DWARF_C_READ, nullptr) : nullptr;
  Dwarf_CU* unit = nullptr;
  return dwarf_ != nullptr && dwarf_get_units(dwarf_, nullptr, &unit, nullptr, nullptr, nullptr, nullptr) == 0;
}

// The split units that are in a package beside the file or its debug file.
void DebugFile::link_package(const std::string& debug_path) {
  if (kLibdwReadsPackages) return;
  package_ = Package::open(path_ + ".dwp");
  if (package_ == nullptr) package_ = Package::open(debug_path + ".dwp");
  Dwarf_CU* unit = nullptr;
  while (package_ != nullptr && dwarf_get_units(dwarf_, unit, &unit, nullptr, nullptr, nullptr, nullptr) == 0)
    package_->link(unit);
}

std::unique_ptr<DebugFile> DebugFile::open(const std::string& path, const std::vector<std::string>& directories) {
  const symbols::ElfFile file = symbols::ElfFile::open(path);
  const std::string build_id = file.build_id();
  const auto link = file.debug_link();
  std::vector<std::string> candidates{path};
  const std::string base = path.substr(path.rfind('/') + 1);
  std::vector<std::string> folders;
  for (const std::string& directory : directories) {  // one that is relative: from here, or from the file
    folders.push_back(directory);
    if (!directory.starts_with('/')) folders.push_back(path.substr(0, path.rfind('/') + 1) + directory);
  }
  for (const std::string& directory : folders) {
    if (link) candidates.push_back(directory + '/' + link->name);
    candidates.push_back(directory + '/' + base + ".debug");
    candidates.push_back(directory + '/' + base);
    if (const std::string by_id = symbols::build_id_file(build_id); !by_id.empty())
      candidates.push_back(directory + '/' + by_id);
  }
  for (std::string& other : symbols::debug_file_candidates(path, build_id, link ? link->name : ""))
    candidates.push_back(std::move(other));
  if (!build_id.empty()) candidates.push_back(fmt::format("{}/{}/debuginfo", debuginfod_cache(), build_id));
  elf_version(EV_CURRENT);
  for (const std::string& candidate : candidates) {
    std::unique_ptr<DebugFile> its(new DebugFile);
    if (access(candidate.c_str(), R_OK) != 0 || !its->open_dwarf(candidate)) continue;
    if (candidate != path && symbols::ElfFile::open(candidate).build_id() != build_id) continue;
    its->path_ = path;
    its->link_package(candidate);
    its->build_id_ = build_id.empty() ? "-" : build_id;
    for (const symbols::Segment& segment : file.segments()) {
      if (segment.executable) its->text_.emplace_back(segment.address, segment.address + segment.size);
    }
    its->elf_file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    its->elf_ = elf_begin(its->elf_file_, ELF_C_READ, nullptr);
    return its;
  }
  return nullptr;
}

DebugFile::~DebugFile() {
  if (own_frames_ != nullptr) dwarf_cfi_end(static_cast<Dwarf_CFI*>(own_frames_));
  if (dwarf_ != nullptr) dwarf_end(dwarf_);
  if (dwarf_elf_ != nullptr) elf_end(dwarf_elf_);
  if (elf_ != nullptr) elf_end(static_cast<Elf*>(elf_));
  if (file_ >= 0) close(file_);
  if (elf_file_ >= 0) close(elf_file_);
}

Units& DebugFile::units() {
  if (units_ == nullptr) units_ = std::make_unique<Units>(dwarf_);
  return *units_;
}

bool DebugFile::is_text(std::uint64_t address) const { return is_in(text_, address); }

bool DebugFile::add_type(std::string_view name, TypeWriter& types) {
  const std::size_t blank = name.find(' ');
  const std::string_view keyword = name.substr(0, blank), rest = name.substr(std::min(blank + 1, name.size()));
  for (Units::Unit& unit : units().all()) {
    Dwarf_Die child;
    if (dwarf_child(&unit.whole, &child) != 0) continue;
    do {
      const int tag = dwarf_tag(&child);
      const bool is_kind = keyword == "enum"    ? tag == DW_TAG_enumeration_type
                           : keyword == "union" ? tag == DW_TAG_union_type
                                                : tag == DW_TAG_structure_type || tag == DW_TAG_class_type;
      if (!is_kind || dwarf_hasattr(&child, DW_AT_declaration) != 0 || name_of(child) != rest) continue;
      types.define(child);
      return true;
    } while (dwarf_siblingof(&child, &child) == 0);
  }
  return false;
}

}  // namespace ubp::debuginfo
