// What generated code calls. Compiled without vector registers, free of libc, without allocation.
//
// Context: a hit, in the thread that made it; begin and end, in the thread that loads or ends the program.
// Async-signal-safe: yes. Thread-safe: yes.
#pragma once

#include "runtime/helpers/memory.h"

namespace ubp::program {

// ---- How a run ends

void count_filtered(const ubp_context* context);
void count_dropped(const ubp_context* context);
void close_gate(Run* run, std::uint64_t status);  // exit()
void override_result(Run* run, std::uint64_t value);
// Behind a block: runs those of the machine's intervals whose time has come. No thread does it.
void look_after_intervals(const ubp_context* context, Machine* machine);

// ---- Values

// C's, but a divisor of 0 gives 1 and is counted at the site, and the smallest number divided by -1 is itself.
std::uint64_t divide(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site);
std::uint64_t divide_signed(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site);
std::uint64_t modulo(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site);
std::uint64_t modulo_signed(Run* run, std::uint64_t left, std::uint64_t right, std::uint64_t site);
void count_site(Run* run, std::uint64_t site);

void copy_words(std::uint64_t* to, std::uint64_t to_words, const std::uint64_t* from, std::uint64_t from_words);
std::uint64_t is_same_text(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes);
// A string of the program's, up to its NUL, at most so many characters; zeros behind, up to so many words. "" where it
// cannot be read, which is counted at the site.
std::uint64_t is_same(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes);
// A number of 1, 2, 4 or 8 bytes, and bytes with zeros behind up to whole words. 0 where they cannot be read, which is
// counted at the site.
std::uint64_t read_number(Run* run, std::uint64_t address, std::uint64_t bytes, std::uint64_t site);
void read_bytes(Run* run, std::uint64_t address, char* to, std::uint64_t bytes, std::uint64_t site);
// Bytes behind their number, and zeros up to so many words.
void read_buffer(Run* run, std::uint64_t address, std::uint64_t* to, std::uint64_t bytes, std::uint64_t words,
                 std::uint64_t site);
void read_text(Run* run, std::uint64_t address, char* to, std::uint64_t characters, std::uint64_t words,
               std::uint64_t site);

// ---- Texts (text_helpers.cpp), which end at their NUL or with their bytes

// strncmp(), but any difference is 1. memcmp() likewise: zeros are behind what is shorter.
std::uint64_t compare_texts(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes,
                            std::uint64_t most);
std::uint64_t compare_bytes(const char* left, std::uint64_t left_bytes, const char* right, std::uint64_t right_bytes,
                            std::uint64_t count);
std::uint64_t text_length(const char* text, std::uint64_t bytes);
// Where a text has another in it; -1: nowhere.
std::int64_t find_text(const char* text, std::uint64_t bytes, const char* wanted, std::uint64_t wanted_bytes);
// Appends to what is in `to` already.
void append_text(char* to, std::uint64_t to_bytes, const char* text, std::uint64_t bytes);
// An entry of kNameEntry bytes; the last one for numbers that are none.
inline constexpr std::uint64_t kNameEntry = 64;
void choose_text(const char* table, std::uint64_t entries, std::uint64_t number, char* to);

// ---- What a hit is

std::uint64_t process_id(Run* run);
std::uint64_t thread_id(Run* run);
std::uint64_t user_id(Run* run);
std::uint64_t group_id(Run* run);
std::uint64_t processor(Run* run);
// The kernel's clocks: uapi/linux/time.h.
enum Clock : std::uint32_t { kWall = 0, kMonotonic = 1, kBootTime = 7, kAtomicTime = 11 };
std::uint64_t clock_time(std::uint64_t clock);
std::uint64_t boot_time(Run* run);
std::uint64_t elapsed_time(Run* run);
std::uint64_t random_number(Run* run);
std::uint64_t register_value(Run* run, std::uint64_t number);
std::uint64_t instruction_address(Run* run);
std::uint64_t numa_node(Run* run);
std::uint64_t first_process(Run* run);  // that the program began in
std::uint64_t parent_id(Run* run);
void thread_name(Run* run, char* to);  // kTaskNameBytes, as the next three
void parent_name(Run* run, char* to);
void leader_name(Run* run, char* to);
void probe_kind(Run* run, char* to);  // "uprobe"
void probe_name(Run* run, char* to);  // kNameBytes
void function_name(Run* run, char* to);

// ---- Maps. key: as many words as the map's have; of no use where it has none

std::uint64_t map_get(Run* run, const MapView* map, const std::uint64_t* key);
// Whether the key is there.
std::uint64_t map_get_wide(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t* value);
// The same for expressions: a key that is missing is counted at the site.
std::uint64_t map_read(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t site);
void map_read_wide(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t* value, std::uint64_t site);
void map_set(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value);
void map_set_wide(Run* run, const MapView* map, const std::uint64_t* key, const std::uint64_t* value);
// Adds to a value and returns what it is then.
std::uint64_t map_add(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t amount);
void map_aggregate(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value);
// Of kSeries. time: ns.
void map_aggregate_at(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t value, std::uint64_t time);
// An aggregation as one number.
std::uint64_t map_number(Run* run, const MapView* map, const std::uint64_t* key);
std::uint64_t map_has(Run* run, const MapView* map, const std::uint64_t* key);
// Whether the key is there, and then its value, an aggregation as one number.
std::uint64_t map_find(Run* run, const MapView* map, const std::uint64_t* key, std::uint64_t* value);
std::uint64_t map_delete(Run* run, const MapView* map, const std::uint64_t* key);
std::uint64_t map_length(Run* run, const MapView* map);
// A loop through the keys that a map has at its beginning: those that are deleted meanwhile are left out, and each that
// stays is met once. cursor: two words. map_next() writes a key and its value behind it, an aggregation as one number;
// 0: there is no other, or the run has no turns left, which is counted at the
// site.
void map_begin(Run* run, const MapView* map, std::uint64_t* cursor);
std::uint64_t map_next(Run* run, const MapView* map, std::uint64_t* cursor, std::uint64_t* row, std::uint64_t site);
void map_clear(Run* run, const MapView* map);
void map_zero(Run* run, const MapView* map);
// Writes the map as it is as events with this number. top: 0: all. divisor: 0: none.
void map_print(Run* run, const MapView* map, std::uint64_t event, std::uint64_t top, std::uint64_t divisor);

// ---- Events

// Room for one with so many words; null: there is none, and the hit counts as dropped.
std::uint64_t* begin_event(Run* run, std::uint64_t event, std::uint64_t words);
void end_event(Run* run, std::uint64_t* words);

}  // namespace ubp::program
