// Reading .eh_frame: libdw takes the entries apart; the encoded pointers in them are read here. See
// eh_frame.h.
//
// Sources: Linux Standard Base Core 5.0, "Exception Frames" and "DWARF Exception Header Encoding"; the
// augmentation 'S': GCC, libgcc/unwind-dw2.c.
#include "runtime/symbols/eh_frame.h"

#include <dwarf.h>
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>

namespace ubp::symbols {
namespace {

constexpr unsigned char kIdentity[EI_NIDENT] = {ELFMAG0,    ELFMAG1,     ELFMAG2,   ELFMAG3,
                                                ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
constexpr std::uint8_t kFormatMask = 0x0F;  // how the value is stored; the rest says what is added to it

class Bytes {
 public:
  Bytes(const std::uint8_t* begin, const std::uint8_t* end) : at_(begin), end_(end) {}

  template <typename T>
  std::optional<std::uint64_t> read() {
    T value;
    if (at_ == nullptr || end_ < at_ || static_cast<std::size_t>(end_ - at_) < sizeof value)
      return std::nullopt;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return static_cast<std::uint64_t>(value);  // sign-extends
  }

  // The value without what its encoding adds to it; std::nullopt also for the formats that no compiler uses
  // here.
  std::optional<std::uint64_t> read_encoded(std::uint8_t encoding) {
    switch (encoding & kFormatMask) {
      case DW_EH_PE_absptr:
      case DW_EH_PE_udata8:
      case DW_EH_PE_sdata8:
        return read<std::uint64_t>();
      case DW_EH_PE_udata4:
        return read<std::uint32_t>();
      case DW_EH_PE_sdata4:
        return read<std::int32_t>();
      case DW_EH_PE_udata2:
        return read<std::uint16_t>();
      case DW_EH_PE_sdata2:
        return read<std::int16_t>();
      default:
        return std::nullopt;
    }
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

// How the FDEs of a CIE write their addresses; DW_EH_PE_omit when they are of no use here.
std::uint8_t address_encoding(const Dwarf_CIE& cie, const std::uint8_t* section_end) {
  const std::string_view augmentation = cie.augmentation;
  if (augmentation.empty()) return DW_EH_PE_absptr;
  if (augmentation.front() != 'z' || augmentation.find('S') != std::string_view::npos) return DW_EH_PE_omit;
  Bytes data(cie.augmentation_data, section_end);
  for (const char what : augmentation.substr(1)) {
    if (what == 'B' || what == 'G') continue;  // no data
    if (what != 'L' && what != 'P' && what != 'R') return DW_EH_PE_omit;
    const std::optional<std::uint64_t> encoding = data.read<std::uint8_t>();
    if (!encoding) return DW_EH_PE_omit;
    const std::uint8_t value = static_cast<std::uint8_t>(*encoding);
    if (what == 'R') return value;
    const bool is_personality = what == 'P';
    if (is_personality && (value == DW_EH_PE_aligned || !data.read_encoded(value))) return DW_EH_PE_omit;
  }
  return DW_EH_PE_absptr;
}

// std::nullopt when the encoding is another one than the compilers', or the entry too short for it.
std::optional<CodeRange> range_of(const Dwarf_FDE& fde, std::uint8_t encoding, const SectionBytes& section) {
  const std::uint8_t how = encoding & static_cast<std::uint8_t>(~kFormatMask);
  if (how != DW_EH_PE_absptr && how != DW_EH_PE_pcrel) return std::nullopt;
  const std::uint8_t* const section_end = section.bytes + section.size;
  if (fde.start < section.bytes || fde.start > section_end) return std::nullopt;
  Bytes bytes(fde.start, std::min(fde.end, section_end));
  const std::optional<std::uint64_t> start = bytes.read_encoded(encoding);
  const std::optional<std::uint64_t> size = bytes.read_encoded(encoding);
  if (!start || !size) return std::nullopt;
  const std::uint64_t position = section.address + static_cast<std::uint64_t>(fde.start - section.bytes);
  return CodeRange{how == DW_EH_PE_pcrel ? *start + position : *start, *size};
}

}  // namespace

std::vector<CodeRange> frame_ranges(const Libdw& libdw, const SectionBytes& eh_frame) {
  std::vector<CodeRange> ranges;
  Elf_Data data{};
  data.d_buf = const_cast<std::uint8_t*>(eh_frame.bytes);  // libdw only reads
  data.d_type = ELF_T_BYTE;
  data.d_version = EV_CURRENT;
  data.d_size = eh_frame.size;
  std::unordered_map<Dwarf_Off, std::uint8_t> encodings;  // by the CIE's offset; a CIE precedes its FDEs
  for (Dwarf_Off offset = 0, next = 0;; offset = next) {
    Dwarf_CFI_Entry entry;
    if (libdw.dwarf_next_cfi(kIdentity, &data, true, offset, &next, &entry) != 0 || next <= offset) break;
    if (dwarf_cfi_cie_p(&entry)) {
      encodings[offset] = address_encoding(entry.cie, eh_frame.bytes + eh_frame.size);
      continue;
    }
    const auto encoding = encodings.find(entry.fde.CIE_pointer);
    if (encoding == encodings.end()) break;
    if (encoding->second == DW_EH_PE_omit) continue;
    const std::optional<CodeRange> range = range_of(entry.fde, encoding->second, eh_frame);
    if (range && range->size != 0) ranges.push_back(*range);
  }
  std::sort(ranges.begin(), ranges.end(), [](const CodeRange& a, const CodeRange& b) {
    return a.address != b.address ? a.address < b.address : a.size > b.size;
  });
  const auto begin_together = [](const CodeRange& a, const CodeRange& b) { return a.address == b.address; };
  ranges.erase(std::unique(ranges.begin(), ranges.end(), begin_together), ranges.end());
  return ranges;
}

}  // namespace ubp::symbols
