// Walking ELF notes. The contract is in notes.h.
#include "runtime/symbols/notes.h"

#include <elf.h>

#include <cstring>

namespace ubp::symbols {
namespace {

std::string hexadecimal(const std::uint8_t* data, std::size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * size);
  for (std::size_t i = 0; i < size; ++i) {
    text += kDigits[data[i] >> 4];
    text += kDigits[data[i] & 15];
  }
  return text;
}

}  // namespace

std::string build_id_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment) {
  const std::uint64_t padding = alignment == 8 ? 7 : 3;
  std::uint64_t at = 0;
  while (size >= sizeof(Elf64_Nhdr) && at <= size - sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, data + at, sizeof note);
    const std::uint64_t name = at + sizeof note;
    const std::uint64_t description = (name + note.n_namesz + padding) & ~padding;
    const std::uint64_t end = description + note.n_descsz;
    if (end > size) break;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof ELF_NOTE_GNU &&
        std::memcmp(data + name, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0) {
      return hexadecimal(data + description, note.n_descsz);
    }
    at = (end + padding) & ~padding;
  }
  return {};
}

}  // namespace ubp::symbols
