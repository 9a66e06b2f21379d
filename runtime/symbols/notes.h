// ELF notes: the build-id, static marks. Pure: bytes in, text out; the mapped image and the file are read by the same
// code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ubp::symbols {

// The GNU build-id in a note segment or section, in hexadecimal; empty when there is none.
// alignment: p_align or sh_addralign (8 pads to 8 bytes, everything else to 4).
// Source: gABI "Note Section"; Linux ABI for 8-byte padding of NT_GNU_PROPERTY_TYPE_0 notes.
std::string build_id_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment);

// Whether Go's linker has left its build-id in a note segment. Source: Go's cmd/link/internal/ld/elf.go.
bool is_go_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment);

// A static mark ("USDT"), one for each place where the compiler left it. Valid as long as the notes.
struct StaticMark {
  std::uint64_t address = 0, base = 0, semaphore = 0;  // as noted; the linker moves base, not the others
  std::string_view provider, name, arguments;
};

// The static marks in .note.stapsdt. Source: SystemTap's sdt.h, "UserSpaceProbeImplementation".
std::vector<StaticMark> static_marks(const std::uint8_t* data, std::size_t size);

}  // namespace ubp::symbols
