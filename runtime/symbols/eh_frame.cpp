// Reading .eh_frame. See eh_frame.h. (Not through libdw: opening it, with liblzma and libbz2, cost every start of a
// probed program more than all else about symbols.)
//
// Sources: Linux Standard Base Core 5.0, "Exception Frames" and "DWARF Exception Header Encoding"; DWARF 5, 6.4.1, 7.4
// and 7.6; the augmentations 'S' and "eh": GCC, libgcc/unwind-dw2.c.
#include "runtime/symbols/eh_frame.h"

#include <dwarf.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace ubp::symbols {
namespace {

constexpr std::uint8_t kFormatMask = 0x0F;  // how the value is stored; the rest says what is added to it

class Bytes {
 public:
  Bytes(const std::uint8_t* begin, const std::uint8_t* end) : at_(begin), end_(end) {}

  template <typename T>
  std::optional<std::uint64_t> read() {
    T value;
    if (left() < sizeof value) return std::nullopt;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return static_cast<std::uint64_t>(value);  // sign-extends
  }

  const std::uint8_t* at() const { return at_; }
  std::uint64_t left() const { return static_cast<std::uint64_t>(end_ - at_); }

  bool skip(std::uint64_t count) {
    if (count > left()) return false;
    at_ += count;
    return true;
  }

  bool skip_leb128() {
    while (at_ != end_) {
      if ((*at_++ & 0x80) == 0) return true;
    }
    return false;
  }

  // Up to its NUL, which is read too.
  std::optional<std::string_view> read_string() {
    const char* const text = reinterpret_cast<const char*>(at_);
    const std::size_t size = strnlen(text, left());
    if (!skip(size + 1)) return std::nullopt;
    return std::string_view(text, size);
  }

  // The value without what its encoding adds to it; std::nullopt also for the formats that no compiler uses
  // here.
  std::optional<std::uint64_t> read_encoded(std::uint8_t encoding) {
    switch (encoding & kFormatMask) {
      case DW_EH_PE_absptr:
      case DW_EH_PE_udata8:
      case DW_EH_PE_sdata8: return read<std::uint64_t>();
      case DW_EH_PE_udata4: return read<std::uint32_t>();
      case DW_EH_PE_sdata4: return read<std::int32_t>();
      case DW_EH_PE_udata2: return read<std::uint16_t>();
      case DW_EH_PE_sdata2: return read<std::int16_t>();
      default: return std::nullopt;
    }
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

// How the FDEs of a CIE write their addresses; DW_EH_PE_omit when they are of no use here. cie: what follows its ID.
std::uint8_t address_encoding(Bytes cie) {
  const std::optional<std::uint64_t> version = cie.read<std::uint8_t>();
  const std::optional<std::string_view> text = cie.read_string();
  if (!version || (*version != 1 && *version != 3 && *version != 4) || !text) return DW_EH_PE_omit;
  std::string_view augmentation = *text;
  if (augmentation.empty()) return DW_EH_PE_absptr;
  if (augmentation.front() != 'z' || augmentation.find('S') != std::string_view::npos) return DW_EH_PE_omit;
  if (*version == 4 && !cie.skip(2)) return DW_EH_PE_omit;  // the sizes of addresses and of segment selectors
  if (!cie.skip_leb128() || !cie.skip_leb128()) return DW_EH_PE_omit;  // the alignment factors
  const bool is_byte = *version == 1;                                  // the register of the return address
  if (is_byte ? !cie.skip(1) : !cie.skip_leb128()) return DW_EH_PE_omit;
  if (!cie.skip_leb128()) return DW_EH_PE_omit;  // how long the data is that follows
  for (const char what : augmentation.substr(1)) {
    if (what == 'B' || what == 'G') continue;  // no data
    if (what != 'L' && what != 'P' && what != 'R') return DW_EH_PE_omit;
    const std::optional<std::uint64_t> encoding = cie.read<std::uint8_t>();
    if (!encoding) return DW_EH_PE_omit;
    const std::uint8_t value = static_cast<std::uint8_t>(*encoding);
    if (what == 'R') return value;
    const bool is_personality = what == 'P';
    if (is_personality && (value == DW_EH_PE_aligned || !cie.read_encoded(value))) return DW_EH_PE_omit;
  }
  return DW_EH_PE_absptr;
}

// std::nullopt when the encoding is another one than the compilers', or the entry too short for it. fde: what follows
// its CIE pointer, which begins at the ELF address.
std::optional<CodeRange> range_of(Bytes fde, std::uint64_t address, std::uint8_t encoding) {
  const std::uint8_t how = encoding & static_cast<std::uint8_t>(~kFormatMask);
  if (how != DW_EH_PE_absptr && how != DW_EH_PE_pcrel) return std::nullopt;
  const std::optional<std::uint64_t> start = fde.read_encoded(encoding);
  const std::optional<std::uint64_t> size = fde.read_encoded(encoding);
  if (!start || !size) return std::nullopt;
  return CodeRange{how == DW_EH_PE_pcrel ? *start + address : *start, *size};
}

// The encodings of the CIEs that came by. They come in the order of their offsets, and an FDE has nearly always the
// last one.
class Encodings {
 public:
  void add(std::uint64_t cie, std::uint8_t encoding) { all_.emplace_back(cie, encoding); }
  std::optional<std::uint8_t> of(std::uint64_t cie) const {
    if (!all_.empty() && all_.back().first == cie) return all_.back().second;
    const auto before = [](const auto& one, std::uint64_t at) { return one.first < at; };
    const auto found = std::lower_bound(all_.begin(), all_.end(), cie, before);
    if (found == all_.end() || found->first != cie) return std::nullopt;
    return found->second;
  }

 private:
  std::vector<std::pair<std::uint64_t, std::uint8_t>> all_;  // by the CIE's offset
};

}  // namespace

std::vector<CodeRange> frame_ranges(const SectionBytes& eh_frame) {
  constexpr std::uint32_t kIs64Bit = 0xffffffff, kFirstReserved = 0xfffffff0;
  std::vector<CodeRange> ranges;
  Encodings encodings;
  ranges.reserve(eh_frame.size / 48);  // more than they are: an entry of a function has seldom less
  Bytes all(eh_frame.bytes, eh_frame.bytes + eh_frame.size);
  const auto offset_of = [&](const std::uint8_t* at) { return static_cast<std::uint64_t>(at - eh_frame.bytes); };
  while (true) {
    const std::uint64_t offset = offset_of(all.at());
    std::optional<std::uint64_t> length = all.read<std::uint32_t>();
    const bool is_64_bit = length == kIs64Bit;
    if (is_64_bit) length = all.read<std::uint64_t>();
    if (!length || *length == 0 || (!is_64_bit && *length >= kFirstReserved)) break;  // 0 ends the section
    const std::uint64_t pointer_at = offset_of(all.at());
    Bytes entry(all.at(), all.at() + std::min(*length, all.left()));
    if (!all.skip(*length)) break;
    const std::optional<std::uint64_t> distance = is_64_bit ? entry.read<std::uint64_t>() : entry.read<std::uint32_t>();
    if (!distance || *distance > pointer_at) break;
    if (*distance == 0) {
      encodings.add(offset, address_encoding(entry));
      continue;
    }
    const std::optional<std::uint8_t> encoding = encodings.of(pointer_at - *distance);
    if (!encoding) break;
    if (*encoding == DW_EH_PE_omit) continue;
    const std::optional<CodeRange> range = range_of(entry, eh_frame.address + offset_of(entry.at()), *encoding);
    if (range && range->size != 0) ranges.push_back(*range);
  }
  const auto before = [](const CodeRange& a, const CodeRange& b) {
    return a.address != b.address ? a.address < b.address : a.size > b.size;
  };
  if (!std::is_sorted(ranges.begin(), ranges.end(), before)) std::sort(ranges.begin(), ranges.end(), before);
  const auto begin_together = [](const CodeRange& a, const CodeRange& b) { return a.address == b.address; };
  ranges.erase(std::unique(ranges.begin(), ranges.end(), begin_together), ranges.end());
  return ranges;
}

}  // namespace ubp::symbols
