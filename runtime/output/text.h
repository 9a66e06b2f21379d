// Values, maps and events as text, as bpftrace prints them; and as JSON, an object a line.
//
// Context: readers. Async-signal-safe: no. Thread-safe: yes.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/analysis/sources.h"
#include "runtime/helpers/memory.h"
#include "runtime/output/call_tree.h"
#include "runtime/stack/symbolizer.h"

namespace ubp::program {

enum class Format : std::uint8_t { kText, kJson };

// -5, true, abc, (1, abc, (2, 3))
std::string text_of(const Type& type, const std::uint64_t* words);
// -5, true, "abc", [1,"abc",[2,3]]
std::string json_of(const Type& type, const std::uint64_t* words);
// Of a type that is only for printing (stored_text.cpp).
std::string stored_text(const Type& type, const std::uint64_t* words);
// As strftime(3) has it, and %f: microseconds. boot_ns: of CLOCK_BOOTTIME.
std::string time_text(const std::string& format, std::uint64_t boot_ns);
// The same of what lies in memory as C has it (c_text.cpp).
std::string c_text(const Type& type, const std::uint8_t* bytes, Format format);

// A text in quotes, with JSON's escapes.
std::string json_quoted(std::string_view text);
// {"type": "printf", "data": "..."} and its newline. data: JSON.
std::string json_line(std::string_view type, std::string_view data);

// What printf prints. words: the values, one behind the other.
std::string format_values(std::string_view format, const std::vector<Type>& types, const std::uint64_t* words);

// How a program's events are read, and what their reader does for it beside printing.
struct ReaderOptions {
  Format format = Format::kText;
  Sources sources{"stdin", ""};                                  // of the program, in messages
  bool says_warnings = true;                                     // of warnf()
  std::uint64_t most_file_bytes = 10240;                         // of cat()
  std::function<void(const std::string&)> say{};                 // a message; empty: it is among what is printed
  std::function<std::string(const std::string&)> run_command{};  // for system(): its output; empty: none is run
  TreeOptions tree{};                                            // of tree()
  stack::SourceOf source{};                                      // of frames; empty: nobody knows it
};

// What an event of one piece prints (event_text.cpp).
std::string event_text(const Event& event, const std::uint64_t* words, const ReaderOptions& options);

// A key and its value as they were read: of an aggregation, its cells.
struct Row {
  std::vector<std::uint64_t> key, value;
};
// What stands in a map now.
std::vector<Row> read_rows(const MapView& view);

struct MapPrint {
  std::uint64_t top = 0;      // only the last so many of the order; 0: all
  std::uint64_t divisor = 0;  // of numbers; 0: none
  bool is_asked = false;      // print() names it: its value is printed even where it has none
};
// A map's lines.
std::string map_text(const Map& map, const MapView& view, std::vector<Row> rows, const MapPrint& print, Format format);

// ---- What map_text() is made of

bool is_histogram(const MapView& view);
// Of tseries(), from its cells (series_text.cpp). newest: interval of the whole map.
std::string series_text(const MapView& view, const std::vector<std::uint64_t>& cells, std::uint64_t newest);
std::string series_json(const MapView& view, const std::vector<std::uint64_t>& cells);
std::uint64_t newest_interval(const MapView& view, const std::vector<std::uint64_t>& cells);
// Into their order: numbers by themselves, histograms by how much is in them, all else by the key.
void sort_rows(const Map& map, const MapView& view, std::vector<Row>& rows);
std::string map_json(const Map& map, const MapView& view, const std::vector<Row>& rows, std::uint64_t divisor);
// A number that an aggregation came to, or one of its parts, divided as its type has it.
std::uint64_t divided(const Map& map, std::uint64_t number, std::uint64_t divisor);
// A key without the parentheses of a tuple.
std::string key_text(const Map& map, const Row& row);

}  // namespace ubp::program
