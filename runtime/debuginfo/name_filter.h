// Which units may have functions of a name, told by their bytes: libdw reads a unit entry by entry, with all that is
// inlined in its functions, and a name means few of them.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/debuginfo/sections.h"

namespace ubp::debuginfo {

struct FunctionPattern;

class NameFilter {
 public:
  // dwarf: outlives this. fits: whether a function is meant, by its raw name.
  NameFilter(Dwarf* dwarf, const FunctionPattern& pattern, std::function<bool(std::string_view)> fits);

  // True where that cannot be told: of split units, and where the name may be another unit's or in another file.
  // skeleton: the part that is in the file, whole: all of it.
  bool may_have(Dwarf_Die& skeleton, const Dwarf_Die& whole);

 private:
  // How the entries of a unit refer to names.
  struct Forms {
    bool is_known = false, has_indexes = false;
  };
  void find(std::string_view part);
  void find_mangled();
  void add(std::size_t text);
  bool is_candidate(std::uint64_t offset) const;
  bool refers(Bytes unit) const;
  bool has_index(Dwarf_Die& unit) const;
  const Forms& forms(std::uint64_t abbreviations);

  Bytes units_, abbreviations_, texts_, indexes_;  // .debug_info and _abbrev, _str, _str_offsets
  const std::function<bool(std::string_view)> fits_;
  std::string part_;                      // of every such name that is not mangled; empty: nothing is known
  bool is_whole_ = false;                 // or it is the name
  std::vector<std::uint8_t> candidates_;  // by offset: not 0: the text of texts_ that begins there fits
  std::uint32_t first_ = ~std::uint32_t{0}, last_ = 0;  // of them
  std::map<std::uint64_t, Forms> forms_;
};

}  // namespace ubp::debuginfo
