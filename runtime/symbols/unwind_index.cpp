// Reading .eh_frame_hdr and the descriptions it points to. See unwind_index.h.
#include "runtime/symbols/unwind_index.h"

#include <algorithm>
#include <cstring>

namespace ubp::symbols {
namespace {

// DW_EH_PE encodings.
constexpr std::uint8_t kUdata4 = 0x03, kPcRelativeSdata4 = 0x1b, kIndexRelativeSdata4 = 0x3b;

template <typename T>
T load(const std::uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

UnwindIndex::UnwindIndex(const Module& module) : module_(module) {
  constexpr std::uint64_t kHeader = 12;  // version, three encodings, pointer, count
  const Segment* segment = module.unwind_index == 0 ? nullptr : module.segment_at(module.unwind_index);
  const std::uint8_t* header = segment == nullptr ? nullptr : module.bytes_at(module.unwind_index, kHeader);
  if (header == nullptr) return;
  const std::uint64_t room = segment->address + segment->size - module.unwind_index;
  if (header[0] != 1 || header[1] != kPcRelativeSdata4 || header[2] != kUdata4 || header[3] != kIndexRelativeSdata4)
    return;
  const auto count = load<std::uint32_t>(header + 8);
  if (count > (room - kHeader) / sizeof(Entry) ||
      module.bytes_at(module.unwind_index, kHeader + count * sizeof(Entry)) == nullptr)
    return;
  entries_ = reinterpret_cast<const Entry*>(header + kHeader);
  count_ = count;
}

std::optional<Extent> UnwindIndex::containing(std::uint64_t address) const {
  const auto wanted = static_cast<std::int64_t>(address - module_.unwind_index);
  const Entry* const end = entries_ + count_;
  const Entry* found =
      std::upper_bound(entries_, end, wanted, [](std::int64_t at, const Entry& entry) { return at < entry.begin; });
  if (found == entries_) return std::nullopt;
  --found;
  // A description: length, distance to its CIE, where it begins relative to that field, how many bytes.
  const std::uint64_t description = module_.unwind_index + static_cast<std::uint64_t>(std::int64_t{found->description});
  const std::uint8_t* const bytes = module_.bytes_at(description, 16, readable_);
  if (bytes == nullptr) return std::nullopt;
  const std::uint64_t begin = description + 8 + static_cast<std::uint64_t>(std::int64_t{load<std::int32_t>(bytes + 8)});
  const auto size = load<std::uint32_t>(bytes + 12);
  const bool is_understood = begin == module_.unwind_index + static_cast<std::uint64_t>(std::int64_t{found->begin});
  if (!is_understood || address - begin >= size) return std::nullopt;
  return Extent{begin, begin + size};
}

}  // namespace ubp::symbols
