// Walking ELF notes. The contract is in notes.h.
#include "runtime/symbols/notes.h"

#include <elf.h>

#include <algorithm>
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

// Calls visit(type, name with its NUL, description) for every note, until it returns false.
template <typename Visit>
void visit_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment, const Visit& visit) {
  const std::uint64_t padding = alignment == 8 ? 7 : 3;
  std::uint64_t at = 0;
  while (size >= sizeof(Elf64_Nhdr) && at <= size - sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr note;
    std::memcpy(&note, data + at, sizeof note);
    const std::uint64_t name = at + sizeof note;
    const std::uint64_t description = (name + note.n_namesz + padding) & ~padding;
    const std::uint64_t end = description + note.n_descsz;
    if (end > size) return;
    const auto* const text = reinterpret_cast<const char*>(data);
    if (!visit(note.n_type, std::string_view(text + name, note.n_namesz),
               std::string_view(text + description, note.n_descsz)))
      return;
    at = (end + padding) & ~padding;
  }
}

// The text up to its NUL, which is taken from the rest.
std::string_view take_text(std::string_view& rest) {
  const std::string_view text = rest.substr(0, rest.find('\0'));
  rest.remove_prefix(std::min(text.size() + 1, rest.size()));
  return text;
}

}  // namespace

std::string build_id_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment) {
  std::string build_id;
  visit_notes(data, size, alignment, [&](std::uint32_t type, std::string_view name, std::string_view description) {
    if (type != NT_GNU_BUILD_ID || name != std::string_view(ELF_NOTE_GNU, sizeof ELF_NOTE_GNU)) return true;
    build_id = hexadecimal(reinterpret_cast<const std::uint8_t*>(description.data()), description.size());
    return false;
  });
  return build_id;
}

bool is_go_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment) {
  constexpr std::uint32_t kGoBuildId = 4;
  bool is_go = false;
  visit_notes(data, size, alignment, [&](std::uint32_t type, std::string_view name, std::string_view) {
    is_go = type == kGoBuildId && name == std::string_view("Go\0\0", 4);
    return !is_go;
  });
  return is_go;
}

std::vector<StaticMark> static_marks(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint32_t kMark = 3;
  std::vector<StaticMark> marks;
  visit_notes(data, size, 4, [&](std::uint32_t type, std::string_view name, std::string_view description) {
    std::uint64_t numbers[3];
    if (type != kMark || name != std::string_view("stapsdt", sizeof "stapsdt") || description.size() < sizeof numbers)
      return true;
    std::memcpy(numbers, description.data(), sizeof numbers);
    description.remove_prefix(sizeof numbers);
    StaticMark mark{numbers[0], numbers[1], numbers[2], take_text(description), {}, {}};
    mark.name = take_text(description);
    mark.arguments = take_text(description);
    if (!mark.provider.empty() && !mark.name.empty()) marks.push_back(mark);
    return true;
  });
  return marks;
}

}  // namespace ubp::symbols
