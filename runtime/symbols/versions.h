// The versions of a module's symbols. Source: gABI's GNU extensions, "Symbol Versioning" (.gnu.version,
// .gnu.version_d).
//
// Context: load time. The bytes are untrusted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/symbols/elf_file.h"

namespace ubp::symbols {

class Versions {
 public:
  // definitions: .gnu.version_d, whose names stand in `names`, the names of .dynsym.
  void read(const SectionBytes& definitions, const SectionBytes& names);

  // The version of symbol number `index` of .dynsym, whose .gnu.version this is, as Function::version.
  std::uint16_t of_symbol(const SectionBytes& versions, std::uint32_t index) const;
  // Of a name as static tables have it: "memcpy@GLIBC_2.2.5", "memcpy@@GLIBC_2.14".
  std::uint16_t of_name(std::string_view name);

  std::vector<std::string> take() { return std::move(names_); }

 private:
  std::vector<std::string> names_;  // by number
};

}  // namespace ubp::symbols
