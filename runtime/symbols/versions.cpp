// See versions.h.
#include "runtime/symbols/versions.h"

#include <algorithm>
#include <cstring>

namespace ubp::symbols {
namespace {

constexpr std::uint16_t kMost = 0x7fff;  // numbers

template <typename T>
bool read_at(const SectionBytes& section, std::uint64_t at, T& to) {
  if (at > section.size || sizeof to > section.size - at) return false;
  std::memcpy(&to, section.bytes + at, sizeof to);
  return true;
}

}  // namespace

void Versions::read(const SectionBytes& definitions, const SectionBytes& names) {
  Elf64_Verdef definition{};
  Elf64_Verdaux first{};
  std::uint64_t at = 0;
  while (read_at(definitions, at, definition) && read_at(definitions, at + definition.vd_aux, first)) {
    const std::uint16_t number = definition.vd_ndx & kMost;
    // The base definition is the file's own name.
    if ((definition.vd_flags & VER_FLG_BASE) == 0 && number > VER_NDX_GLOBAL) {
      if (names_.size() <= number) names_.resize(std::size_t{number} + 1);
      names_[number] = text_at(names, first.vda_name);
    }
    if (definition.vd_next == 0) break;
    at += definition.vd_next;
  }
}

std::uint16_t Versions::of_symbol(const SectionBytes& versions, std::uint32_t index) const {
  std::uint16_t version = 0;
  if (!read_at(versions, std::uint64_t{index} * sizeof version, version)) return 0;
  const std::uint16_t number = version & kMost;
  return number < names_.size() && !names_[number].empty() ? version : 0;
}

std::uint16_t Versions::of_name(std::string_view name) {
  const VersionedName wanted(name);
  if (wanted.version.empty()) return 0;
  auto found = std::find(names_.begin(), names_.end(), wanted.version);
  if (found == names_.end()) {
    if (names_.size() >= kMost) return 0;
    names_.resize(std::max<std::size_t>(names_.size(), VER_NDX_GLOBAL + 1));  // 0 and 1 are none
    found = names_.insert(names_.end(), std::string(wanted.version));
  }
  return static_cast<std::uint16_t>((found - names_.begin()) | (wanted.is_default ? 0 : kNotDefault));
}

}  // namespace ubp::symbols
