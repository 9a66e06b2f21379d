// See line_files.h. Source: DWARF 5, 6.2.4; DWARF 4, 6.2.4.
#include "runtime/debuginfo/line_files.h"

#include <dwarf.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/debuginfo/types.h"
#include "runtime/language/spec.h"

namespace ubp::debuginfo {
namespace {

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

LineFiles::LineFiles(Dwarf* dwarf) {
  lines_ = section(dwarf, ".debug_line");
  texts_ = section(dwarf, ".debug_str");
  line_texts_ = section(dwarf, ".debug_line_str");
}

bool LineFiles::may_have(Dwarf_Die& unit, std::string_view wanted) const {
  constexpr std::uint64_t kNone = ~std::uint64_t{0}, kLong = 0xfffffff0;
  const std::uint64_t begin = number_of(unit, DW_AT_stmt_list, kNone);
  if (begin == kNone || lines_.empty()) return true;
  const std::string_view name = last_part(wanted);
  const auto fits = [&](std::string_view path) {
    return last_part(path) == name || language::glob_match(name, last_part(path));
  };
  ByteReader reader(lines_, begin);
  if (reader.number(4) >= kLong) return true;  // 64-bit DWARF
  const std::uint64_t version = reader.number(2);
  if (version < 2 || version > 5) return true;
  if (version == 5) reader.has(2);         // sizes of addresses and segments
  reader.has(4 + (version >= 4 ? 2 : 1));  // the head's size; of instructions
  reader.has(3);                           // is_stmt; how lines are coded
  reader.has(std::max<std::uint64_t>(reader.number(1), 1) - 1);
  if (version < 5) {
    while (reader.is_good() && !reader.text().empty()) {
    }
    for (;;) {
      const std::string_view path = reader.text();
      if (!reader.is_good()) return true;
      if (path.empty()) return false;
      if (fits(path)) return true;
      for (int i = 0; i < 3; ++i) reader.leb();
    }
  }
  for (const bool are_files : {false, true}) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> format(reader.number(1));
    for (auto& [content, form] : format) {
      content = reader.leb();
      form = reader.leb();
    }
    for (std::uint64_t count = reader.leb(); count > 0; --count) {
      for (const auto& [content, form] : format) {
        std::string_view text;
        switch (form) {
          case DW_FORM_line_strp: text = text_at(line_texts_, reader.number(4)); break;
          case DW_FORM_strp: text = text_at(texts_, reader.number(4)); break;
          case DW_FORM_string: text = reader.text(); break;
          case DW_FORM_udata: reader.leb(); break;
          case DW_FORM_data1: reader.has(1); break;
          case DW_FORM_data2: reader.has(2); break;
          case DW_FORM_data4: reader.has(4); break;
          case DW_FORM_data8: reader.has(8); break;
          case DW_FORM_data16: reader.has(16); break;
          case DW_FORM_block: reader.has(reader.leb()); break;
          default: return true;
        }
        if (!reader.is_good()) return true;
        if (are_files && content == DW_LNCT_path && fits(text)) return true;
      }
      if (format.empty()) return true;
    }
  }
  return !reader.is_good();
}

}  // namespace ubp::debuginfo
