// What is missing of a file's debug information. See debug_file.h.
#include <dwarf.h>
#include <fmt/format.h>
#include <gelf.h>
#include <unistd.h>

#include <cstring>

#include "runtime/debuginfo/debug_file.h"

namespace ubp::debuginfo {
namespace {

// The alternative file that dwz has moved a part to; empty: there is none. It is followed by that file's build-id.
std::string alternative_of(Elf* elf) {
  std::size_t names = 0;
  if (elf_getshdrstrndx(elf, &names) != 0) return "";
  for (Elf_Scn* section = elf_nextscn(elf, nullptr); section != nullptr; section = elf_nextscn(elf, section)) {
    GElf_Shdr header;
    const char* const name =
        gelf_getshdr(section, &header) != nullptr ? elf_strptr(elf, names, header.sh_name) : nullptr;
    const Elf_Data* const data =
        name != nullptr && std::strcmp(name, ".gnu_debugaltlink") == 0 ? elf_rawdata(section, nullptr) : nullptr;
    if (data == nullptr || data->d_buf == nullptr) continue;
    const auto* const text = static_cast<const char*>(data->d_buf);
    return {text, strnlen(text, data->d_size)};
  }
  return "";
}

std::string string_of(Dwarf_Die& die, unsigned attribute) {
  Dwarf_Attribute value;
  const char* const text = dwarf_attr(&die, attribute, &value) != nullptr ? dwarf_formstring(&value) : nullptr;
  return text != nullptr ? text : "";
}

// Where the compiler has put a split unit.
std::string split_file_of(Dwarf_Die& skeleton) {
  std::string name = string_of(skeleton, DW_AT_dwo_name);
  if (name.empty()) name = string_of(skeleton, DW_AT_GNU_dwo_name);
  return name.starts_with('/') ? name : string_of(skeleton, DW_AT_comp_dir) + '/' + name;
}

}  // namespace

const Lack& DebugFile::lack() {
  if (lack_) return *lack_;
  lack_.emplace();
  const std::string alternative = alternative_of(dwarf_getelf(dwarf_));
  if (!alternative.empty() && dwarf_getalt(dwarf_) == nullptr) {
    *lack_ = {fmt::format("a part of the debug information of {} is in {}, which is not there", path_, alternative),
              "dwz has moved it to that file, which is in the same package, and belongs at that path"};
    return *lack_;
  }
  Dwarf_CU* unit = nullptr;
  Dwarf_Die die, split;
  std::uint8_t kind = 0;
  std::string first;
  std::size_t count = 0;
  while (dwarf_get_units(dwarf_, unit, &unit, nullptr, &kind, &die, &split) == 0) {
    if (kind != DW_UT_skeleton) continue;
    if (dwarf_tag(&split) == DW_TAG_compile_unit) return *lack_;  // what is missing is less than all
    if (count++ == 0) first = split_file_of(die);
  }
  if (count == 0) return *lack_;
  lack_->what = fmt::format("the debug information of {} is in {}{}, which {} not there", path_, first,
                            count == 1 ? "" : fmt::format(" and {} more files", count - 1), count == 1 ? "is" : "are");
  const std::string package = path_ + ".dwp";
  lack_->hint = access(package.c_str(), F_OK) == 0
                    ? fmt::format("{} is no package, or one of another build, without these", package)
                    : "-gsplit-dwarf leaves it in .dwo files, which belong where the compiler has put them; or in a "
                      "package beside the program: " +
                          package;
  return *lack_;
}

}  // namespace ubp::debuginfo
