// Bytes of DWARF, one value behind the other. Untrusted: nothing is read behind the end.
//
// Sources: DWARF 5, 7.6; Linux Standard Base Core 5.0, "DWARF Exception Header Encoding".
#pragma once

#include <dwarf.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

namespace ubp::symbols {

class DwarfBytes {
 public:
  static constexpr std::uint8_t kFormatMask = 0x0F;  // how a value is stored; the rest says what is added to it

  DwarfBytes() = default;
  DwarfBytes(const std::uint8_t* begin, const std::uint8_t* end) : at_(begin), end_(end) {}

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
  // The next so many bytes on their own; none where there are fewer.
  DwarfBytes take(std::uint64_t count) {
    const std::uint8_t* const begin = at_;
    return skip(count) ? DwarfBytes(begin, at_) : DwarfBytes(begin, begin);
  }

  std::optional<std::uint64_t> read_uleb128() {
    unsigned bits = 0;
    return read_leb128(bits);
  }
  std::optional<std::int64_t> read_sleb128() {
    unsigned bits = 0;
    const std::optional<std::uint64_t> value = read_leb128(bits);
    if (!value) return std::nullopt;
    const bool is_negative = (at_[-1] & 0x40) != 0 && bits < 64;
    return static_cast<std::int64_t>(is_negative ? *value | ~std::uint64_t{0} << bits : *value);
  }

  // Up to its NUL, which is read too.
  std::optional<std::string_view> read_string() {
    const char* const text = reinterpret_cast<const char*>(at_);
    const std::size_t size = strnlen(text, left());
    if (!skip(size + 1)) return std::nullopt;
    return std::string_view(text, size);
  }

  // The value without what its encoding adds to it; std::nullopt also for the formats that no compiler uses here.
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
  std::optional<std::uint64_t> read_leb128(unsigned& bits) {
    std::uint64_t value = 0;
    while (at_ != end_) {
      const std::uint8_t byte = *at_++;
      if (bits < 64) value |= std::uint64_t{byte & 0x7fU} << bits;
      bits += 7;
      if ((byte & 0x80) == 0) return value;
    }
    return std::nullopt;
  }

  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* end_ = nullptr;
};

}  // namespace ubp::symbols
