// The memory that a program's blocks write to at hits: its maps, and the events that a reader prints. All of it is
// valid as zeros, since a forked child finds it so (MADV_WIPEONFORK): empty maps of its own, and no events.
//
// Plain data, shared between generated code, its helpers (helpers.cpp) and readers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "runtime/consumers/consumer_list.h"
#include "runtime/stack/frame_rules.h"
#include "runtime/stack/stack_table.h"
#include "runtime/symbols/value_place.h"

namespace ubp::stack {
struct ModuleLog;
}

namespace ubp::runtime {
struct ReturnOwner;
}

namespace ubp::program {

// What a value of a map is.
enum class Aggregate : std::uint8_t {
  kNone,  // what was assigned last
  kCount,
  kSum,
  kMinimum,  // and kMaximum: it, and how many there were
  kMaximum,
  kAverage,  // and kStats: how many, and their sum
  kStats,
  kHistogram,
  kLinear,
  kSeries,
};

// What an interval of tseries() keeps.
enum class Series : std::uint8_t { kLast, kMinimum, kMaximum, kSum, kAverage };

// Values lie in whole words: how many take so many bytes.
constexpr std::uint64_t words_of(std::uint64_t bytes) {
  return (bytes + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t);
}

// ---- Maps (maps.h)

inline constexpr std::uint64_t kMostWideWords = 1280;  // of a key, or of a value

// The first words of a map's memory.
struct MapHeader {
  std::uint64_t free_nodes, free_values;    // lists: kIndex of the first one, a tag above
  std::uint64_t fresh_nodes, fresh_values;  // how many were ever taken from the pools
  std::uint64_t live;                       // keys, and those that are just being inserted
  std::uint64_t refused;                    // insertions that found no room
  std::uint64_t hand;                       // where make_room() looks next
  std::uint64_t owned_shards;               // how many were given to one task alone
};

// One key. In a list from its bucket; one without a map's keys is the first of the pool, and in none.
struct MapNode {
  std::uint64_t next;  // a link: below
  std::uint64_t free_next;
  // Together they change by one instruction. The generation is odd while the key is there. The value: itself, or for
  // one of several words its index in the pool of values, and above how often it was replaced. Not of aggregations that
  // have shards.
  alignas(16) std::uint64_t generation;
  std::uint64_t value;
  // Then the key's words.
};
static_assert(sizeof(MapNode) == 32);

// A link to a node: its number from 1 on, 0: none; whether the node that holds the link is deleted; and above how
// often the link was changed, so that one that was read before is never taken for what stands there now.
inline constexpr std::uint64_t kIndex = 0x7fffffff, kDeleted = 0x80000000, kTag = std::uint64_t{1} << 32;

// Where a map's parts are in this process, and what they look like. Read only.
struct MapView {
  MapHeader* header;
  std::uint64_t* buckets;
  std::uint8_t* nodes;
  std::uint64_t* values;  // null: a value is one word
  std::uint64_t* cells;   // of aggregations: by shard, node and cell; null: its cells are a key's value
  // By Run::shard: where the shard is that this task of this process has for itself, and adds to without locks; null:
  // it has none yet. Null altogether: no task has.
  std::uint64_t** own_cells;
  std::uint64_t* used;  // by node, whether it was met lately; null: a full map takes no more keys
  std::uint64_t bucket_mask;
  std::uint64_t node_bytes, node_count, capacity;
  std::uint64_t key_words;  // 0: it has no keys
  std::uint64_t value_words;
  std::uint64_t cell_count, shard_words, shard_mask;
  std::uint64_t shared_mask;  // of the first shards, which tasks share
  Aggregate aggregate;
  bool is_signed;                // what is aggregated
  std::uint8_t power;            // kHistogram: 2^power buckets for each power of two; kSeries: a Series
  std::int64_t low, high, step;  // kLinear; kSeries: how long an interval is in ns, and how many there are
};

// ---- Events

// What an event begins with; the values follow, as words.
struct EventHeader {
  std::uint32_t bytes;  // with this header
  std::uint32_t event;  // its number in the program
  std::uint64_t time;   // of the timestamp counter
  std::uint32_t task;   // TaskState::block, or kNoTask
  std::uint32_t part;   // kWhole, or what of a map that is printed: they have one time
};
enum : std::uint32_t { kWhole, kMapBegin, kMapKey, kMapEnd };

// A piece of the memory for events, written by one task at a time. `used` moves behind an event that is complete.
struct Chunk {
  enum : std::uint32_t { kFree, kTaken, kFull };  // kFull: its task has gone on to another
  std::uint32_t state;
  std::uint32_t process;  // whose task has it
  std::uint64_t used;     // bytes behind this header
  static constexpr std::uint64_t kBytes = 65536;
  static constexpr std::uint64_t kRoom = kBytes - 16;
  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(this + 1); }
};
static_assert(sizeof(Chunk) == 16);

// ---- What runs

// What is known of a probepoint: its names, "uprobe:libc:malloc" and "malloc", where its module and its arguments are.
inline constexpr std::size_t kNameBytes = 128;
struct PointName {
  std::uint32_t point, action;                     // runtime::counter_of() its consumer
  char probe[kNameBytes], function[kNameBytes];    // NUL-padded
  const symbols::ValuePlace* arguments = nullptr;  // and behind them the pieces of some
  std::uint32_t argument_count = 0;
  const symbols::PlaceStep* steps = nullptr;  // that places refer to
  std::uint64_t module_bias = 0;              // from the module's own addresses to those in the process
  // Who keeps the arguments of the function's activations; null: nobody does.
  const runtime::ReturnOwner* entries = nullptr;
};
struct PointNames {  // ascending; immutable once published
  std::uint64_t count;
  const PointName* names;
};

inline constexpr std::uint32_t kTaskNameBytes = 16;   // of a thread's name, with its NUL: prctl(2)
inline constexpr std::uint32_t kMostTasks = 16384;    // trap::TaskState::block is below
inline constexpr std::uint32_t kNoTask = kMostTasks;  // begin and end

// What all processes know that run one program.
struct Control {
  enum : std::uint32_t { kOpen, kExited, kOver };
  std::uint32_t gate;    // kExited: exit() was called; kOver: the process ends. No block runs any more but end
  std::uint32_t status;  // of exit()
  // UBP_FULL=block: hits wait where an event finds no room, for this process, which reads and gives room back.
  // 0: nobody does, and such events are dropped.
  std::uint32_t reader;
  std::uint32_t passes;  // how often it has looked; a futex
};

// A block that runs from time to time.
struct Interval {
  std::uint64_t period, next;  // ns; next: of CLOCK_MONOTONIC
  ubp_consumer block;
};

// One program in this process.
struct Machine {
  Control* control = nullptr;
  std::uint64_t* sites = nullptr;  // how often each of its run-time errors was met
  std::uint64_t* lost = nullptr;   // events that found no room
  std::uint8_t* chunks = nullptr;
  std::uint64_t chunk_count = 0;
  std::uint64_t* next_chunk = nullptr;   // where to look for one
  std::uint64_t look_again = 0;          // by the timestamp counter: there was none just now
  std::uint32_t* task_chunks = nullptr;  // each task's, from 1 on; 0: none
  std::uint64_t start_ns = 0;            // CLOCK_BOOTTIME
  std::uint64_t random = 0;
  std::uint32_t process = 0;  // that it was made in
  const PointNames* names = nullptr;
  Interval* intervals = nullptr;  // those that hits of this process look after
  std::uint64_t interval_count = 0;
  std::uint64_t looked = 0;                      // by the timestamp counter: when a hit did
  std::uint64_t tree_event = 0, tree_depth = 0;  // of tree(): Analysis has them
  // Of programs that take stacks, or name addresses.
  const stack::FrameTables* frame_tables = nullptr;  // null: not known yet
  stack::StackTable stacks;
  stack::ModuleLog* modules = nullptr;
  std::uint32_t image = 0;  // of this process, in `modules`
};

// One run of a block, on its stack.
struct Run {
  Machine* machine;
  const ubp_context* context;  // without registers and task in begin and end
  std::uint64_t dropped;       // not 0: an event or a key found no room
  std::uint64_t budget;        // turns of loops that are left
  std::uint64_t shard;         // its task's block, from 1 on; 0: begin and end
  Chunk* chunk;                // where the event is that was begun
};
inline constexpr std::uint64_t kMostTurns = 1 << 20;  // of a run's loops

}  // namespace ubp::program
