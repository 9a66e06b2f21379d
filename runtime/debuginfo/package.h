// Packages of split units (.dwp), for a libdw that reads none: before 0.191.
//
// A unit of a package is given to libdw as the .dwo file that it was once in: its parts of the package's sections, in a
// file without a name. Type units (-fdebug-types-section) are left out.
//
// Sources: DWARF 5, 7.3.5 and appendix F; for DWARF 4 https://gcc.gnu.org/wiki/DebugFissionDWP.
// Context: the command. What is in a package is untrusted. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>
#include <elfutils/version.h>

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace ubp::debuginfo {

inline constexpr bool kLibdwReadsPackages = _ELFUTILS_PREREQ(0, 191);

class Package {
 public:
  // Null: there is no such file, or it has no index of units.
  static std::unique_ptr<Package> open(const std::string& path);
  ~Package();
  Package(const Package&) = delete;
  Package& operator=(const Package&) = delete;

  // Has libdw find the split unit of a skeleton here, which nobody may have asked for before, of a file whose sections
  // can be written to (ELF_C_READ_MMAP_PRIVATE), and which is closed before this. Not here, or not to be made sense of:
  // libdw looks for its .dwo file later.
  void link(Dwarf_CU* skeleton);

 private:
  struct Part {
    std::uint32_t offset = 0, size = 0;
  };
  static constexpr unsigned kKinds = 9;  // of sections, from 1; which is which depends on the version
  using Row = std::array<Part, kKinds>;

  Package() = default;
  bool read_index(std::string_view index);
  std::string unit_file(const Row& row) const;
  char* roomy_name(Dwarf_Die& skeleton, std::size_t bytes);

  int file_ = -1;
  Elf* elf_ = nullptr;
  std::map<std::string, std::string_view, std::less<>> sections_;  // by name, without ".dwo"
  unsigned version_ = 0;                                           // of the index: 2 (DWARF 4) or 5
  std::map<std::uint64_t, Row> units_;                             // by dwo_id
  std::deque<std::string> longer_;                                 // sections' strings, with more room
};

}  // namespace ubp::debuginfo
