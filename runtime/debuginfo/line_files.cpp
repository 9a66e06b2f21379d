// See line_files.h. Source: DWARF 5, 6.2.4; DWARF 4, 6.2.4.
#include "runtime/debuginfo/line_files.h"

#include <dwarf.h>
#include <gelf.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "runtime/debuginfo/types.h"
#include "runtime/language/spec.h"

namespace ubp::debuginfo {
namespace {

using Bytes = std::span<const std::uint8_t>;

Bytes section(Elf* elf, std::string_view wanted) {
  std::size_t names = 0;
  if (elf == nullptr || elf_getshdrstrndx(elf, &names) != 0) return {};
  for (Elf_Scn* one = nullptr; (one = elf_nextscn(elf, one)) != nullptr;) {
    GElf_Shdr header;
    if (gelf_getshdr(one, &header) == nullptr || header.sh_type == SHT_NOBITS) continue;
    const char* const name = elf_strptr(elf, names, header.sh_name);
    if (name == nullptr || name != wanted || (header.sh_flags & SHF_COMPRESSED) != 0) continue;
    const Elf_Data* const data = elf_getdata(one, nullptr);
    return data != nullptr && data->d_buf != nullptr
               ? Bytes(static_cast<const std::uint8_t*>(data->d_buf), data->d_size)
               : Bytes{};
  }
  return {};
}

std::string_view text_at(Bytes bytes, std::uint64_t offset) {
  if (offset >= bytes.size()) return {};
  const auto* const text = reinterpret_cast<const char*>(bytes.data() + offset);
  return {text, strnlen(text, bytes.size() - offset)};
}

// Takes numbers off bytes; past their end, is_good is false and numbers are 0.
class Reader {
 public:
  Reader(Bytes bytes, std::uint64_t offset) : bytes_(bytes), offset_(offset) {}

  bool is_good() const { return is_good_; }
  std::uint64_t number(unsigned size) {
    std::uint64_t value = 0;
    if (has(size)) std::memcpy(&value, bytes_.data() + offset_ - size, size);
    return value;
  }
  std::uint64_t leb() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; is_good_; shift += 7) {
      const std::uint64_t byte = number(1);
      if (shift < 64) value |= (byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) break;
    }
    return value;
  }
  std::string_view text() {
    const std::string_view its = text_at(bytes_, offset_);
    has(its.size() + 1);
    return its;
  }
  // Moves behind the next bytes.
  bool has(std::uint64_t bytes) {
    is_good_ = is_good_ && offset_ <= bytes_.size() && bytes <= bytes_.size() - offset_;
    if (is_good_) offset_ += bytes;
    return is_good_;
  }

 private:
  Bytes bytes_;
  std::uint64_t offset_;
  bool is_good_ = true;
};

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

LineFiles::LineFiles(Dwarf* dwarf) {
  Elf* const elf = dwarf_getelf(dwarf);
  lines_ = section(elf, ".debug_line");
  texts_ = section(elf, ".debug_str");
  line_texts_ = section(elf, ".debug_line_str");
}

bool LineFiles::may_have(Dwarf_Die& unit, std::string_view wanted) const {
  constexpr std::uint64_t kNone = ~std::uint64_t{0}, kLong = 0xfffffff0;
  const std::uint64_t begin = number_of(unit, DW_AT_stmt_list, kNone);
  if (begin == kNone || lines_.empty()) return true;
  const std::string_view name = last_part(wanted);
  const auto fits = [&](std::string_view path) {
    return last_part(path) == name || language::glob_match(name, last_part(path));
  };
  Reader reader(lines_, begin);
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
