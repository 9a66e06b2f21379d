// Finding room for XOL areas, and making them.
//
// Context: load time. Thread-safe: no state.
#pragma once

#include <cstdint>
#include <optional>

#include "xol/area.h"

namespace ubp::xol {

// Reserves address space (no access, no memory) of `bytes` bytes so near [low, high) that every byte of both lies
// within rel32 of the other. Prefers space below the code, so that a heap that grows up behind it keeps its room.
// Returns the address, or nothing when there is no such space. Context: load time.
std::optional<std::uint64_t> reserve_near(std::uint64_t low, std::uint64_t high, std::uint64_t bytes);

// Makes an area near [low, high): reserves both views and maps them. Nothing when space or memory is denied.
std::optional<Area> make_area(std::uint64_t low, std::uint64_t high, const AreaLayout& layout);

// Gives both views back. Only when no thread can be inside.
void unmap_area(const Area& area, const AreaLayout& layout);

// True when an instruction anywhere in [low, high) that refers to anything in [low, high) can use the area.
bool area_serves(const Area& area, const AreaLayout& layout, std::uint64_t low, std::uint64_t high);

}  // namespace ubp::xol
