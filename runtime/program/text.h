// Values and maps as text, as bpftrace prints them.
//
// Context: readers. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/program/analysis.h"
#include "runtime/program/memory.h"

namespace ubp::program {

// -5, true, abc, (1, abc, (2, 3))
std::string text_of(const Type& type, const std::uint64_t* words);

// What printf prints. words: the values, one behind the other.
std::string format_values(std::string_view format, const std::vector<Type>& types, const std::uint64_t* words);

// A key and its value as they were read: of an aggregation, its cells.
struct Row {
  std::vector<std::uint64_t> key, value;
};
// A map's lines. top: only the last so many of the order; 0: all. divisor: of numbers; 0: none.
std::string text_of(const Map& map, const MapView& view, std::vector<Row> rows, std::uint64_t top,
                    std::uint64_t divisor);

// What stands in a map now.
std::vector<Row> read_rows(const MapView& view);

}  // namespace ubp::program
