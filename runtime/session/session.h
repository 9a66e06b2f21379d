// One run of a program that is read from outside: the memory which `ubp run` makes, the process that runs it writes to,
// and which stays when that process is killed.
//
// A file that nobody can name (memfd_create), opened by the process through /proc/PID/fd. It has, in this order: the
// header; texts, each with a NUL: the program's name in messages, its text, its parameters and settings; from the next
// page on the memory of the program, as Place lays it out for an analysis of that text; then, for each process that
// runs it, what counts where, and its probes' counters (session_counts.cpp). Raw values only: who reads it makes the
// analysis again. All numbers are those of this machine.
//
// Context: normal. Async-signal-safe: no. Thread-safe: no; header() is for everybody.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/analysis/inputs.h"
#include "runtime/helpers/memory.h"

namespace ubp::program {

// Why a process does not run the program, as far as it knows: the nearest to running it is kept.
struct NotRun {
  enum Nearness : std::uint32_t { kNothing, kNoModule, kNoFunction, kRefused };
  std::uint32_t nearness;
  std::uint32_t line, column;  // in the program; 0: it is not about a place
  char message[1024], hint[512];
};

// What counts for an attach point of the program: of a bare target its probepoints, else its action. kMissed: counters
// of which only what was missed is the attach point's.
struct CountedRun {
  enum Kind : std::uint32_t { kPoints, kAction, kMissed };

  std::uint32_t line, column;  // of the attach point
  std::uint32_t is_bare;       // it has no block
  std::uint32_t kind;
  std::uint32_t first, count;  // of the counters of a name
};

// A process that counts in the session. Its counters are trap::Tasks': blocks of block_bytes, one for a task, in which
// `stride` counters of each trap::Counter follow one another. Their pages hold zeros until a task counts there.
struct CountedProcess {
  std::uint32_t id;        // 0: nobody has this place
  std::uint32_t sequence;  // odd while the runs are written
  std::uint32_t runs, blocks;
  std::uint64_t runs_offset, counters_offset;  // in the file
  std::uint64_t block_bytes, stride;
  std::uint32_t has_reported;  // it has told its own counts
  std::uint32_t reserved;
};

struct SessionHeader {
  static constexpr std::uint64_t kMagic = 0x4e4f495353504255;  // "UBPSSION"
  static constexpr std::uint32_t kVersion = 4;
  static constexpr std::uint32_t kMostProcesses = 64;
  enum State : std::uint32_t { kWaiting, kAttached };

  std::uint64_t magic;
  std::uint32_t version;
  std::uint32_t texts;  // how many
  std::uint64_t text_bytes;
  std::uint32_t settings;  // the last of the texts, two for each
  std::uint32_t reserved;
  std::uint64_t memory_offset, memory_bytes;
  std::uint64_t counted_offset, counted_bytes;  // room for processes' runs and counters, which is not mapped as a whole
  // What changes.
  Control control;
  std::uint32_t process;           // that runs it, by its id: the first that has what is to be probed; 0: none yet
  std::uint32_t state;             // a State; a futex
  std::uint32_t attached;          // probes: places, and blocks of begin and end
  std::uint32_t is_read;           // the reader has seen that they are attached; a futex
  std::uint32_t follows;           // every process runs it that has what is to be probed
  std::uint32_t forgives_missing;  // what is not found is left out
  std::uint32_t checks;            // nothing is to run: what would be armed is printed, and the process ends
  std::uint32_t has_ended;         // the blocks of end have run, or are running
  NotRun not_run;
  std::uint64_t counted_used;  // of counted_bytes, in whole pages
  CountedProcess counted[kMostProcesses];
};

// What an attach point has counted, in one process: hits = recorded + filtered + missed + dropped.
struct SessionCount {
  std::uint32_t line, column;
  bool is_bare;
  std::uint32_t process;
  bool is_reported;  // by the process itself
  std::uint64_t recorded, filtered, missed, dropped;
};

class Session {
 public:
  // Throws std::system_error.
  static std::unique_ptr<Session> create(const std::string& name, const std::string& text, const Inputs& inputs,
                                         std::uint64_t memory_bytes);
  // Null: there is none there, or it is none of this version.
  static std::unique_ptr<Session> open(const char* path);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  SessionHeader& header() const { return *static_cast<SessionHeader*>(mapping_); }
  std::uint8_t* memory() const { return static_cast<std::uint8_t*>(mapping_) + header().memory_offset; }
  // 0: the program's name; 1: its text; then its inputs.
  std::vector<std::string_view> texts() const;
  Inputs inputs() const;
  // For open(), as long as this process lives and keeps it. Of create() alone.
  std::string path() const;

  // Makes this process the one that runs the program. False: another one is.
  bool claim() const;
  // For one alone: to run the blocks of end. False: another does.
  bool claim_end() const;
  // Of a process that does not run it, where nobody does yet.
  void note(NotRun::Nearness nearness, std::uint32_t line, std::uint32_t column, std::string_view message,
            std::string_view hint) const;
  // Of open(): this process's counters go into the file. map(file, offset): maps them from there; false: it cannot.
  // Nothing happens where there is no room. One thread at a time, as the next two.
  void count_here(std::uint32_t blocks, std::uint64_t block_bytes, std::uint64_t stride,
                  const std::function<bool(int file, std::uint64_t offset)>& map);
  // What this process counts, as far as there is room.
  void write_runs(const std::vector<CountedRun>& runs) const;
  // This process has told its counts.
  void note_report() const;
  // Of create(): what all processes have counted up to now, also those that are gone. In order of the program's text.
  std::vector<SessionCount> counts() const;
  // Says that its probes are attached, and waits until the reader has seen it; not for ever.
  void attach(std::uint32_t probes) const;

 private:
  Session() = default;

  int file_ = -1;  // of create()
  void* mapping_ = nullptr;
  std::size_t bytes_ = 0;
  std::string path_;                   // of open()
  CountedProcess* counted_ = nullptr;  // this process, where its counters are in the file
  CountedRun* runs_ = nullptr;
};

}  // namespace ubp::program
