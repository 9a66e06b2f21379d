// See goroutines.h.
#include "runtime/symbols/goroutines.h"

#include <algorithm>
#include <stdexcept>

#include "runtime/symbols/elf_file.h"
#include "runtime/symbols/readable.h"

namespace ubp::symbols {

// Its linker leaves a note, unless it is told to leave no build-id; and a mark near the start of a data segment, 0xff
// and this text, 16-byte aligned; in libraries it is the writable one, as debug/buildinfo has it (and their read-only
// ones are large). (Compared word by word: the application's memchr may be a sanitizer's, which checks what it reads.)
bool has_go_code(const Module& module) {
  if (module.has_go_note) return true;
#ifdef __SANITIZE_ADDRESS__
  return false;  // what lies between variables is not to be read
#endif
  constexpr std::uint64_t kNearStart = 65536, kAlignment = 16;
  constexpr std::uint64_t kFirst = 0x697562206f4720ff, kSecond = 0x3a666e69646c;  // "\xff Go bui", "ldinf:"
  return std::any_of(module.segments.begin(), module.segments.end(), [&](const Segment& segment) {
    const bool may_hold_it = !segment.executable && (segment.writable || module.is_executable);
    if (!may_hold_it || !segment.readable) return false;
    const std::uint64_t start = module.bias + segment.address, begin = (start + kAlignment - 1) & ~(kAlignment - 1);
    const std::uint64_t end = Readable().end_of(start, start + std::min(segment.file_size, kNearStart));
    for (std::uint64_t at = begin; at + kAlignment <= end; at += kAlignment) {
      const auto* const words = reinterpret_cast<const std::uint64_t*>(at);
      if (words[0] == kFirst && (words[1] & 0xffffffffffff) == kSecond) return true;
    }
    return false;
  });
}

// Source: Go's cmd/link/internal/ld/sym.go and data.go. What is linked by another linker has the symbol; Go's own makes
// a segment of that word alone, and no symbol.
std::optional<std::int64_t> goroutine_word(const Module& module) {
  if (!module.thread_storage) return std::nullopt;
  try {
    const ElfFile file = open_module(module);
    if (const auto symbols = file.symbols(SHT_SYMTAB)) {
      for (const Symbol& symbol : *symbols) {
        if (ELF64_ST_TYPE(symbol.entry.st_info) == STT_TLS && symbol.name == "runtime.tlsg")
          return *module.thread_storage + static_cast<std::int64_t>(symbol.entry.st_value);
      }
    }
  } catch (const std::runtime_error&) {
    return std::nullopt;
  }
  return module.thread_storage_bytes == sizeof(std::uint64_t) ? module.thread_storage : std::nullopt;
}

}  // namespace ubp::symbols
