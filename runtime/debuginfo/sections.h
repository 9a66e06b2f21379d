// The bytes of a file's debug sections, and the numbers in them, for what libdw has no question for.
//
// Context: the command. What is in a file is untrusted. Async-signal-safe: no. Thread-safe: no.
#pragma once

#include <elfutils/libdw.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ubp::debuginfo {

using Bytes = std::span<const std::uint8_t>;

// Empty: there is none.
Bytes section(Dwarf* dwarf, std::string_view name);

inline std::string_view text_at(Bytes bytes, std::uint64_t offset) {
  if (offset >= bytes.size()) return {};
  const auto* const text = reinterpret_cast<const char*>(bytes.data() + offset);
  return {text, strnlen(text, bytes.size() - offset)};
}

// Takes numbers off bytes; past their end, is_good is false and numbers are 0.
class ByteReader {
 public:
  ByteReader(Bytes bytes, std::uint64_t offset) : bytes_(bytes), offset_(offset) {}

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

}  // namespace ubp::debuginfo
