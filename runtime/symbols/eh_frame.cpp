// Reading .eh_frame. See eh_frame.h. (Not through libdw: opening it, with liblzma and libbz2, cost every start of a
// probed program more than all else about symbols.)
//
// Sources: Linux Standard Base Core 5.0, "Exception Frames" and "DWARF Exception Header Encoding"; DWARF 5, 6.4.1, 7.4
// and 7.6; the augmentations 'S' and "eh": GCC, libgcc/unwind-dw2.c.
#include "runtime/symbols/eh_frame.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

namespace ubp::symbols {
namespace {

// cie: what follows its ID. What is not understood leaves the encoding at DW_EH_PE_omit.
CommonEntry read_common(DwarfBytes cie) {
  CommonEntry common;
  const std::optional<std::uint64_t> version = cie.read<std::uint8_t>();
  const std::optional<std::string_view> text = cie.read_string();
  if (!version || (*version != 1 && *version != 3 && *version != 4) || !text) return common;
  std::string_view augmentation = *text;
  if (*version == 4 && !cie.skip(2)) return common;  // the sizes of addresses and of segment selectors
  const std::optional<std::uint64_t> code_factor = cie.read_uleb128();
  const std::optional<std::int64_t> data_factor = cie.read_sleb128();
  const std::optional<std::uint64_t> return_register = *version == 1 ? cie.read<std::uint8_t>() : cie.read_uleb128();
  if (!code_factor || !data_factor || !return_register) return common;
  common.code_factor = *code_factor;
  common.data_factor = *data_factor;
  common.return_register = *return_register;
  common.instructions = cie;
  if (augmentation.empty()) {
    common.encoding = DW_EH_PE_absptr;
    return common;
  }
  if (augmentation.front() != 'z') return common;
  common.has_augmentation = true;
  const std::optional<std::uint64_t> size = cie.read_uleb128();
  if (!size || *size > cie.left()) return common;
  common.instructions = cie;
  common.instructions.skip(*size);
  std::uint8_t encoding = DW_EH_PE_absptr;
  for (const char what : augmentation.substr(1)) {
    if (what == 'S') common.is_signal_frame = true;
    if (what == 'B' || what == 'G' || what == 'S') continue;  // no data
    if (what != 'L' && what != 'P' && what != 'R') return common;
    const std::optional<std::uint64_t> read = cie.read<std::uint8_t>();
    if (!read) return common;
    const std::uint8_t value = static_cast<std::uint8_t>(*read);
    if (what == 'R') encoding = value;
    const bool is_personality = what == 'P';
    if (is_personality && (value == DW_EH_PE_aligned || !cie.read_encoded(value))) return common;
  }
  common.encoding = encoding;
  return common;
}

// std::nullopt when the encoding is another one than the compilers', or the entry too short for it. fde: what follows
// its CIE pointer, which begins at the ELF address; then behind its range.
std::optional<CodeRange> read_range(DwarfBytes& fde, std::uint64_t address, std::uint8_t encoding) {
  const std::uint8_t how = encoding & static_cast<std::uint8_t>(~DwarfBytes::kFormatMask);
  if (how != DW_EH_PE_absptr && how != DW_EH_PE_pcrel) return std::nullopt;
  const std::optional<std::uint64_t> start = fde.read_encoded(encoding);
  const std::optional<std::uint64_t> size = fde.read_encoded(encoding);
  if (!start || !size) return std::nullopt;
  return CodeRange{how == DW_EH_PE_pcrel ? *start + address : *start, *size};
}

// The CIEs that came by. They come in the order of their offsets, and an FDE has nearly always the last one.
class CommonEntries {
 public:
  void add(std::uint64_t offset, const CommonEntry& common) { all_.emplace_back(offset, common); }
  const CommonEntry* at(std::uint64_t offset) const {
    if (!all_.empty() && all_.back().first == offset) return &all_.back().second;
    const auto before = [](const auto& one, std::uint64_t at) { return one.first < at; };
    const auto found = std::lower_bound(all_.begin(), all_.end(), offset, before);
    return found != all_.end() && found->first == offset ? &found->second : nullptr;
  }

 private:
  std::vector<std::pair<std::uint64_t, CommonEntry>> all_;
};

}  // namespace

void visit_frames(const SectionBytes& eh_frame, const std::function<void(const FrameEntry&)>& visit) {
  constexpr std::uint32_t kIs64Bit = 0xffffffff, kFirstReserved = 0xfffffff0;
  CommonEntries commons;
  DwarfBytes all(eh_frame.bytes, eh_frame.bytes + eh_frame.size);
  const auto offset_of = [&](const std::uint8_t* at) { return static_cast<std::uint64_t>(at - eh_frame.bytes); };
  while (true) {
    const std::uint64_t offset = offset_of(all.at());
    std::optional<std::uint64_t> length = all.read<std::uint32_t>();
    const bool is_64_bit = length == kIs64Bit;
    if (is_64_bit) length = all.read<std::uint64_t>();
    if (!length || *length == 0 || (!is_64_bit && *length >= kFirstReserved)) return;  // 0 ends the section
    const std::uint64_t pointer_at = offset_of(all.at());
    DwarfBytes entry(all.at(), all.at() + std::min(*length, all.left()));
    if (!all.skip(*length)) return;
    const std::optional<std::uint64_t> distance = is_64_bit ? entry.read<std::uint64_t>() : entry.read<std::uint32_t>();
    if (!distance || *distance > pointer_at) return;
    if (*distance == 0) {
      commons.add(offset, read_common(entry));
      continue;
    }
    const CommonEntry* const common = commons.at(pointer_at - *distance);
    if (common == nullptr) return;
    if (common->encoding == DW_EH_PE_omit) continue;
    const std::uint64_t address = eh_frame.address + offset_of(entry.at());
    const std::optional<CodeRange> range = read_range(entry, address, common->encoding);
    if (!range || range->size == 0) continue;
    if (common->has_augmentation) {
      const std::optional<std::uint64_t> size = entry.read_uleb128();
      if (!size || !entry.skip(*size)) entry = DwarfBytes();
    }
    visit({*range, *common, entry});
  }
}

std::vector<CodeRange> frame_ranges(const SectionBytes& eh_frame) {
  std::vector<CodeRange> ranges;
  ranges.reserve(eh_frame.size / 48);  // more than they are: an entry of a function has seldom less
  visit_frames(eh_frame, [&](const FrameEntry& entry) {
    if (!entry.common.is_signal_frame) ranges.push_back(entry.range);
  });
  const auto before = [](const CodeRange& a, const CodeRange& b) {
    return a.address != b.address ? a.address < b.address : a.size > b.size;
  };
  if (!std::is_sorted(ranges.begin(), ranges.end(), before)) std::sort(ranges.begin(), ranges.end(), before);
  const auto begin_together = [](const CodeRange& a, const CodeRange& b) { return a.address == b.address; };
  ranges.erase(std::unique(ranges.begin(), ranges.end(), begin_together), ranges.end());
  return ranges;
}

}  // namespace ubp::symbols
