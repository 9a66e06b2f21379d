// ELF notes: the build-id. Pure: bytes in, text out; the mapped image and the file are read by the same code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace ubp::symbols {

// The GNU build-id in a note segment or section, in hexadecimal; empty when there is none.
// alignment: p_align or sh_addralign (8 pads to 8 bytes, everything else to 4).
// Source: gABI "Note Section"; Linux ABI for 8-byte padding of NT_GNU_PROPERTY_TYPE_0 notes.
std::string build_id_in_notes(const std::uint8_t* data, std::size_t size, std::size_t alignment);

}  // namespace ubp::symbols
